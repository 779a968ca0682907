package cachemap

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/warmreboot/warmreboot/ident"
)

// twiceModel is what FindConflicts must return, found with maps.
func twiceModel(v View) (sameKey, sameSector []ident.PFN) {
	type sector struct {
		vbd ident.VBD
		at  Sector
	}
	keys, sectors := map[Key]int{}, map[sector]int{}
	for _, e := range v.All() {
		keys[e.Key()]++
		sectors[sector{e.VBD, e.Sector}]++
	}
	for p, e := range v.All() {
		if keys[e.Key()] > 1 {
			sameKey = append(sameKey, p)
		}
		if sectors[sector{e.VBD, e.Sector}] > 1 {
			sameSector = append(sameSector, p)
		}
	}
	return sameKey, sameSector
}

func checkConflicts(t *testing.T, v View, perPart int) {
	t.Helper()
	f := newFinderOf(v, perPart)
	key, sector := twiceModel(v)
	if got := pfns(f.find(byKey)); !slices.Equal(got, key) {
		t.Fatalf("%d pages, %d in a part: same key %v, want %v", v.Len(), perPart, got, key)
	}
	if got := pfns(f.find(bySector)); !slices.Equal(got, sector) {
		t.Fatalf("%d pages, %d in a part: same sector %v, want %v", v.Len(), perPart, got, sector)
	}
}

// TestConflictsAgainstModel compares with the model: tables with few and with
// many equal pages, in one part and in many.
func TestConflictsAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		n := r.IntN(3000)
		different := 1 + r.IntN(1+r.IntN(4*n+1))
		entries, words := make([]Entry, n), make([]uint64, (n+63)/64)
		for i := range entries {
			entries[i] = Entry{
				VBD: ident.VBD(1 + r.IntN(2)), Sector: Sector(r.IntN(different)) << uint(r.IntN(2)*40),
				Cookie: File{Inode: uint64(r.IntN(3)) << 62, Index: uint32(r.IntN(different)), Generation: uint32(r.IntN(2))}.Cookie(),
			}
			if r.IntN(8) != 0 {
				words[i/64] |= 1 << (i % 64)
			}
		}
		checkConflicts(t, NewView(entries, words), 1<<r.IntN(16))
	}
}

// TestConflictsByOneBit: entries that differ in one bit of any field are
// different, also where all the rest is the same.
func TestConflictsByOneBit(t *testing.T) {
	var entries []Entry
	for bit := range 32 {
		for word := range (Cookie{}) {
			e := Entry{VBD: 1}
			e.Cookie[word] = 1 << bit
			entries = append(entries, e)
		}
		entries = append(entries, Entry{VBD: 1<<bit | 1<<((bit+1)%32)})
	}
	v := NewView(entries, []uint64{^uint64(0), ^uint64(0), ^uint64(0)})
	if c := FindConflicts(v); c.SameKey.Len() != 0 {
		t.Errorf("same key: %v", pfns(c.SameKey))
	}
	for i := range entries {
		was := entries[i]
		entries[i] = entries[(i+1)%len(entries)]
		if got := pfns(FindConflicts(v).SameKey); len(got) != 2 {
			t.Fatalf("entry %d made like the next: %v", i, got)
		}
		entries[i] = was
	}
}

// TestConflictsOfManySizes has one pair in tables around the sizes of blocks,
// words, parts and slots.
func TestConflictsOfManySizes(t *testing.T) {
	for _, n := range []int{0, 1, 2, 63, 64, 65, blockUsed/recordSize - 1, blockUsed / recordSize, blockUsed/recordSize + 1, 2 * blockUsed / recordSize, 1000, 1 << 15, 1<<15 + 1, 1 << 17} {
		v := table(n, scatter)
		if n < 2 {
			checkConflicts(t, v, pagesPerPart)
			continue
		}
		v.entries[0].Sector = v.entries[n-1].Sector
		v.entries[n/2].Cookie = v.entries[n-1].Cookie
		c := FindConflicts(v)
		if got := pfns(c.SameSector); !slices.Equal(got, []ident.PFN{0, ident.PFN(n - 1)}) {
			t.Errorf("%d pages: same sector %v", n, got)
		}
		if got := pfns(c.SameKey); n/2 != n-1 && !slices.Equal(got, []ident.PFN{ident.PFN(n / 2), ident.PFN(n - 1)}) {
			t.Errorf("%d pages: same key %v", n, got)
		}
	}
}

// TestConflictsInOnePart makes one part far larger than it should be, so that
// its hash table grows.
func TestConflictsInOnePart(t *testing.T) {
	v := table(100_000, scatter)
	v.entries[99_999].Sector = v.entries[5].Sector
	f := newFinderOf(v, 1<<20)
	f.slots = make([]uint64, 16)
	if got := pfns(f.find(bySector)); !slices.Equal(got, []ident.PFN{5, 99_999}) {
		t.Errorf("%v", got)
	}
	if len(f.slots) < 1<<13 {
		t.Errorf("%d slots: they have not grown", len(f.slots))
	}
}

// TestConflictsWithoutHash is the worst there could be: all hashes are equal.
// Nothing may be missed, and it may not take the square of the time.
func TestConflictsWithoutHash(t *testing.T) {
	const n = 1 << 18
	v := table(n, scatter)
	v.entries[n-1].Sector = v.entries[5].Sector
	compared := 0
	found := newFinder(v).find(identity{
		func(*Entry, *secret) uint64 { return 1 << 63 },
		func(a, b *Entry) bool { compared++; return bySector.same(a, b) },
	})
	if !found.Has(5) || !found.Has(n-1) {
		t.Error("missed the pair")
	}
	if compared > n*maxDifferent { // the square is 2^36
		t.Errorf("%d comparisons", compared)
	}
}

// TestConflictsWhileForgotten: the table changes while it is looked at. Pages
// that stay as they are, and hold the same, are found.
func TestConflictsWhileForgotten(t *testing.T) {
	const n = 1 << 14
	v := table(n, func(i uint64) uint64 { return i / 2 })
	calls := 0
	forgetful := identity{bySector.hash, func(a, b *Entry) bool {
		same := bySector.same(a, b)
		if calls++; calls%3 == 0 {
			*b = Entry{} // Xen forgets the page that was found first
		}
		return same
	}}
	found := newFinder(v).find(forgetful)
	for p, e := range v.All() {
		if o := p ^ 1; !e.IsZero() && v.Entry(o) == e && !found.Has(p) {
			t.Fatalf("PFN %d holds the same as PFN %d", p, o)
		}
	}
	// More pages are selected than were counted.
	v = table(n, scatter)
	v.entries[n-1] = v.entries[0]
	all := slices.Clone(v.words)
	clear(v.words)
	f := newFinder(v)
	copy(v.words, all)
	if got := pfns(f.find(byKey)); !slices.Equal(got, []ident.PFN{0, n - 1}) {
		t.Errorf("%v", got)
	}
}

// FuzzConflicts compares arbitrary tables with the model.
func FuzzConflicts(f *testing.F) {
	f.Add([]byte{}, uint64(0), uint8(0))
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, ^uint64(0), uint8(15))
	f.Fuzz(func(t *testing.T, raw []byte, word uint64, perPart uint8) {
		entries := make([]Entry, len(raw))
		for i, b := range raw {
			entries[i] = Entry{Cookie: File{Inode: uint64(b & 3), Index: uint32(b>>4) << 28}.Cookie(), Sector: Sector(b >> 2), VBD: ident.VBD(b & 1)}
		}
		v := NewView(entries, []uint64{word, ^word, word})
		checkConflicts(t, v, 1<<(perPart%16))
		IndexBySector(v).Sector(1, 2)
	})
}
