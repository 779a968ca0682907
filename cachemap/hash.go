package cachemap

import (
	"math/bits"
	"math/rand/v2"
)

// secret makes a hash that nobody can predict: the guest chooses what is
// hashed, and must not be able to choose what collides.
type secret [4]uint64

func newSecret() *secret {
	return &secret{rand.Uint64(), rand.Uint64(), rand.Uint64(), rand.Uint64()}
}

// identity is one of the two things that only one page may hold: a page of a
// file, or a sector.
type identity struct {
	hash func(*Entry, *secret) uint64
	same func(a, b *Entry) bool
}

var (
	byKey = identity{
		func(e *Entry, s *secret) uint64 {
			x, y, z := e.key()
			return fold(fold(x^s[0], y^s[1])^s[2], z^s[3])
		},
		func(a, b *Entry) bool {
			ax, ay, az := a.key()
			bx, by, bz := b.key()
			return ax == bx && ay == by && az == bz
		},
	}
	bySector = identity{
		func(e *Entry, s *secret) uint64 {
			return fold(fold(uint64(e.Sector)^s[0], uint64(e.VBD)^s[1])^s[2], s[3])
		},
		func(a, b *Entry) bool { return a.VBD == b.VBD && a.Sector == b.Sector },
	}
)

// fold multiplies and keeps both halves of the product.
func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
