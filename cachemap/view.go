package cachemap

import (
	"cmp"
	"iter"
	"math/bits"
	"slices"

	"github.com/warmreboot/warmreboot/ident"
)

// View is a table together with a bitmap that selects the PFNs to look at:
// the reuse bitmap, the held pages, or any other set. Neither is copied; both
// may change while they are looked at.
type View struct {
	entries []Entry
	words   []uint64
}

// NewView returns the view of the entries whose bits are set in words: bit
// n%64 of words[n/64] is PFN n. Bits past the end of entries are ignored.
func NewView(entries []Entry, words []uint64) View {
	if n := (len(entries) + 63) / 64; len(words) > n {
		words = words[:n]
	}
	return View{entries, words}
}

// Has reports whether the PFN is selected.
func (v View) Has(p ident.PFN) bool {
	return p < ident.PFN(len(v.entries)) && p/64 < ident.PFN(len(v.words)) && v.words[p/64]&(1<<(p%64)) != 0
}

// Entry returns a copy of the PFN's entry, selected or not.
//
// Preconditions: p is below the number of entries.
func (v View) Entry(p ident.PFN) Entry { return v.entries[p] }

// Words is the number of words of a bitmap that has all of the view's pages.
func (v View) Words() int { return len(v.words) }

// Len counts the selected PFNs.
func (v View) Len() int {
	n := 0
	for i, w := range v.words {
		if tail := len(v.entries) - i*64; tail < 64 {
			w &= 1<<tail - 1
		}
		n += bits.OnesCount64(w)
	}
	return n
}

// All yields the selected PFNs in ascending order, each with a copy of its
// entry.
func (v View) All() iter.Seq2[ident.PFN, Entry] { return v.From(0) }

// From is All for the PFNs from first on.
func (v View) From(first ident.PFN) iter.Seq2[ident.PFN, Entry] {
	return func(yield func(ident.PFN, Entry) bool) {
		for i := int(min(first/64, ident.PFN(len(v.words)))); i < len(v.words); i++ {
			w := v.words[i]
			if ident.PFN(i) == first/64 {
				w &= ^uint64(0) << (first % 64)
			}
			for ; w != 0; w &= w - 1 {
				p := i*64 + bits.TrailingZeros64(w)
				if p >= len(v.entries) {
					return
				}
				if !yield(ident.PFN(p), v.entries[p]) {
					return
				}
			}
		}
	}
}

// Stats is what a view has of one vbd. Sectors are the half-open range that
// the pages lie in.
type Stats struct {
	VBD      ident.VBD
	Pages    uint64
	From, To Sector
}

// MaxVBDs is the number of vbds that a domain is believed to have. The number of
// an entry's vbd is the guest's word.
const MaxVBDs = 1024

// ByVBD returns the statistics of every vbd in the view, in order of VBD. It
// looks at each selected entry once. Pages of more than MaxVBDs vbds are left
// out: those of the vbds that come last, in the order of PFN.
func (v View) ByVBD() []Stats {
	var all []Stats
	index := map[ident.VBD]int{}
	last := -1 // entries of one vbd come in runs
	for p := range v.All() {
		e := &v.entries[p]
		vbd, sector := e.VBD, e.Sector
		if last < 0 || all[last].VBD != vbd {
			at, ok := index[vbd]
			if !ok {
				if len(all) == MaxVBDs {
					continue
				}
				at = len(all)
				index[vbd] = at
				all = append(all, Stats{VBD: vbd, From: sector, To: sector})
			}
			last = at
		}
		s := &all[last]
		s.Pages++
		s.From = min(s.From, sector)
		s.To = max(s.To, sector+SectorsPerPage)
	}
	slices.SortFunc(all, func(a, b Stats) int { return cmp.Compare(a.VBD, b.VBD) })
	return all
}
