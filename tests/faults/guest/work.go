package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// workFiles and workSize are what the work writes to; it begins with these.
const (
	workFiles = 24
	workSize  = 256 << 10
	// operations are in a run, however long it is: between them the machine is
	// idle, which costs the emulator little, and what the kernel does late happens.
	operations = 60
)

// Prepare creates the files that Work writes to, and reads all files below root
// so that they are cached. It returns the inodes of the latter.
func Prepare(root, work string) ([]uint64, error) {
	for i := range workFiles {
		if err := writeFile(workPath(work, i), rand.New(rand.NewPCG(1, uint64(i))), workSize); err != nil {
			return nil, err
		}
	}
	syscall.Sync()
	paths, err := files(root)
	if err != nil {
		return nil, err
	}
	var inodes []uint64
	for _, path := range paths {
		if _, err := os.ReadFile(path); err != nil {
			return nil, err
		}
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			return nil, err
		}
		inodes = append(inodes, st.Ino)
	}
	return inodes, nil
}

// worker is one run of Work.
type worker struct {
	root, work string
	served     []string
	random     *rand.Rand
}

// Work reads files below root, which it never changes, and does with those
// below work what programs do with files, for as long as it is told to, with a
// pause after each operation. Which operations, on what and in which order,
// follows from the seed. One that fails is no reason to stop: faults happen
// meanwhile.
func Work(root, work string, seed uint64, duration, pause time.Duration) error {
	served, err := files(root)
	if err != nil {
		return err
	}
	w := &worker{root: root, work: work, served: served, random: rand.New(rand.NewPCG(seed, 2))}
	choice := []func() error{
		w.read, w.read, w.read, w.readAnew, w.readAnew, w.readMapped, w.overwrite, w.overwriteSynced, w.appendTo,
		w.writeMapped, w.replace, w.remove, w.truncate, w.direct, w.directories,
	}
	for end := time.Now().Add(duration); time.Now().Before(end); time.Sleep(pause) {
		if err := choice[w.random.IntN(len(choice))](); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return nil
}

func workPath(work string, i int) string { return filepath.Join(work, fmt.Sprintf("file-%02d", i)) }

func (w *worker) file() string { return workPath(w.work, w.random.IntN(workFiles)) }

func (w *worker) servedFile() string { return w.served[w.random.IntN(len(w.served))] }

func (w *worker) bytes(n int) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		v := w.random.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	return b
}

func (w *worker) read() error {
	file, err := os.Open(w.servedFile())
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	_, err = file.ReadAt(make([]byte, min(info.Size(), 1<<18)), w.random.Int64N(info.Size()))
	return ignoreEOF(err)
}

// readAnew drops a file from the page cache and reads it from the disk.
func (w *worker) readAnew() error {
	file, err := os.Open(w.servedFile())
	if err != nil {
		return err
	}
	defer file.Close()
	if err := dropCache(file); err != nil {
		return err
	}
	buffer := make([]byte, 1<<18)
	for total := 0; total < 1<<20; {
		n, err := file.Read(buffer)
		if err != nil {
			return ignoreEOF(err)
		}
		total += n
	}
	return nil
}

func (w *worker) readMapped() error {
	return mapped(w.servedFile(), os.O_RDONLY, func(memory []byte) {
		sum := byte(0)
		for i := 0; i < len(memory); i += 4096 {
			sum += memory[i]
		}
		_ = sum
	})
}

func (w *worker) overwriteAt(flags int, sync bool) error {
	file, err := os.OpenFile(w.file(), os.O_WRONLY|os.O_CREATE|flags, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(w.bytes(1+w.random.IntN(40_000)), w.random.Int64N(workSize))
	if err == nil && sync {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func (w *worker) overwrite() error       { return w.overwriteAt(0, false) }
func (w *worker) overwriteSynced() error { return w.overwriteAt(0, true) }

func (w *worker) appendTo() error {
	file, err := os.OpenFile(w.file(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(w.bytes(1 + w.random.IntN(20_000)))
	return errors.Join(err, file.Close())
}

func (w *worker) writeMapped() error {
	return mapped(w.file(), os.O_RDWR, func(memory []byte) {
		for range 20 {
			memory[w.random.IntN(len(memory))] = byte(w.random.Uint32())
		}
	})
}

// replace is how careful programs write: beside, sync, rename.
func (w *worker) replace() error {
	path := w.file()
	if err := writeFile(path+".new", w.random, 1+w.random.IntN(workSize)); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (w *worker) remove() error {
	err := os.Remove(w.file())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (w *worker) truncate() error {
	err := os.Truncate(w.file(), w.random.Int64N(workSize))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (w *worker) directories() error {
	dir := filepath.Join(w.work, fmt.Sprintf("dir-%d", w.random.IntN(8)))
	if w.random.IntN(2) == 0 {
		return os.RemoveAll(dir)
	}
	for i := range 10 {
		if err := writeFile(filepath.Join(dir, fmt.Sprint(i)), w.random, w.random.IntN(5000)); err != nil {
			return err
		}
	}
	return nil
}
