// Package measure says what a piece of work costs: time by the clock and by the
// processor, memory, and pauses of the garbage collector.
package measure

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/metrics"
	"syscall"
	"testing"
	"time"
)

// Cost is what some work cost.
type Cost struct {
	Wall      time.Duration
	CPU       time.Duration // of all threads of this process
	Allocated uint64        // bytes of heap, whether freed meanwhile or not
	MaxPause  time.Duration // longest stop of the world for a collection, rounded up
	// Waited is how long threads that could run had to wait for a processor that
	// did something else; 0 where the kernel does not tell. A pause lasts until
	// the process is let on.
	Waited time.Duration
}

const (
	allocated = "/gc/heap/allocs:bytes"
	pauses    = "/sched/pauses/total/gc:seconds"
)

// Of measures f.
func Of(f func()) Cost {
	allocatedBefore, pausesBefore := counters()
	waitedBefore := waited()
	cpu, start := processor(), time.Now()
	f()
	c := Cost{Wall: time.Since(start), CPU: processor() - cpu}
	c.Waited = waited() - waitedBefore
	allocatedAfter, pausesAfter := counters()
	c.Allocated = allocatedAfter - allocatedBefore
	for i, n := range pausesAfter.Counts {
		if n > pausesBefore.Counts[i] {
			longest := pausesAfter.Buckets[i+1]
			if math.IsInf(longest, 1) {
				longest = pausesAfter.Buckets[i]
			}
			c.MaxPause = time.Duration(longest * float64(time.Second))
		}
	}
	return c
}

// Benchmark runs f b.N times and reports its cost for each of n entries.
func Benchmark(b *testing.B, n int, f func()) {
	c := Of(func() {
		for b.Loop() {
			f()
		}
	})
	entries := float64(n) * float64(b.N)
	b.ReportMetric(float64(c.Wall)/entries, "ns/entry")
	b.ReportMetric(float64(c.CPU)/entries, "cpu-ns/entry")
	b.ReportMetric(float64(c.Allocated)/entries, "B/entry")
	b.ReportMetric(float64(c.MaxPause.Microseconds()), "max-GC-pause-µs")
}

func counters() (uint64, *metrics.Float64Histogram) {
	s := []metrics.Sample{{Name: allocated}, {Name: pauses}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Float64Histogram()
}

// waited sums up what this process's threads have waited for a processor: the
// second field of schedstat (Documentation/scheduler/sched-stats.rst).
func waited() time.Duration {
	threads, _ := filepath.Glob("/proc/self/task/*/schedstat") // the pattern is a good one
	var sum time.Duration
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended, or the kernel has no such file
		}
		var ran, waited int64
		if _, err := fmt.Sscan(string(text), &ran, &waited); err == nil {
			sum += time.Duration(waited)
		}
	}
	return sum
}

// processor is the time that this process has used, in user mode and in the
// kernel.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
