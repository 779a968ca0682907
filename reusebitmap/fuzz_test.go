package reusebitmap

import (
	"encoding/binary"
	"slices"
	"testing"
)

// FuzzFromWords: whatever words Xen maps, and however long the bitmap is said
// to be, the algebra agrees with sets of numbers.
func FuzzFromWords(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0x80}, uint64(64), []byte{0xff}, uint64(7))
	f.Add([]byte{}, uint64(1)<<63, []byte{}, ^uint64(0))
	f.Add(make([]byte, 24), uint64(65), []byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, uint64(70))
	f.Fuzz(func(t *testing.T, a []byte, la uint64, b []byte, lb uint64) {
		x, y := FromWords(words(a), la), FromWords(words(b), lb)
		mx, my := members(words(a), la), members(words(b), lb)
		equal := func(what string, s Set, want []uint64) {
			t.Helper()
			got := slices.Collect(s.All())
			if !slices.Equal(got, want) || s.Count() != uint64(len(want)) || s.Empty() != (len(want) == 0) {
				t.Fatalf("%s: %v, want %v, count %d", what, got, want, s.Count())
			}
			for _, m := range want {
				if !s.Has(m) {
					t.Fatalf("%s: no %d", what, m)
				}
			}
		}
		only := func(from []uint64, in bool) (out []uint64) {
			for _, m := range from {
				if slices.Contains(my, m) == in {
					out = append(out, m)
				}
			}
			return out
		}
		either := append(slices.Clone(mx), my...)
		slices.Sort(either)
		equal("first", x, mx)
		equal("snapshot", y.Snapshot(), my)
		equal("and", x.And(y), only(mx, true))
		equal("minus", x.Minus(y), only(mx, false))
		equal("or", x.Or(y), slices.Compact(either))
		if x.Equal(y) != slices.Equal(mx, my) {
			t.Fatalf("%v equals %v: %v", mx, my, x.Equal(y))
		}
		if x.Has(x.Len()) || x.Has(^uint64(0)) {
			t.Fatal("a member past the end")
		}
	})
}

func words(raw []byte) []uint64 {
	raw = raw[:min(len(raw), 256)] // what is longer shows nothing more
	var w []uint64
	for ; len(raw) >= 8; raw = raw[8:] {
		w = append(w, binary.LittleEndian.Uint64(raw))
	}
	return w
}

func members(words []uint64, length uint64) []uint64 {
	var all []uint64
	for i := range uint64(len(words)) * 64 {
		if i < length && words[i/64]>>(i%64)&1 != 0 {
			all = append(all, i)
		}
	}
	return all
}
