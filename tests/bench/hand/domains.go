package hand

import (
	"bufio"
	"errors"
	"os"
	"strconv"
	"strings"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/reusebitmap"
	"github.com/warmreboot/warmreboot/xenctl"
)

// Xen is what Xen says of all domains.
type Xen struct {
	// Processor is the processor time that each domain has used, in seconds, by
	// domid. Time in hypercalls and faults is its caller's.
	Processor map[string]float64 `json:"processor"`
	FreePages uint64             `json:"free_pages"`
}

// AskXen is for dom0.
func AskXen() (Xen, error) {
	xen, err := xenctl.Open()
	if err != nil {
		return Xen{}, err
	}
	all, err := xen.Domains()
	x := Xen{Processor: make(map[string]float64, len(all))}
	for _, d := range all {
		x.Processor[strconv.Itoa(int(d.Domid))] = float64(d.CPUTime) / 1e9
	}
	memory, memoryErr := xen.Memory()
	x.FreePages = memory.Free
	return x, errors.Join(err, memoryErr, xen.Close())
}

// Spread is how the pages that Xen has protected lie in a domain's memory. A
// region of 2 MiB with one of them is mapped page by page.
type Spread struct {
	Pages   uint64 `json:"pages"`
	Regions uint64 `json:"regions"` // with at least one such page
	All     uint64 `json:"all"`     // regions of the domain
}

// pagesPerRegion is the number of pages that a superpage maps.
const pagesPerRegion = 512

// SpreadOf is for dom0.
func SpreadOf(domid int64) (Spread, error) {
	xen, err := xenctl.Open()
	if err != nil {
		return Spread{}, err
	}
	reusable, err := xen.MapReuse(ident.Domid(domid))
	if err != nil {
		return Spread{}, errors.Join(err, xen.Close())
	}
	words := reusable.Words()
	s := spread(reusebitmap.FromWords(words, uint64(len(words))*64))
	return s, errors.Join(reusable.Close(), xen.Close())
}

func spread(reusable reusebitmap.Set) Spread {
	s := Spread{All: (reusable.Len() + pagesPerRegion - 1) / pagesPerRegion}
	last := ^uint64(0)
	for page := range reusable.All() {
		s.Pages++
		if region := page / pagesPerRegion; region != last {
			last = region
			s.Regions++
		}
	}
	return s
}

// MemoryTotal is what the kernel has to give out, in bytes: all but its own
// code, and what it set aside when it booted.
func MemoryTotal() (uint64, error) {
	file, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "MemTotal:"); ok {
			n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("/proc/meminfo has no MemTotal")
}
