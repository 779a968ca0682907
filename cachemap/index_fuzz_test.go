package cachemap

import (
	"encoding/binary"
	"testing"

	"github.com/warmreboot/warmreboot/ident"
)

// FuzzVBDName: every number has a name, and no two disks have the same.
func FuzzVBDName(f *testing.F) {
	f.Add(uint32(51712), uint32(51728))
	f.Add(uint32(1<<28|26<<8), uint32(1<<28|26<<8|3))
	f.Add(uint32(51952), uint32(1<<28|15<<8)) // both are xvdp
	f.Fuzz(func(t *testing.T, a, b uint32) {
		x, y := ident.VBD(a).Name(), ident.VBD(b).Name()
		if x == "" || y == "" {
			t.Fatalf("%d is %q, %d is %q", a, x, b, y)
		}
		extended := func(v uint32) bool { return v>>28 == 1 }
		if x == y && a != b && extended(a) == extended(b) {
			t.Fatalf("%d and %d are both %s", a, b, x)
		}
	})
}

// FuzzStats: the statistics count each page once, and each page lies in the
// range of its vbd, whatever the guest says.
func FuzzStats(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, uint64(7))
	f.Add(make([]byte, 120), ^uint64(0))
	f.Fuzz(func(t *testing.T, raw []byte, word uint64) {
		var entries []Entry
		for ; len(raw) >= 6 && len(entries) < 64; raw = raw[6:] {
			entries = append(entries, Entry{
				Sector: Sector(binary.LittleEndian.Uint16(raw)) << (raw[2] % 48), VBD: ident.VBD(raw[3]), Cookie: Cookie{uint32(raw[4])}})
		}
		v := NewView(entries, []uint64{word})
		var pages uint64
		byVBD := map[ident.VBD]Stats{}
		for _, s := range v.ByVBD() {
			pages += s.Pages
			byVBD[s.VBD] = s
		}
		if pages != uint64(v.Len()) {
			t.Fatalf("%d pages, want %d", pages, v.Len())
		}
		for p, e := range v.All() {
			if s := byVBD[e.VBD]; !v.Has(p) || e.Sector < s.From || e.Sector >= s.To {
				t.Fatalf("PFN %d, sector %d: not in %+v", p, e.Sector, s)
			}
		}
	})
}
