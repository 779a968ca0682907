package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/validate"
	"github.com/warmreboot/warmreboot/tests/bench/measure"
)

// contentResult has speeds in GB (10^9 bytes) of pages per second.
type contentResult struct {
	Bytes  int            `json:"bytes"`
	Speeds []contentSpeed `json:"speeds"`
}

// contentSpeed is that of the run with the least time by the clock.
type contentSpeed struct {
	What         string  `json:"what"`
	Pages        int     `json:"pages"`
	GBPerSecond  float64 `json:"gb_per_s"`
	GBPerCPU     float64 `json:"gb_per_cpu_s"`
	WallSeconds  float64 `json:"wall_s"`
	CPUSeconds   float64 `json:"cpu_s"`
	HeapPerEntry float64 `json:"heap_bytes_per_page"`
}

// memoryDisk is a disk that is as fast as memory.
type memoryDisk []byte

func (d memoryDisk) ReadAt(p []byte, off int64) (int, error) { return copy(p, d[off:]), nil }
func (d memoryDisk) Size() int64                             { return int64(len(d)) }

// depth is how many reads are under way at a time where the disk alone is
// measured, and as many as validate has.
const depth = 8

func measureContent(ctx context.Context, log io.Writer, dir string, size, runs int) (contentResult, error) {
	m, err := contentMemory(size)
	if err != nil {
		return contentResult{}, err
	}
	path := filepath.Join(dir, fmt.Sprintf("bench-agent-%d", os.Getpid()))
	defer os.Remove(path)
	image := diskOf(m)
	if err := write(path, image); err != nil {
		return contentResult{}, err
	}
	r, err := disk.Backing{Identity: disk.Identity{Size: int64(size)}, Path: path}.OpenReader()
	if err != nil {
		return contentResult{}, err
	}
	defer r.Close()

	res := contentResult{Bytes: size}
	all, _, _ := validate.Collect(cachemap.NewView(m.entries, m.words), contentVBD, 0, len(m.entries))
	sample := func(n int) []validate.Page {
		return validate.SampleView(cachemap.NewView(m.entries, m.words), contentVBD, n)
	}
	compare := func(d validate.Disk, pages []validate.Page) error {
		out, err := validate.ContentCheck{Memory: m, Domid: 1, Disk: d}.Run(ctx, pages)
		if err == nil && out.Equal != uint64(len(pages)) {
			err = fmt.Errorf("%d of %d pages are equal", out.Equal, len(pages))
		}
		return err
	}
	few, many := min(256, len(all)), min(8192, len(all))
	to := make([]byte, size)
	copy(to, image)
	for _, w := range []struct {
		what  string
		pages int
		do    func() error
	}{
		{"memcpy", len(all), func() error { copy(to, m.bytes); copy(to, image); return nil }},
		{"memcmp", len(all), func() error {
			if !bytes.Equal(to, image) {
				return fmt.Errorf("a copy differs")
			}
			return nil
		}},
		{"full check, disk in memory", len(all), func() error { return compare(memoryDisk(image), all) }},
		{"disk alone, in order, 1 MiB, one at a time", len(all), func() error { return readAll(r, inOrder(size), 1<<20, 1) }},
		{"disk alone, in order, 1 MiB, eight at a time", len(all), func() error { return readAll(r, inOrder(size), 1<<20, depth) }},
		{"full check", len(all), func() error { return compare(r, all) }},
		{"disk alone, random, 4 KiB, one at a time", few, func() error { return readAll(r, random(size, few), 4096, 1) }},
		{"disk alone, random, 4 KiB, eight at a time", many, func() error { return readAll(r, random(size, many), 4096, depth) }},
		{"check of 256 pages", few, func() error { return compare(r, sample(few)) }},
		{"check of 8192 pages", many, func() error { return compare(r, sample(many)) }},
	} {
		s := contentSpeed{What: w.what, Pages: w.pages}
		bytes := float64(w.pages) * cachemap.PageSize
		if w.what == "memcpy" {
			bytes *= 2
		}
		for i := range runs {
			var err error
			c := measure.Of(func() { err = w.do() })
			if err != nil {
				return res, fmt.Errorf("%s: %w", w.what, err)
			}
			if i == 0 || c.Wall.Seconds() < s.WallSeconds {
				s.WallSeconds, s.CPUSeconds = c.Wall.Seconds(), c.CPU.Seconds()
				s.GBPerSecond, s.GBPerCPU = bytes/1e9/s.WallSeconds, bytes/1e9/s.CPUSeconds
				s.HeapPerEntry = float64(c.Allocated) / float64(w.pages)
			}
		}
		res.Speeds = append(res.Speeds, s)
		fmt.Fprintf(log, "%-45s %7d pages: %6.3f GB/s, %6.3f GB per CPU second, %v\n", s.What, s.Pages, s.GBPerSecond, s.GBPerCPU,
			time.Duration(s.WallSeconds*1e9).Round(time.Microsecond))
	}
	return res, nil
}

const contentVBD = 51712

// contentMemory makes pages of random bytes, and a table that says where on a
// disk of the same size they are: in runs of 1 to 64, in another order.
func contentMemory(size int) (*memory, error) {
	n := size / cachemap.PageSize
	if n == 0 {
		return nil, fmt.Errorf("less than a page of contents")
	}
	m := &memory{entries: make([]cachemap.Entry, n), words: make([]uint64, (n+63)/64), bytes: make([]byte, n*cachemap.PageSize)}
	if _, err := rand.NewChaCha8([32]byte{1}).Read(m.bytes); err != nil {
		return nil, err
	}
	r := rand.New(rand.NewPCG(5, 6))
	var runs [][2]int // of PFNs
	for p := 0; p < n; {
		l := min(1+r.IntN(64), n-p)
		runs = append(runs, [2]int{p, l})
		p += l
	}
	r.Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
	at := 0
	for inode, f := range runs {
		for i := range f[1] {
			p := f[0] + i
			m.entries[p] = cachemap.Entry{VBD: contentVBD, Cookie: cachemap.File{Inode: uint64(12 + inode), Index: uint32(i)}.Cookie(), Sector: cachemap.Sector(at * cachemap.SectorsPerPage)}
			m.words[p/64] |= 1 << (p % 64)
			at++
		}
	}
	return m, nil
}

// diskOf returns the bytes of the disk.
func diskOf(m *memory) []byte {
	image := make([]byte, len(m.bytes))
	for p, e := range m.entries {
		copy(image[e.Sector*cachemap.SectorSize:], m.bytes[p*cachemap.PageSize:(p+1)*cachemap.PageSize])
	}
	return image
}

func write(path string, b []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Sync()
}

func inOrder(size int) []int64 {
	var at []int64
	for o := 0; o+1<<20 <= size; o += 1 << 20 {
		at = append(at, int64(o))
	}
	return at
}

func random(size, n int) []int64 {
	at := make([]int64, n)
	for i := range at {
		at[i] = rand.Int64N(int64(size)/cachemap.PageSize) * cachemap.PageSize
	}
	return at
}

// readAll reads size bytes from each place, several at a time.
func readAll(r io.ReaderAt, places []int64, size, depth int) error {
	next := make(chan int64)
	failed := make(chan error, depth)
	var wait sync.WaitGroup
	for range depth {
		buf, err := disk.AlignedBuffer(size)
		if err != nil {
			return err
		}
		defer buf.Free()
		wait.Add(1)
		go func() {
			defer wait.Done()
			for at := range next {
				if _, err := r.ReadAt(buf, at); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			}
		}()
	}
	for _, at := range places {
		next <- at
	}
	close(next)
	wait.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}
