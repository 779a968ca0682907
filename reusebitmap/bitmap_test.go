package reusebitmap

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// model is the naive set that the bitmap is compared with.
type model map[uint64]bool

func (m model) members() []uint64 {
	var all []uint64
	for p := range m {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

func randomSet(r *rand.Rand) (Set, model, []uint64) {
	words := make([]uint64, r.IntN(6))
	for i := range words {
		words[i] = r.Uint64()
		words[i] &= r.Uint64()
	}
	length := uint64(r.IntN(64*len(words) + 70))
	m := model{}
	for p := range min(length, uint64(64*len(words))) {
		if words[p/64]>>(p%64)&1 != 0 {
			m[p] = true
		}
	}
	return FromWords(words, length), m, words
}

func check(t *testing.T, what string, s Set, want model) {
	t.Helper()
	if got := slices.Collect(s.All()); !slices.Equal(got, want.members()) {
		t.Fatalf("%s: %v, want %v", what, got, want.members())
	}
	if s.Count() != uint64(len(want)) || s.Empty() != (len(want) == 0) {
		t.Fatalf("%s: Count %d, want %d", what, s.Count(), len(want))
	}
	for p := range s.Len() + 10 {
		if s.Has(p) != want[p] {
			t.Fatalf("%s: Has(%d) = %v", what, p, s.Has(p))
		}
	}
}

func TestAlgebraAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		a, ma, wa := randomSet(r)
		b, mb, wb := randomSet(r)
		ca, cb := slices.Clone(wa), slices.Clone(wb)
		check(t, "a", a, ma)
		and, or, minus := model{}, model{}, model{}
		for p := range ma {
			or[p] = true
			if mb[p] {
				and[p] = true
			} else {
				minus[p] = true
			}
		}
		for p := range mb {
			or[p] = true
		}
		check(t, "and", a.And(b), and)
		check(t, "or", a.Or(b), or)
		check(t, "minus", a.Minus(b), minus)
		check(t, "snapshot", a.Snapshot(), ma)
		if !a.Equal(a.Snapshot()) || a.Equal(b) != slices.Equal(ma.members(), mb.members()) {
			t.Fatal("Equal")
		}
		// The words may be read-only memory: nobody may have written them.
		if !slices.Equal(wa, ca) || !slices.Equal(wb, cb) {
			t.Fatal("an operation wrote to the mapped words")
		}
	}
}

func TestZeroCopy(t *testing.T) {
	words := make([]uint64, 2)
	s := FromWords(words, 100)
	snap := s.Snapshot()
	words[1] = 1
	if !s.Has(64) || snap.Has(64) {
		t.Errorf("Has(64): view %v, snapshot %v", s.Has(64), snap.Has(64))
	}
}

func TestOf(t *testing.T) {
	check(t, "of", Of(10, 3, 9, 10), model{3: true, 9: true})
	check(t, "zero", Set{}, model{})
	check(t, "zero and", Set{}.And(Of(5, 1)), model{})
}
