// Package reusebitmap is the algebra of sets of pages: the reuse bitmap, the
// held pages, and what is left of them after validation.
//
// A set over mapped words is a view: reading it reads Xen's memory, which may
// change at any time and must not be written. Operations return new sets of
// this process's own memory. The package knows neither Xen nor what a page
// holds, and needs no unsafe.
package reusebitmap

import (
	"iter"
	"math/bits"

	"github.com/bits-and-blooms/bitset"
)

// Set is a set of page numbers in the half-open range [0, Len()). Sets made by
// FromWords cannot be changed: there is no method that writes to a set.
type Set struct {
	bits *bitset.BitSet
	n    uint
}

// FromWords returns the set whose member n has bit n%64 of words[n/64] set,
// for n < length, without copying. The words must stay mapped while the set is
// used. Words past length, and a length past the words, are ignored.
func FromWords(words []uint64, length uint64) Set {
	length = min(length, uint64(len(words))*64)
	words = words[:(length+63)/64]
	return Set{bitset.FromWithLength(uint(length), words), uint(length)}
}

// Of returns the set of the given members; length is one past the highest
// possible one. Members that are not below it are ignored.
func Of(length uint64, members ...uint64) Set {
	b := bitset.New(uint(length))
	for _, m := range members {
		if m < length {
			b.Set(uint(m))
		}
	}
	return Set{b, uint(length)}
}

// Len is one past the highest possible member.
func (s Set) Len() uint64 { return uint64(s.n) }

// Has reports whether page is a member.
func (s Set) Has(page uint64) bool {
	return page < uint64(s.n) && s.bits.Test(uint(page))
}

// Snapshot copies the set, so that it no longer changes nor depends on the
// mapping.
func (s Set) Snapshot() Set { return s.grow(s.n) }

// grow copies the set into one of length n, not below its own.
func (s Set) grow(n uint) Set {
	words := make([]uint64, (n+63)/64)
	copy(words, s.Words())
	if tail := s.n % 64; tail != 0 {
		words[s.n/64] &= 1<<tail - 1
	}
	return Set{bitset.FromWithLength(n, words), n}
}

// Words is the set's memory; it must not be written.
func (s Set) Words() []uint64 {
	if s.bits == nil {
		return nil
	}
	return s.bits.Words()
}

// Count returns the number of members.
func (s Set) Count() uint64 {
	n := 0
	for i, w := range s.Words() {
		if tail := s.n - uint(i)*64; tail < 64 {
			w &= 1<<tail - 1
		}
		n += bits.OnesCount64(w)
	}
	return uint64(n)
}

// Empty reports whether the set has no members.
func (s Set) Empty() bool { return s.Count() == 0 }

// And returns the members of both, in one bitmap as long as the shorter one.
func (s Set) And(o Set) Set {
	n := min(s.n, o.n)
	words := make([]uint64, (n+63)/64)
	a, b := s.Words(), o.Words()
	for i := range words {
		words[i] = a[i] & b[i]
	}
	if tail := n % 64; tail != 0 {
		words[n/64] &= 1<<tail - 1
	}
	return Set{bitset.FromWithLength(n, words), n}
}

// Or returns the members of either.
func (s Set) Or(o Set) Set {
	a, b := pair(s, o)
	a.bits.InPlaceUnion(b.bits)
	return a
}

// Minus returns the members of s that are not in o.
func (s Set) Minus(o Set) Set {
	a, b := pair(s, o)
	a.bits.InPlaceDifference(b.bits)
	return a
}

// Equal reports whether both have the same members, whatever their lengths.
func (s Set) Equal(o Set) bool {
	a, b := pair(s, o)
	return a.bits.Equal(b.bits)
}

// pair returns copies of s and o of the same length.
func pair(s, o Set) (Set, Set) {
	n := max(s.n, o.n)
	return s.grow(n), o.grow(n)
}

// All yields the members in ascending order.
func (s Set) All() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		if s.bits == nil {
			return
		}
		for i, ok := s.bits.NextSet(0); ok && i < s.n; i, ok = s.bits.NextSet(i + 1) {
			if !yield(uint64(i)) {
				return
			}
		}
	}
}
