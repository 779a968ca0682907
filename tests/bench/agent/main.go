// Agent measures what the agent does between the creation of a domain and its
// verdicts, on tables that it makes up, and writes JSON to standard output. It
// asserts nothing. See docs/performance.md.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/validate"
	"github.com/warmreboot/warmreboot/tests/bench/measure"
)

func main() {
	sizes := flag.String("sizes", "1000000,10000000,50000000", "entries in a table, comma-separated")
	worst := flag.Int("worst", 10_000_000, "most entries in the tables that are made to do harm")
	maps := flag.Int("maps", 50_000_000, "most entries in the tables that Go's maps are compared on")
	only := flag.String("kinds", "", "of tables, comma-separated; all if empty")
	runs := flag.Int("runs", 5, "how often each is measured; the one with the least processor time counts")
	dir := flag.String("dir", ".", "directory on the disk to read from")
	content := flag.Int("content", 1024, "MiB of pages whose contents are compared")
	flag.Parse()
	if err := run(os.Stdout, os.Stderr, options{*sizes, *only, *worst, *maps, *runs, *dir, *content << 20}); err != nil {
		fmt.Fprintln(os.Stderr, "bench agent:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	sizes, kinds      string
	worst, maps, runs int
	dir               string
	content           int // bytes; 0: contents are not compared
}

// report is what is written.
type report struct {
	Date    string  `json:"date"`
	Command string  `json:"command"`
	Machine machine `json:"machine"`
	Runs    int     `json:"runs"`
	// Tables has each kind of table in each size.
	Tables []tableResult `json:"tables"`
	// Linearity is, for each kind of table and each cost, the cost of an entry
	// in the largest table over that in the smallest.
	Linearity map[string]map[string]float64 `json:"linearity"`
	Content   contentResult                 `json:"content"`
}

// cost is that of the run with the least processor time, but for the pauses:
// the longest in any run, and the longest of the run that had the shortest. On a
// machine that has other work, a pause lasts until the process is let on.
type cost struct {
	WallSeconds    float64 `json:"wall_s"`
	CPUSeconds     float64 `json:"cpu_s"`
	CPUPerEntry    float64 `json:"cpu_ns_per_entry"`
	HeapPerEntry   float64 `json:"heap_bytes_per_entry"`
	MaxPauseMillis float64 `json:"max_gc_pause_ms"`
	MinPauseMillis float64 `json:"least_max_gc_pause_ms"`
	// WaitedMillis is how long the process had to wait for a processor in the
	// run with the longest pause.
	WaitedMillis float64 `json:"waited_ms_with_longest_pause"`
}

type tableResult struct {
	Kind    string `json:"kind"`
	Entries int    `json:"entries"`
	Dropped int    `json:"dropped"`
	// TakeOver maps the view of the held pages and counts them by vbd; Validate
	// maps it again and checks the structure; Total is both. Approval is one
	// hypercall for each vbd, however many pages it has.
	TakeOver cost `json:"take_over"`
	Validate cost `json:"validate"`
	Total    cost `json:"total"`
	// GoMap finds the same conflicts with Go's maps, and does nothing else. It
	// is run once. Absent where it was not measured.
	GoMap *cost `json:"go_map,omitempty"`
	// Memory is reading the table once, word by word.
	Memory            cost    `json:"memory"`
	MemoryGBPerSecond float64 `json:"memory_gb_per_cpu_s"`
	OverMemory        float64 `json:"validate_over_memory"`
	GoMapOver         float64 `json:"go_map_over_validate,omitempty"`
	// Hypercalls are those that verdicts and drops would take.
	Hypercalls int `json:"hypercalls"`
}

// run writes the report to out, and a line for people to log after each
// measurement.
func run(out, log io.Writer, o options) error {
	// One core: what the targets are about. The comparison of contents uses more.
	cores := runtime.GOMAXPROCS(1)
	r := report{Date: time.Now().UTC().Format(time.RFC3339), Command: strings.Join(os.Args, " "),
		Machine: thisMachine(cores), Runs: o.runs, Linearity: map[string]map[string]float64{}}
	first := map[string]tableResult{}
	for _, f := range strings.Split(o.sizes, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n < 2 {
			return fmt.Errorf("size %q", f)
		}
		for _, k := range kinds {
			if k.harmful && n > o.worst || o.kinds != "" && !slices.Contains(strings.Split(o.kinds, ","), k.name) {
				continue
			}
			k.goMap = k.goMap && n <= o.maps
			t := measureTable(k, n, o.runs)
			r.Tables = append(r.Tables, t)
			if _, ok := first[k.name]; !ok {
				first[k.name] = t
			}
			r.Linearity[k.name] = map[string]float64{
				"cpu":  t.Total.CPUPerEntry / first[k.name].Total.CPUPerEntry,
				"heap": t.Total.HeapPerEntry / first[k.name].Total.HeapPerEntry,
			}
			fmt.Fprintf(log, "%-10s %9d entries: validate %6.3f s CPU, %6.3f s wall, %5.2f B heap/entry, longest GC pause %.2f ms, with %.0f ms waited for a processor; reading %5.3f s\n",
				k.name, n, t.Validate.CPUSeconds, t.Validate.WallSeconds, t.Total.HeapPerEntry, t.Total.MaxPauseMillis, t.Total.WaitedMillis, t.Memory.CPUSeconds)
		}
	}
	runtime.GOMAXPROCS(cores)
	debug.FreeOSMemory()
	if o.content > 0 {
		var err error
		if r.Content, err = measureContent(context.Background(), log, o.dir, o.content, o.runs); err != nil {
			return err
		}
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// kind is a kind of table.
type kind struct {
	name    string
	fill    func(*memory)
	goMap   bool // compare with Go's maps
	harmful bool // as a guest would make it that means harm
}

var kinds = []kind{
	{"sound", sound, true, false},
	{"scattered", scattered, false, false},
	{"all-same", allSame, false, true},
	{"pairs", pairs, false, true},
	{"many-vbds", manyVBDs, false, true},
}

func measureTable(k kind, n, runs int) tableResult {
	// The table is on the heap here, and mapped in the product. It has no
	// pointers, so that the collector doesn't look at it.
	m := &memory{entries: make([]cachemap.Entry, n), words: make([]uint64, (n+63)/64)}
	k.fill(m)
	for p := range m.entries {
		m.words[p/64] |= 1 << (p % 64)
	}
	t := tableResult{Kind: k.name, Entries: n}
	var found validate.Structure
	t.TakeOver = best(n, runs, func() { t.Hypercalls = len(takeOver(m)) })
	t.Validate = best(n, runs, func() { found = check(m) })
	t.Dropped = len(found.Drop)
	t.Hypercalls += (t.Dropped + dropBatch - 1) / dropBatch
	found = validate.Structure{}
	t.Total = best(n, runs, func() {
		takeOver(m)
		check(m)
	})
	t.Memory = best(n, runs, func() { read(m.entries) })
	t.MemoryGBPerSecond = float64(n) * 32 / 1e9 / t.Memory.CPUSeconds
	t.OverMemory = t.Validate.CPUSeconds / t.Memory.CPUSeconds
	if k.goMap {
		c := best(n, 1, func() { goMaps(m) })
		t.GoMap, t.GoMapOver = &c, c.CPUSeconds/t.Validate.CPUSeconds
	}
	return t
}

// dropBatch is the number of pages that xenctl has Xen forget in one call.
const dropBatch = 4096

// takeOver is what the agent does when it finds a new domain that holds pages.
func takeOver(m *memory) []cachemap.Stats {
	v, closeView, err := validate.MapView(m, 1, true)
	if err != nil {
		panic(err)
	}
	defer closeView()
	return v.ByVBD()
}

// check is what the agent does before it judges the disks.
func check(m *memory) validate.Structure {
	v, closeView, err := validate.MapView(m, 1, true)
	if err != nil {
		panic(err)
	}
	defer closeView()
	return validate.CheckStructure(v, ident.PFN(len(m.entries)), func(ident.VBD) (cachemap.Sector, bool) { return diskSectors, true })
}

// goMaps finds the same conflicts with Go's maps, one after the other.
func goMaps(m *memory) int {
	conflicts := 0
	keys := map[cachemap.Key]uint32{}
	for p := range m.entries {
		k := m.entries[p].Key()
		if _, ok := keys[k]; ok {
			conflicts++
		}
		keys[k] = uint32(p)
	}
	type sector struct {
		vbd ident.VBD
		at  cachemap.Sector
	}
	keys = nil
	sectors := map[sector]uint32{}
	for p := range m.entries {
		s := sector{m.entries[p].VBD, m.entries[p].Sector}
		if _, ok := sectors[s]; ok {
			conflicts++
		}
		sectors[s] = uint32(p)
	}
	return conflicts
}

// read reads all of the table, and returns something that depends on all of it.
//
//go:noinline
func read(entries []cachemap.Entry) uint64 {
	a, b := uint64(0), uint64(0)
	for i := range entries {
		e := &entries[i]
		f := e.Cookie.File()
		a += f.Inode ^ uint64(f.Index) ^ uint64(f.FSID)<<32
		b += uint64(e.Sector) ^ uint64(f.Generation)<<32 ^ uint64(e.VBD)
	}
	return a ^ b
}

// best measures f several times, from a clean heap. So that the collector has
// something to do, a collection begins together with f.
func best(n, runs int, f func()) cost {
	var c cost
	for i := range runs {
		runtime.GC()
		one := measure.Of(func() {
			done := make(chan struct{})
			go func() { runtime.GC(); close(done) }()
			f()
			<-done
		})
		pause := one.MaxPause.Seconds() * 1e3
		if i == 0 || pause > c.MaxPauseMillis {
			c.MaxPauseMillis, c.WaitedMillis = pause, one.Waited.Seconds()*1e3
		}
		if i == 0 || one.CPU.Seconds() < c.CPUSeconds {
			c.WallSeconds, c.CPUSeconds = one.Wall.Seconds(), one.CPU.Seconds()
			c.CPUPerEntry = float64(one.CPU.Nanoseconds()) / float64(n)
			c.HeapPerEntry = float64(one.Allocated) / float64(n)
		}
		if i == 0 || pause < c.MinPauseMillis {
			c.MinPauseMillis = pause
		}
	}
	return c
}
