package guest

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/internal/disk"
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
	buffer, err := disk.AlignedBuffer(16 * pageSize)
	if err != nil {
		return err
	}
	defer buffer.Free()
	_, err = file.ReadAt(buffer, int64(w.random.IntN(16))*pageSize)
	return ignoreEOF(err)
}
