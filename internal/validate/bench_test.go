package validate

import (
	"testing"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/tests/bench/measure"
)

// fullTable has n pages, whose entries f makes of sound ones.
func fullTable(n int, f func(i int, e *cachemap.Entry)) cachemap.View {
	entries := make([]cachemap.Entry, n)
	words := make([]uint64, (n+63)/64)
	for i := range entries {
		e := &entries[i]
		*e = cachemap.Entry{VBD: 51712, Cookie: cachemap.File{Inode: uint64(i >> 10), Index: uint32(i & 1023)}.Cookie(), Sector: cachemap.Sector(8 * i)}
		f(i, e)
		words[i/64] |= 1 << (i % 64)
	}
	return cachemap.NewView(entries, words)
}

// tables are what a guest may supply.
var tables = []struct {
	name string
	make func(i int, e *cachemap.Entry)
}{
	{"sound", func(int, *cachemap.Entry) {}},
	{"all-same", func(_ int, e *cachemap.Entry) { *e = cachemap.Entry{VBD: 51712} }},
	{"past-the-end", func(_ int, e *cachemap.Entry) { e.Sector += 1 << 60 }},
	{"vbd-for-each", func(i int, e *cachemap.Entry) { e.VBD = ident.VBD(i) }},
	{"vbds-in-turn", func(i int, e *cachemap.Entry) { e.VBD = ident.VBD(1 + i%cachemap.MaxVBDs) }},
	{"every-fault", func(i int, e *cachemap.Entry) {
		*e = cachemap.Entry{VBD: ident.VBD(1 + i%cachemap.MaxVBDs), Sector: 1<<60 + 1}
	}},
}

func everyVBD(ident.VBD) (cachemap.Sector, bool) { return 1 << 40, true }

func BenchmarkCheckStructure(b *testing.B) {
	const n = 1 << 20
	for _, s := range tables {
		b.Run(s.name, func(b *testing.B) {
			v := fullTable(n, s.make)
			measure.Benchmark(b, n, func() { CheckStructure(v, n, everyVBD) })
		})
	}
}

func BenchmarkSampleView(b *testing.B) {
	const n = 1 << 20
	v := fullTable(n, tables[0].make)
	measure.Benchmark(b, n, func() { SampleView(v, 51712, 256) })
}
