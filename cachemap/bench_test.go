package cachemap

import (
	"fmt"
	"math/bits"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"
)

// table makes a full table of n pages, page i being page order(i) of the disk.
func table(n int, order func(i uint64) uint64) View {
	entries := make([]Entry, n)
	words := make([]uint64, (n+63)/64)
	for i := range entries {
		at := order(uint64(i))
		entries[i] = Entry{VBD: 51712, Inode: at >> 10, Index: at & 1023, Sector: Sector(at * SectorsPerPage)}
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
				measure(b, n, func() { FindConflicts(v) })
			})
		}
	}
}

func BenchmarkByVBD(b *testing.B) {
	v := table(1<<20, scatter)
	measure(b, 1<<20, func() { v.ByVBD() })
}

func BenchmarkIndexByKey(b *testing.B) {
	v := table(1<<20, scatter)
	measure(b, 1<<20, func() { IndexByKey(v) })
}

// measure reports time by wall clock and processor, and the memory allocated,
// for each of n entries, and the longest pause that the garbage collector made.
func measure(b *testing.B, n int, f func()) {
	runtime.GC()
	var before, after runtime.MemStats
	var gc debug.GCStats
	runtime.ReadMemStats(&before)
	cpu := processor()
	for b.Loop() {
		f()
	}
	cpu = processor() - cpu
	runtime.ReadMemStats(&after)
	debug.ReadGCStats(&gc)
	var longest time.Duration
	for _, p := range gc.Pause[:min(len(gc.Pause), int(after.NumGC-before.NumGC))] {
		longest = max(longest, p)
	}
	entries := float64(n) * float64(b.N)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/entries, "ns/entry")
	b.ReportMetric(float64(cpu.Nanoseconds())/entries, "cpu-ns/entry")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/entries, "B/entry")
	b.ReportMetric(float64(longest.Microseconds()), "max-GC-pause-µs")
}

// processor is the time that this process has used.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
