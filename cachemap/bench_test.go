package cachemap

import (
	"fmt"
	"math/bits"
	"testing"

	"github.com/warmreboot/warmreboot/tests/bench/measure"
)

// table makes a full table of n pages, page i being page order(i) of the disk.
func table(n int, order func(i uint64) uint64) View {
	entries := make([]Entry, n)
	words := make([]uint64, (n+63)/64)
	for i := range entries {
		at := order(uint64(i))
		entries[i] = Entry{VBD: 51712, Cookie: File{Inode: at >> 10, Index: uint32(at & 1023)}.Cookie(), Sector: Sector(at * SectorsPerPage)}
		words[i/64] |= 1 << (i % 64)
	}
	return NewView(entries, words)
}

// scatter is a permutation of 64-bit numbers.
func scatter(i uint64) uint64 {
	i *= 0x9e3779b97f4a7c15
	return (i ^ i>>32) >> 3 // 61 bits, as a page number: equal only by chance
}

// shapes are tables as a guest would make them, and as one that means harm
// would.
var shapes = []struct {
	name  string
	order func(i uint64) uint64
}{
	{"sequential", func(i uint64) uint64 { return i }},
	{"scattered", scatter},
	{"reversed-bits", func(i uint64) uint64 { return bits.Reverse64(i) >> 3 }},
	{"all-same", func(uint64) uint64 { return 7 }},
	{"pairs", func(i uint64) uint64 { return scatter(i / 2) }},
	{"pairs-apart", func(i uint64) uint64 { return scatter(i & (1<<19 - 1)) }},
}

func BenchmarkFindConflicts(b *testing.B) {
	for _, s := range shapes {
		for _, n := range []int{1 << 16, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%d", s.name, n), func(b *testing.B) {
				v := table(n, s.order)
				measure.Benchmark(b, n, func() { FindConflicts(v) })
			})
		}
	}
}

func BenchmarkByVBD(b *testing.B) {
	v := table(1<<20, scatter)
	measure.Benchmark(b, 1<<20, func() { v.ByVBD() })
}

func BenchmarkIndexByKey(b *testing.B) {
	v := table(1<<20, scatter)
	measure.Benchmark(b, 1<<20, func() { IndexByKey(v) })
}
