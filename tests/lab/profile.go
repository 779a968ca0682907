package lab

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Sample is what the machine's processor was doing at some moment.
type Sample struct {
	Address uint64 // of the instruction, or of an earlier one: QEMU's own copy of it lags by a few branches
	Ring    byte   // '0' or '3'
	Halted  bool
}

// Where Linux and Xen lie, on x86-64. A PV dom0's kernel runs in ring 3, and that of
// a PVH domain in ring 0.
const (
	linuxBase         = 0xffffffff80000000
	xenBase, xenLimit = 0xffff82d000000000, 0xffff830000000000
)

// Who runs.
const (
	Idle       = "idle"
	InXen      = "xen"
	InDom0     = "dom0"
	InDomU     = "domU"
	InPrograms = "programs" // of dom0 or the domU
	Elsewhere  = "elsewhere"
)

// Who tells who runs.
func (s Sample) Who() string {
	switch {
	case s.Halted:
		return Idle
	case s.Address >= xenBase && s.Address < xenLimit:
		return InXen
	case s.Address >= linuxBase && s.Ring == '3':
		return InDom0
	case s.Address >= linuxBase:
		return InDomU
	case s.Ring == '3' && s.Address < 1<<47:
		return InPrograms
	}
	return Elsewhere
}

// monitorPatience is how long the monitor, which serves one at a time, may take to
// serve us.
const monitorPatience = 10 * time.Second

// Profile looks at the processor every so often, by QEMU's monitor, and for so
// long, both by the host's clock. The machine's own clock does not notice.
func (m *Machine) Profile(ctx context.Context, every, long time.Duration) ([]Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, long+monitorPatience)
	defer cancel()
	q, err := m.openMonitor(ctx)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var all []Sample
	for end := time.Now().Add(long); time.Now().Before(end); <-ticker.C {
		text, err := q.ask("info registers")
		if err != nil {
			return all, err
		}
		sample, err := parseRegisters(text)
		if err != nil {
			return all, err
		}
		all = append(all, sample)
	}
	return all, nil
}

// parseRegisters finds what a sample is in what `info registers` prints.
func parseRegisters(text string) (Sample, error) {
	var s Sample
	found := 0
	for field := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(field, "=")
		switch {
		case name == "RIP":
			address, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				return s, fmt.Errorf("info registers: %w", err)
			}
			s.Address = address
		case name == "CPL" && len(value) == 1:
			s.Ring = value[0]
		case name == "HLT":
			s.Halted = value == "1"
		default:
			continue
		}
		found++
	}
	if found != 3 {
		return s, fmt.Errorf("info registers: no RIP, CPL and HLT in %q", text)
	}
	return s, nil
}

// Symbols are the functions of a kernel, or of Xen, in the order of their addresses.
type Symbols []Symbol

// Symbol is a function.
type Symbol struct {
	Address uint64
	Name    string
}

// ReadSymbols reads what nm prints, and /proc/kallsyms and xen-syms.map have: address, type, name. What
// is not a function is left out.
func ReadSymbols(text []byte) (Symbols, error) {
	var all Symbols
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) < 3 || !strings.Contains("tTwW", fields[1]) {
			continue
		}
		address, err := strconv.ParseUint(strings.TrimPrefix(fields[0], "0x"), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("symbols: %w", err)
		}
		all = append(all, Symbol{address, fields[2]})
	}
	slices.SortStableFunc(all, func(a, b Symbol) int { return cmp.Compare(a.Address, b.Address) })
	return all, nil
}

// Find returns the function that an address is in, or "".
func (s Symbols) Find(address uint64) string {
	i, exact := slices.BinarySearchFunc(s, address, func(symbol Symbol, address uint64) int { return cmp.Compare(symbol.Address, address) })
	if !exact {
		i--
	}
	if i < 0 {
		return ""
	}
	return s[i].Name
}

// Count is how many samples are of somebody, or of a function of his.
type Count struct {
	Who      string `json:"who"`
	Function string `json:"function,omitempty"`
	Samples  int    `json:"samples"`
}

// CountSamples counts them: by who runs, and by function where there are symbols of
// his. The most come first.
func CountSamples(samples []Sample, symbols map[string]Symbols) (who, functions []Count) {
	whose, where := make(map[Count]int), make(map[Count]int)
	for _, s := range samples {
		w := s.Who()
		whose[Count{Who: w}]++
		if name := symbols[w].Find(s.Address); name != "" {
			where[Count{Who: w, Function: name}]++
		}
	}
	return sorted(whose), sorted(where)
}

func sorted(counts map[Count]int) []Count {
	var all []Count
	for c, n := range counts {
		c.Samples = n
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Samples, a.Samples), cmp.Compare(a.Who, b.Who), cmp.Compare(a.Function, b.Function))
	})
	return all
}

// WriteCounts writes them as people read them, at most so many, with their share of
// all samples.
func WriteCounts(w io.Writer, counts []Count, most, samples int) error {
	for _, c := range counts[:min(most, len(counts))] {
		if _, err := fmt.Fprintf(w, "%7d %5.1f %%  %-10s %s\n", c.Samples, 100*float64(c.Samples)/float64(samples), c.Who, c.Function); err != nil {
			return err
		}
	}
	return nil
}
