package cachemap

import (
	"math/bits"

	"github.com/warmreboot/warmreboot/ident"
)

// noPFN marks an empty slot.
const noPFN = ^uint32(0)

// Index finds pages of a view by what they hold. It is an open-addressed hash
// of PFNs only, 5 bytes for each page; what a PFN holds is read from the
// table. An entry that has changed since the index was made is not found, nor
// is a page from MaxPages on.
type Index struct {
	view   View
	slots  []uint32
	secret *secret
	id     identity
}

// IndexByKey indexes the view by (vbd, cookie).
func IndexByKey(v View) *Index { return newIndex(v, byKey) }

// IndexBySector indexes the view by (vbd, sector).
func IndexBySector(v View) *Index { return newIndex(v, bySector) }

// newIndex keeps the first of several pages that hold the same.
func newIndex(v View, id identity) *Index {
	n := v.Len()
	// At most 4/5 full, so that a probe sequence ends soon.
	x := &Index{view: v, slots: make([]uint32, n+n/4+1), secret: newSecret(), id: id}
	for i := range x.slots {
		x.slots[i] = noPFN
	}
	added := 0
	for p := range v.All() {
		// The bitmap may have grown since it was counted: keep a free slot.
		if added++; added >= len(x.slots) || p >= MaxPages {
			break
		}
		if at := x.slot(&v.entries[p]); x.slots[at] == noPFN {
			x.slots[at] = uint32(p)
		}
	}
	return x
}

// slot returns where a page that holds the same as e is, or would be.
func (x *Index) slot(e *Entry) int {
	scaled, _ := bits.Mul64(x.id.hash(e, x.secret), uint64(len(x.slots)))
	at := int(scaled)
	for x.slots[at] != noPFN && !x.id.same(&x.view.entries[x.slots[at]], e) {
		if at++; at == len(x.slots) {
			at = 0
		}
	}
	return at
}

func (x *Index) find(e Entry) (ident.PFN, bool) {
	p := x.slots[x.slot(&e)]
	return ident.PFN(p), p != noPFN
}

// Key returns the page with that key.
//
// Preconditions: the index is by key.
func (x *Index) Key(k Key) (ident.PFN, bool) {
	return x.find(Entry{VBD: k.VBD, Cookie: k.Cookie})
}

// Sector returns the page with that sector.
//
// Preconditions: the index is by sector.
func (x *Index) Sector(vbd ident.VBD, s Sector) (ident.PFN, bool) {
	return x.find(Entry{VBD: vbd, Sector: s})
}
