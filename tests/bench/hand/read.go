package hand

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/tests/lab/agent"
)

// PageSize is that of x86.
const PageSize = 4096

// Result is what some work took, and what it read from a disk meanwhile.
type Result struct {
	Files        int64   `json:"files"`
	Bytes        int64   `json:"bytes"`
	Seconds      float64 `json:"seconds"`
	DiskRequests int64   `json:"disk_requests"`
	DiskBytes    int64   `json:"disk_bytes"`
	DiskWrites   int64   `json:"disk_writes"` // requests
	// LookupSeconds is the part of Seconds that it took to find the files: to
	// list the folders, and to stat and open each file.
	LookupSeconds float64 `json:"lookup_seconds"`
	// BestSeconds is what the fastest took of several passes.
	BestSeconds float64 `json:"best_seconds,omitempty"`
}

// fileName is the name of the i-th file that Make makes: 100 to a folder.
func fileName(i int64) string { return fmt.Sprintf("%03d/%02d", i/100, i%100) }

// Make creates count files of so many bytes under root, unless there are such
// files already, and syncs.
func Make(root string, count, bytes int64) error {
	buffer := make([]byte, min(bytes, 128<<10))
	for i := range count {
		path := filepath.Join(root, fileName(i))
		if info, err := os.Stat(path); err == nil && info.Size() == bytes {
			continue
		}
		if i%100 == 0 {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
		}
		if err := makeFile(path, agent.Content(uint64(i)), bytes, buffer); err != nil {
			return err
		}
	}
	syscall.Sync()
	return nil
}

func makeFile(path string, content io.Reader, bytes int64, buffer []byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	for left := bytes; left > 0 && err == nil; {
		part := buffer[:min(left, int64(len(buffer)))]
		if _, err = io.ReadFull(content, part); err == nil {
			_, err = file.Write(part)
		}
		left -= int64(len(part))
	}
	return errors.Join(err, file.Close())
}

// Pass lists root, and stats and reads each file in it, in the order of the
// names; and that count times.
func Pass(root string, count int64, disk string) (Result, error) {
	var r Result
	buffer := make([]byte, 128<<10)
	err := measure(&r, disk, func() error {
		for range count {
			start := time.Now()
			paths, err := list(root)
			if err != nil {
				return err
			}
			r.LookupSeconds += time.Since(start).Seconds()
			for _, path := range paths {
				if err := r.read(path, buffer); err != nil {
					return err
				}
			}
			if took := time.Since(start).Seconds(); r.BestSeconds == 0 || took < r.BestSeconds {
				r.BestSeconds = took
			}
		}
		return nil
	})
	return r, err
}

// Stat lists root, and stats each file in it: afterwards the kernel knows them by
// their names.
func Stat(root, disk string) (Result, error) {
	var r Result
	err := measure(&r, disk, func() error {
		paths, err := list(root)
		if err != nil {
			return err
		}
		for _, path := range paths {
			var stat syscall.Stat_t
			if err := rawLstat(path, &stat); err != nil {
				return err
			}
			r.Files++
		}
		return nil
	})
	return r, err
}

// list returns the regular files below root, in the order of the names.
func list(root string) ([]string, error) {
	var paths []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})
	return paths, err
}

// fillers is how many files Fill reads at a time.
const fillers = 16

// Fill reads all files below root, as fast as can be.
func Fill(root string) error {
	paths, err := list(root)
	if err != nil {
		return err
	}
	errs := make([]error, fillers)
	var group sync.WaitGroup
	for i := range fillers {
		group.Add(1)
		go func() {
			defer group.Done()
			var r Result
			buffer := make([]byte, 128<<10)
			for n := i; n < len(paths) && errs[i] == nil; n += fillers {
				errs[i] = r.read(paths[n], buffer)
			}
		}()
	}
	group.Wait()
	return errors.Join(errs...)
}

// Evict has no page of the files below root cached any more.
func Evict(root string) error {
	syscall.Sync() // what is dirty stays
	paths, err := list(root)
	if err != nil {
		return err
	}
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := errors.Join(unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED), file.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (r *Result) read(path string, buffer []byte) error {
	start := time.Now()
	var stat syscall.Stat_t
	if err := rawLstat(path, &stat); err != nil {
		return err
	}
	file, err := rawOpen(path)
	if err != nil {
		return err
	}
	r.LookupSeconds += time.Since(start).Seconds()
	for {
		n, err := rawRead(file, buffer)
		if err != nil {
			return errors.Join(err, rawClose(file))
		}
		r.Bytes += int64(n)
		if n < len(buffer) { // a regular file gives less at its end only
			r.Files++
			return rawClose(file)
		}
	}
}

// Random reads count pages of a file, with repetitions, in an order that
// follows from seed.
func Random(path string, count int64, seed uint64, disk string) (Result, error) {
	r := Result{Files: 1}
	buffer := make([]byte, PageSize)
	order := rand.New(rand.NewPCG(seed, 0))
	err := measure(&r, disk, func() error {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		for range count {
			n, err := rawReadAt(file, buffer, order.Int64N(info.Size()/PageSize)*PageSize)
			if err != nil {
				return err
			}
			r.Bytes += int64(n)
		}
		return nil
	})
	return r, err
}

// Memcpy copies so many pages, each to a page of its own, after having written
// to all of them, and so without a page fault; four times. BestSeconds is what
// the fastest took. LookupSeconds is what it takes where the pages to copy to
// have yet to be found, and cleared, by the kernel.
func Memcpy(pages int64) (Result, error) {
	r := Result{Bytes: pages * PageSize}
	from := make([]byte, r.Bytes)
	for i := 0; i < len(from); i += PageSize {
		from[i] = 1
	}
	to, err := syscall.Mmap(-1, 0, int(r.Bytes), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return r, err
	}
	for i := range 5 {
		start := time.Now()
		for at := 0; at < len(from); at += PageSize {
			copy(to[at:at+PageSize], from[at:at+PageSize])
		}
		switch took := time.Since(start).Seconds(); {
		case i == 0:
			r.LookupSeconds = took
		case i == 1 || took < r.BestSeconds:
			r.BestSeconds = took
		}
	}
	r.Seconds = r.BestSeconds
	return r, syscall.Munmap(to)
}

// measure runs work, and says what it took, and what a disk did meanwhile.
func measure(r *Result, disk string, work func() error) error {
	before, err := readDisk(disk)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := work(); err != nil {
		return err
	}
	r.Seconds = time.Since(start).Seconds()
	after, err := readDisk(disk)
	r.DiskRequests = after.reads - before.reads
	r.DiskBytes = 512 * (after.readSectors - before.readSectors)
	r.DiskWrites = after.writes - before.writes
	return err
}

// counts are those of a disk since it is there.
type counts struct{ reads, readSectors, writes int64 }

// readDisk parses /sys/block/DISK/stat (Documentation/block/stat.rst).
func readDisk(disk string) (counts, error) {
	var c counts
	text, err := os.ReadFile("/sys/block/" + disk + "/stat")
	if err != nil {
		return c, err
	}
	var merges, ticks int64
	if _, err := fmt.Fscan(bytes.NewReader(text), &c.reads, &merges, &c.readSectors, &ticks, &c.writes); err != nil {
		return c, fmt.Errorf("statistics of %s: %w", disk, err)
	}
	return c, nil
}
