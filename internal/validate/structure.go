package validate

import (
	"fmt"
	"slices"

	"github.com/warmreboot/warmreboot/cachemap"
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
	Drop []cachemap.PFN
	// Faults say why, per vbd.
	Faults map[cachemap.VBD][]Fault
}

// CheckStructure checks the selected entries: one page for each key, one key
// for each sector of a vbd, sectors within the vbd, page numbers below maxPFN.
// Size gives a vbd's size in sectors, or false if the domain has no such vbd;
// the pages of such a vbd are left to the caller.
func CheckStructure(v cachemap.View, maxPFN cachemap.PFN, size func(cachemap.VBD) (cachemap.Sector, bool)) Structure {
	s := Structure{Faults: map[cachemap.VBD][]Fault{}}
	sizes := map[cachemap.VBD]cachemap.Sector{}
	last, end, known := cachemap.VBD(0), cachemap.Sector(0), false
	for p, e := range v.All() {
		if e.VBD != last || !known {
			var ok bool
			if end, ok = sizes[e.VBD]; !ok {
				if end, ok = size(e.VBD); !ok {
					end = ^cachemap.Sector(0)
				}
				sizes[e.VBD] = end
			}
			last, known = e.VBD, true
		}
		switch {
		case p >= maxPFN || p >= cachemap.MaxPages: // what FindConflicts looks at
			s.fault(p, e, "page number out of range")
		case e.VBD == 0:
			s.fault(p, e, "no vbd")
		case e.Sector%cachemap.SectorsPerPage != 0:
			s.fault(p, e, "sector not aligned")
		case e.Sector > end || end-e.Sector < cachemap.SectorsPerPage:
			s.fault(p, e, "sector past the end of the disk")
		}
	}
	c := cachemap.FindConflicts(v)
	for p, e := range c.SameKey.All() {
		s.fault(p, e, "another page holds the same page of the same file")
	}
	for p, e := range c.SameSector.All() {
		s.fault(p, e, "another page holds the same sector")
	}
	slices.Sort(s.Drop)
	s.Drop = slices.Compact(s.Drop)
	return s
}

func (s *Structure) fault(p cachemap.PFN, e cachemap.Entry, what string) {
	s.Drop = append(s.Drop, p)
	list := s.Faults[e.VBD]
	i := slices.IndexFunc(list, func(f Fault) bool { return f.What == what })
	if i < 0 {
		i = len(list)
		list = append(list, Fault{What: what, First: fmt.Sprintf("PFN %#x, %v", uint64(p), e)})
	}
	list[i].Pages++
	s.Faults[e.VBD] = list
}
