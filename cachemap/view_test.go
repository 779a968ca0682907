package cachemap

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/warmreboot/warmreboot/ident"
)

// randomView makes a table of n entries, of which about one in three is
// selected, with few enough keys and sectors that some come twice.
func randomView(r *rand.Rand, n int) View {
	entries := make([]Entry, n)
	words := make([]uint64, (n+63)/64)
	for i := range entries {
		if r.IntN(3) != 0 {
			continue
		}
		words[i/64] |= 1 << (i % 64)
		entries[i] = Entry{
			VBD:    ident.VBD(51712 + 16*r.IntN(3)),
			Cookie: File{Inode: uint64(r.IntN(10)), Generation: uint32(r.IntN(2)), Index: uint32(r.IntN(n + 1))}.Cookie(),
			Sector: Sector(8 * r.IntN(4*n+1)),
		}
	}
	return NewView(entries, words)
}

func pfns(v View) []ident.PFN {
	var all []ident.PFN
	for p := range v.All() {
		all = append(all, p)
	}
	return all
}

func TestViewAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		n := r.IntN(400)
		v := randomView(r, n)
		pages := 0
		byVBD := map[ident.VBD]Stats{}
		keys, sectors := map[Key][]ident.PFN{}, map[[2]uint64][]ident.PFN{}
		for i := range n {
			p := ident.PFN(i)
			if !v.Has(p) {
				continue
			}
			pages++
			e := v.Entry(p)
			s, ok := byVBD[e.VBD]
			if !ok {
				s = Stats{VBD: e.VBD, From: e.Sector, To: e.Sector}
			}
			s.Pages++
			s.From, s.To = min(s.From, e.Sector), max(s.To, e.Sector+8)
			byVBD[e.VBD] = s
			keys[e.Key()] = append(keys[e.Key()], p)
			at := [2]uint64{uint64(e.VBD), uint64(e.Sector)}
			sectors[at] = append(sectors[at], p)
		}
		if v.Len() != pages {
			t.Fatalf("Len %d, want %d", v.Len(), pages)
		}
		stats := v.ByVBD()
		if len(stats) != len(byVBD) || !slices.IsSortedFunc(stats, func(a, b Stats) int { return int(a.VBD) - int(b.VBD) }) {
			t.Fatalf("ByVBD %v, want %v", stats, byVBD)
		}
		for _, s := range stats {
			if s != byVBD[s.VBD] {
				t.Fatalf("ByVBD %v, want %v", s, byVBD[s.VBD])
			}
		}
		byKey, bySector := IndexByKey(v), IndexBySector(v)
		var sameKey, sameSector []ident.PFN
		for k, list := range keys {
			p, ok := byKey.Key(k)
			if !ok || p != list[0] {
				t.Fatalf("Key(%v) = %d %v, want %d", k, p, ok, list[0])
			}
			if len(list) > 1 {
				sameKey = append(sameKey, list...)
			}
		}
		for at, list := range sectors {
			p, ok := bySector.Sector(ident.VBD(at[0]), Sector(at[1]))
			if !ok || p != list[0] {
				t.Fatalf("Sector(%v) = %d %v, want %d", at, p, ok, list[0])
			}
			if len(list) > 1 {
				sameSector = append(sameSector, list...)
			}
		}
		if _, ok := byKey.Key(Key{VBD: 1}); ok {
			t.Fatal("found a key that is not there")
		}
		slices.Sort(sameKey)
		slices.Sort(sameSector)
		c := FindConflicts(v)
		if !slices.Equal(pfns(c.SameKey), sameKey) || !slices.Equal(pfns(c.SameSector), sameSector) {
			t.Fatalf("conflicts %v, want %v and %v", c, sameKey, sameSector)
		}
	}
}

func TestViewBounds(t *testing.T) {
	full := []uint64{^uint64(0), ^uint64(0)}
	v := NewView(make([]Entry, 70), full)
	if v.Len() != 70 {
		t.Errorf("Len %d", v.Len())
	}
	if v.Has(70) || !v.Has(69) {
		t.Error("Has is wrong at the end")
	}
	n := 0
	for range v.All() {
		n++
	}
	if n != 70 {
		t.Errorf("All yields %d", n)
	}
	if v := NewView(make([]Entry, 200), full[:1]); v.Has(64) || v.Len() != 64 {
		t.Error("short bitmap")
	}
	if v := NewView(nil, full); v.Len() != 0 || len(v.ByVBD()) != 0 {
		t.Error("empty table")
	}
	if x := IndexByKey(NewView(nil, nil)); x != nil {
		if _, ok := x.Key(Key{}); ok {
			t.Error("found in an empty index")
		}
	}
}

// TestManyVBDs: the guest makes up a vbd for each page.
func TestManyVBDs(t *testing.T) {
	v := table(3*MaxVBDs, scatter)
	for p := range v.entries {
		v.entries[p].VBD = ident.VBD(len(v.entries) - p%(2*MaxVBDs))
	}
	stats := v.ByVBD()
	if len(stats) != MaxVBDs {
		t.Fatalf("%d vbds", len(stats))
	}
	for i, s := range stats { // those of the first pages
		if want := ident.VBD(2*MaxVBDs + 1 + i); s.VBD != want || s.Pages != 2 {
			t.Fatalf("%d: %+v, want vbd %d with 2 pages", i, s, want)
		}
	}
}
