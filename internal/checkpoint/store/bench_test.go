package store

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sort"
	"syscall"
	"testing"
	"time"
)

// What these measure is on one core: GOMAXPROCS is 1. GB/s-cpu and ms-cpu are by the
// processor's time that the process has taken, the collector's and the kernel's work
// in it, and not by the clock, so that other work on the machine does not count. Pages are synthetic, as said at each; docs/results has figures from memory of
// real domains.

const benchPages = 64 << 8 // 64 MiB

// textual returns pages that s2 makes smaller by about half, as those of programs
// are.
func textual(r *rand.Rand, n int) [][]byte {
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 8+r.IntN(24))
		for k := range words[i] {
			words[i][k] = byte(r.Uint32())
		}
	}
	pages := make([][]byte, n)
	for i := range pages {
		var b []byte
		for len(b) < PageSize {
			b = append(b, words[min(r.IntN(4096), r.IntN(4096))]...)
		}
		pages[i] = b[:PageSize]
	}
	return pages
}

func random(r *rand.Rand, n int) [][]byte {
	pages := make([][]byte, n)
	for i := range pages {
		pages[i] = make([]byte, PageSize)
		for k := 0; k < PageSize; k += 8 {
			v := r.Uint64()
			for j := range 8 {
				pages[i][k+j] = byte(v >> (8 * j))
			}
		}
	}
	return pages
}

// processor returns the process's time on processors.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func rate(b *testing.B, took time.Duration) {
	b.ReportMetric(float64(b.N)*benchPages*PageSize/float64(took), "GB/s-cpu")
}

func benchStore(b *testing.B) *Writer {
	before := runtime.GOMAXPROCS(1)
	b.Cleanup(func() { runtime.GOMAXPROCS(before) })
	w, err := OpenWriter(b.TempDir(), Options{noSync: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = w.Close() })
	return w
}

func put(b *testing.B, w *Writer, pages [][]byte) Info {
	c, err := w.Begin(Info{Time: time.Unix(1, 0)}, true)
	if err != nil {
		b.Fatal(err)
	}
	for i, p := range pages {
		if err := c.Page(uint32(i), Data, p); err != nil {
			b.Fatal(err)
		}
	}
	info, err := c.Commit(nil)
	if err != nil {
		b.Fatal(err)
	}
	return info
}

// BenchmarkStore: bytes of pages that were looked at, in a second. First: pages
// that the store does not have; unchanged: as they were; changed: some bytes in
// each of 1 to 16 places are others; zero.
func BenchmarkStore(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, kind := range []struct {
		name  string
		pages [][]byte
	}{{"textual", textual(r, benchPages)}, {"random", random(r, benchPages)}} {
		b.Run("first-"+kind.name, func(b *testing.B) {
			b.SetBytes(benchPages * PageSize)
			var took time.Duration
			for range b.N {
				b.StopTimer()
				w := benchStore(b)
				b.StartTimer()
				t := processor()
				put(b, w, kind.pages)
				took += processor() - t
			}
			rate(b, took)
		})
		b.Run("unchanged-"+kind.name, func(b *testing.B) {
			w := benchStore(b)
			put(b, w, kind.pages)
			b.SetBytes(benchPages * PageSize)
			b.ResetTimer()
			t := processor()
			defer func() { rate(b, processor()-t) }()
			for range b.N {
				if i := put(b, w, kind.pages); i.Changed != 0 {
					b.Fatal(i)
				}
			}
		})
		b.Run("changed-"+kind.name, func(b *testing.B) {
			w := benchStore(b)
			pages := make([][]byte, len(kind.pages))
			for i := range pages {
				pages[i] = bytes.Clone(kind.pages[i])
			}
			put(b, w, pages)
			b.SetBytes(benchPages * PageSize)
			b.ResetTimer()
			stored := int64(0)
			var took time.Duration
			for range b.N {
				b.StopTimer()
				for _, p := range pages {
					for range 1 + r.IntN(16) {
						at := r.IntN(PageSize - 8)
						for k := range 8 {
							p[at+k] = byte(r.Uint32())
						}
					}
				}
				b.StartTimer()
				t := processor()
				stored += put(b, w, pages).Bytes
				took += processor() - t
			}
			rate(b, took)
			b.ReportMetric(float64(stored)/float64(b.N)/(benchPages*PageSize), "stored/changed")
		})
	}
	b.Run("zero", func(b *testing.B) {
		pages := slices.Repeat([][]byte{zeroPage[:]}, benchPages)
		w := benchStore(b)
		put(b, w, pages)
		b.SetBytes(benchPages * PageSize)
		b.ResetTimer()
		t := processor()
		defer func() { rate(b, processor()-t) }()
		for range b.N {
			put(b, w, pages)
		}
	})
}

// BenchmarkMetadata: what a checkpoint takes beside its pages, if 21710 of 1 GiB
// have changed, which is what a kernel's build changes in two seconds; share of the
// segment's index included.
func BenchmarkMetadata(b *testing.B) {
	r := rand.New(rand.NewPCG(2, 2))
	const guest, changed, checkpoints = 1 << 18, 21710, 60
	for range b.N {
		w := benchStore(b)
		page := make([]byte, PageSize)
		var meta, all int64
		for n := range checkpoints {
			c, err := w.Begin(Info{Time: time.Unix(int64(n), 0)}, n == 0)
			if err != nil {
				b.Fatal(err)
			}
			pfns := make([]uint32, guest)
			for i := range pfns {
				pfns[i] = uint32(i)
			}
			if n > 0 {
				r.Shuffle(guest, func(i, j int) { pfns[i], pfns[j] = pfns[j], pfns[i] })
				pfns = pfns[:changed]
				slices.Sort(pfns)
			}
			for _, pfn := range pfns {
				clear(page)
				for k := range 1 + r.IntN(40) {
					page[(int(pfn)+k*90)%PageSize] = byte(n + 1 + k)
				}
				if err := c.Page(pfn, Data, page); err != nil {
					b.Fatal(err)
				}
			}
			info, err := c.Commit([]byte("state"))
			if err != nil {
				b.Fatal(err)
			}
			if n > 0 {
				meta += info.Meta
				all += info.Bytes
			}
		}
		if err := writeIndex(w.active, w.options); err != nil {
			b.Fatal(err)
		}
		st, err := os.Stat(indexPath(w.active.path))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(meta)/(checkpoints-1)/1024, "KiB/checkpoint")
		b.ReportMetric(float64(st.Size())/checkpoints/1024, "KiB-index/checkpoint")
		b.ReportMetric(float64(all)/(checkpoints-1)/1024, "KiB-all/checkpoint")
	}
}

var million = flag.Int("checkpoints", 1_000_000, "how many BenchmarkMillion makes")

// BenchmarkMillion: a guest of 1 GiB with a million checkpoints, of 16 pages each,
// some pages much more often than others (Zipf). How long the map of one takes,
// those in the middle and those that are newest; one page's version; and all that
// bisection over them on one page takes from the store. Open is the opening of the
// store, with its list, by a new process.
func BenchmarkMillion(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	dir := b.TempDir()
	w, err := OpenWriter(dir, Options{noSync: true, SyncEvery: 2000})
	if err != nil {
		b.Fatal(err)
	}
	const guest = 1 << 18
	r := rand.New(rand.NewPCG(3, 3))
	often := rand.NewZipf(r, 1.1, 10, guest-1)
	page := make([]byte, PageSize)
	begin := time.Now()
	for n := range *million {
		c, err := w.Begin(Info{Time: time.Unix(int64(n), 0)}, n == 0)
		if err != nil {
			b.Fatal(err)
		}
		if n == 0 {
			for pfn := range uint32(guest) {
				page[0], page[1], page[2] = byte(pfn), byte(pfn>>8), 1
				if err := c.Page(pfn, Data, page); err != nil {
					b.Fatal(err)
				}
			}
		}
		for range 16 {
			pfn := uint32(often.Uint64()) * 40503 % guest
			page[0], page[1], page[2], page[3], page[4] = byte(pfn), byte(pfn>>8), byte(n), byte(n>>8), byte(n>>16)
			if err := c.Page(pfn, Data, page); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := c.Commit([]byte("state")); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	size, err := Size(dir)
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%d checkpoints made in %.0f s, %.0f MiB", *million, time.Since(begin).Seconds(), float64(size)/(1<<20))
	var rd *Reader
	b.Run("open", func(b *testing.B) {
		for range b.N {
			if rd, err = Open(dir); err != nil {
				b.Fatal(err)
			}
		}
	})
	epochs := make([]Epoch, 4096)
	for i := range epochs {
		epochs[i] = 1 + Epoch(r.IntN(*million))
	}
	for name, pick := range map[string]func(int) Epoch{"any": func(i int) Epoch { return epochs[i%len(epochs)] },
		"newest": func(int) Epoch { return Epoch(*million) }} {
		b.Run("map-"+name, func(b *testing.B) {
			var worst time.Duration
			for i := range b.N {
				t := processor()
				if _, err := rd.Map(pick(i)); err != nil {
					b.Fatal(err)
				}
				worst = max(worst, processor()-t)
			}
			b.ReportMetric(float64(worst.Microseconds())/1000, "ms-cpu-worst")
		})
	}
	b.Run("page", func(b *testing.B) {
		for i := range b.N {
			v, err := rd.At(epochs[i%len(epochs)], uint32(i)*40503%guest)
			if err == nil {
				_, err = rd.Read(uint32(i)*40503%guest, v, page)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	// The page that changes most often: of its counter, which grows, the first
	// checkpoint is looked for where it has reached a value.
	b.Run("bisect-page", func(b *testing.B) {
		t := processor()
		defer func() { b.ReportMetric(float64(processor()-t)/1e6/float64(b.N), "ms-cpu") }()
		for i := range b.N {
			want := uint32(epochs[i%len(epochs)])
			var failed error
			got := sort.Search(*million-1, func(k int) bool {
				v, err := rd.At(Epoch(k+1), 0)
				if err == nil {
					_, err = rd.Read(0, v, page)
				}
				if err != nil {
					failed = err
				}
				return uint32(page[2])|uint32(page[3])<<8|uint32(page[4])<<16 >= want && v > 1
			})
			if failed != nil {
				b.Fatal(failed)
			}
			if v, _ := rd.At(Epoch(got+1), 0); got < *million-1 && v != Epoch(got+1) {
				b.Fatalf("checkpoint %d does not change the page", got+1)
			}
		}
	})
}
