package cachemap

import (
	"math/bits"
	"slices"
)

// noPFN marks an empty slot; PFNs up to 2^32-2 (16 TiB of memory) fit.
const noPFN = ^uint32(0)

// Index finds pages of a view by what they hold. It is an open-addressed hash
// of PFNs only, at most 8 bytes for each page; what a PFN holds is read from
// the table. An entry that has changed since the index was made is not found.
type Index struct {
	view  View
	slots []uint32
	hash  func(Entry) uint64
	same  func(a, b Entry) bool
}

// IndexByKey indexes the view by (vbd, inode, generation, index).
func IndexByKey(v View) *Index { x, _ := newIndex(v, hashKey, sameKey); return x }

// IndexBySector indexes the view by (vbd, sector).
func IndexBySector(v View) *Index { x, _ := newIndex(v, hashSector, sameSector); return x }

// newIndex also returns the pages that hold the same as another page: each of
// them, in no order, possibly more than once.
func newIndex(v View, hash func(Entry) uint64, same func(a, b Entry) bool) (*Index, []PFN) {
	n := v.Len()
	x := &Index{view: v, hash: hash, same: same}
	// At most 4/5 full, so that a probe sequence ends soon.
	x.slots = make([]uint32, 1<<bits.Len(uint(n+n/4)))
	for i := range x.slots {
		x.slots[i] = noPFN
	}
	var twice []PFN
	added := 0
	for p, e := range v.All() {
		// The bitmap may have grown since it was counted: keep a free slot.
		if added++; added >= len(x.slots) || uint64(p) >= uint64(noPFN) {
			break
		}
		at := x.slot(e)
		if q := x.slots[at]; q != noPFN {
			twice = append(twice, PFN(q), p)
			continue
		}
		x.slots[at] = uint32(p)
	}
	return x, twice
}

// slot returns where a page that holds the same as e is, or would be.
func (x *Index) slot(e Entry) int {
	mask := uint64(len(x.slots) - 1)
	at := x.hash(e) & mask
	for x.slots[at] != noPFN && !x.same(x.view.entries[x.slots[at]], e) {
		at = (at + 1) & mask
	}
	return int(at)
}

func (x *Index) find(e Entry) (PFN, bool) {
	p := x.slots[x.slot(e)]
	return PFN(p), p != noPFN
}

// Key returns the page with that key.
//
// Preconditions: the index is by key.
func (x *Index) Key(k Key) (PFN, bool) {
	return x.find(Entry{VBD: k.VBD, Generation: k.Generation, Inode: k.Inode, Index: k.Index})
}

// Sector returns the page with that sector.
//
// Preconditions: the index is by sector.
func (x *Index) Sector(vbd VBD, s Sector) (PFN, bool) { return x.find(Entry{VBD: vbd, Sector: s}) }

func sameKey(a, b Entry) bool    { return a.Key() == b.Key() }
func sameSector(a, b Entry) bool { return a.VBD == b.VBD && a.Sector == b.Sector }

func hashKey(e Entry) uint64 {
	return mix(mix(uint64(e.VBD)<<32|uint64(e.Generation), e.Inode), e.Index)
}

func hashSector(e Entry) uint64 { return mix(uint64(e.VBD), uint64(e.Sector)) }

// mix is a multiply-fold: keys of a file, and neighbouring sectors, are
// sequences that differ in few low bits. A guest may choose keys that
// collide; it then slows down its own reboot only.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xd1b54a32d192ed03)
	return (hi ^ lo) * 0x9fb21c651e98df25
}

// Conflicts are pages of a view that cannot all be right.
type Conflicts struct {
	SameKey    []PFN // pages of one key, all of them
	SameSector []PFN // pages of one sector, all of them
}

// FindConflicts returns the pages that share a key or a sector with another
// page of the view, each list in ascending order.
func FindConflicts(v View) Conflicts {
	_, key := newIndex(v, hashKey, sameKey)
	_, sector := newIndex(v, hashSector, sameSector)
	return Conflicts{sorted(key), sorted(sector)}
}

func sorted(p []PFN) []PFN {
	slices.Sort(p)
	return slices.Compact(p)
}
