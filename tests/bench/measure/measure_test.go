package measure

import (
	"runtime"
	"testing"
	"time"
)

func TestOf(t *testing.T) {
	var kept []byte
	c := Of(func() {
		kept = make([]byte, 1<<20)
		for start := processor(); processor()-start < 20*time.Millisecond; {
			kept[0]++
		}
		runtime.GC()
		time.Sleep(30 * time.Millisecond)
	})
	if c.Allocated < 1<<20 || c.Allocated > 2<<20 {
		t.Errorf("allocated %d", c.Allocated)
	}
	if c.CPU < 20*time.Millisecond || c.Wall < c.CPU/2+30*time.Millisecond {
		t.Errorf("CPU %v, wall %v", c.CPU, c.Wall)
	}
	if c.MaxPause <= 0 || c.MaxPause > c.Wall {
		t.Errorf("a collection without a pause, or a longer one than all: %v of %v", c.MaxPause, c.Wall)
	}
	if c := Of(func() {}); c.MaxPause != 0 {
		t.Errorf("no collection, pause %v", c.MaxPause)
	}
}

func BenchmarkNothing(b *testing.B) { Benchmark(b, 1, func() {}) }
