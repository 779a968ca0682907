package validate

import (
	"fmt"
	"slices"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/reusebitmap"
)

// Fault is one way in which entries are wrong.
type Fault struct {
	What  string `json:"what"`
	Pages uint64 `json:"pages"`
	First string `json:"first"` // an example, for people
}

func (f Fault) String() string {
	return fmt.Sprintf("%d pages: %s, e.g. %s", f.Pages, f.What, f.First)
}

// Structure is the outcome of CheckStructure.
type Structure struct {
	// Drop are the pages that must be forgotten, in ascending order.
	Drop []ident.PFN
	// Faults say why, per vbd.
	Faults map[ident.VBD][]Fault
}

// CheckStructure checks the selected entries: one page for each key, one key
// for each sector of a vbd, sectors within the vbd, page numbers below maxPFN.
// Size gives a vbd's size in sectors, or false if the domain has no such vbd;
// the pages of such a vbd are left to the caller.
//
// The entries are the guest's word. Whatever they are, the time is proportional
// to the number of pages; size is called for cachemap.MaxVBDs vbds at most, and
// faults of further ones are put down to vbd 0.
func CheckStructure(v cachemap.View, maxPFN ident.PFN, size func(ident.VBD) (cachemap.Sector, bool)) Structure {
	maxPFN = min(maxPFN, cachemap.MaxPages) // FindConflicts looks no further
	s := Structure{Faults: map[ident.VBD][]Fault{}}
	drop := make([]uint64, v.Words())
	fault := func(p ident.PFN, e cachemap.Entry, what string) {
		drop[p/64] |= 1 << (p % 64)
		s.fault(p, e, what)
	}
	sizes := map[ident.VBD]cachemap.Sector{}
	last, end, known := ident.VBD(0), cachemap.Sector(0), false
	for p, e := range v.All() {
		if e.VBD != last || !known {
			var ok bool
			if end, ok = sizes[e.VBD]; !ok {
				if len(sizes) == cachemap.MaxVBDs {
					known = false
					fault(p, e, "more vbds than a domain has")
					continue
				}
				if end, ok = size(e.VBD); !ok {
					end = ^cachemap.Sector(0)
				}
				sizes[e.VBD] = end
			}
			last, known = e.VBD, true
		}
		switch {
		case p >= maxPFN:
			fault(p, e, "page number out of range")
		case e.VBD == 0:
			fault(p, e, "no vbd")
		case e.Sector%cachemap.SectorsPerPage != 0:
			fault(p, e, "sector not aligned")
		case e.Sector > end || end-e.Sector < cachemap.SectorsPerPage:
			fault(p, e, "sector past the end of the disk")
		}
	}
	c := cachemap.FindConflicts(v)
	for p, e := range c.SameKey.All() {
		fault(p, e, "another page holds the same page of the same file")
	}
	for p, e := range c.SameSector.All() {
		fault(p, e, "another page holds the same sector")
	}
	dropped := reusebitmap.FromWords(drop, ^uint64(0))
	s.Drop = make([]ident.PFN, 0, dropped.Count())
	for p := range dropped.All() {
		s.Drop = append(s.Drop, ident.PFN(p))
	}
	return s
}

func (s *Structure) fault(p ident.PFN, e cachemap.Entry, what string) {
	vbd := e.VBD
	list, ok := s.Faults[vbd]
	if !ok && len(s.Faults) >= cachemap.MaxVBDs {
		vbd = 0
		list = s.Faults[vbd]
	}
	i := slices.IndexFunc(list, func(f Fault) bool { return f.What == what })
	if i < 0 {
		i = len(list)
		list = append(list, Fault{What: what, First: fmt.Sprintf("PFN %#x, %v", uint64(p), e)})
		s.Faults[vbd] = list
	}
	list[i].Pages++
}
