package hand

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// pageSize is that of the page cache.
const pageSize = 4096

// files lists the regular files below folders, which are separated by commas.
func files(roots string) ([]string, error) {
	var paths []string
	for _, root := range strings.Split(roots, ",") {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(paths) == 0 {
		return nil, fs.ErrNotExist
	}
	return paths, nil
}

// writeFile creates a file with size random bytes and syncs it.
func writeFile(path string, random *rand.Rand, size int) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	w := worker{random: random}
	_, err = file.Write(w.bytes(size))
	return errors.Join(err, file.Sync(), file.Close())
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func dropCache(file *os.File) error {
	return unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// mapped calls use with a file mapped into memory. A page that can't be read
// would end the program, which is why the file is not to shrink meanwhile.
func mapped(path string, flags int, use func(memory []byte)) error {
	file, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	protection := syscall.PROT_READ
	if flags == os.O_RDWR {
		protection |= syscall.PROT_WRITE
	}
	memory, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), protection, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	use(memory)
	return syscall.Munmap(memory)
}

// direct reads one of the written files past the page cache.
func (w *worker) direct() error {
	file, err := os.OpenFile(w.file(), os.O_RDONLY|unix.O_DIRECT, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	buffer, err := aligned(16 * pageSize)
	if err != nil {
		return err
	}
	defer syscall.Munmap(buffer)
	_, err = file.ReadAt(buffer, int64(w.random.IntN(16))*pageSize)
	return ignoreEOF(err)
}

// aligned returns memory as O_DIRECT wants it; to be unmapped.
func aligned(size int) ([]byte, error) {
	return syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
}

// Verified is what a guest sees of its files through its page cache.
type Verified struct {
	Pages  int64    `json:"pages"`
	Differ int64    `json:"differ"` // from what the disk has
	Files  []string `json:"files"`  // in which; the first ones
	Error  string   `json:"error,omitempty"`
}

// Verify compares what files hold when read through the page cache with what
// they hold when read past it.
func Verify(root string) (Verified, error) {
	var v Verified
	paths, err := files(root)
	if err != nil {
		return v, err
	}
	for _, path := range paths {
		before := v.Differ
		if err := v.compare(path); err != nil && v.Error == "" {
			v.Error = err.Error()
		}
		if v.Differ > before && len(v.Files) < 10 {
			v.Files = append(v.Files, path)
		}
	}
	return v, nil
}

func (v *Verified) compare(path string) error {
	cached, err := os.Open(path)
	if err != nil {
		return err
	}
	defer cached.Close()
	direct, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer direct.Close()
	const size = 1 << 20
	memory, err := aligned(2 * size)
	if err != nil {
		return err
	}
	defer syscall.Munmap(memory)
	a, b := memory[:size], memory[size:]
	for offset := int64(0); ; offset += size {
		n, err := cached.ReadAt(a, offset)
		if ignoreEOF(err) != nil {
			return err
		}
		m, err := direct.ReadAt(b, offset)
		if ignoreEOF(err) != nil {
			return err
		}
		for at := 0; at < max(n, m); at += pageSize {
			v.Pages++
			if !bytes.Equal(a[min(at, n):min(n, at+pageSize)], b[min(at, m):min(m, at+pageSize)]) {
				v.Differ++
			}
		}
		if n < size {
			return nil
		}
	}
}
