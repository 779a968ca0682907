package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/internal/disk"
)

// Done is what a stress did.
type Done struct {
	Operations int64    `json:"operations"`
	Failed     int64    `json:"failed"`
	Errors     []string `json:"errors"` // of each kind one
}

// Stress has several workers do, at the same time and without a pause, what Work
// does, and what Work leaves out: direct writes, holes and shared extents. They
// share files, so nobody knows what those have to be: what the page cache has of
// them has to be what the disk has. There are as many workers for each of the work
// folders, which are separated by commas. An operation may fail, as where a file
// has just been removed, or a file system cannot share extents.
func Stress(root, work string, seed uint64, duration time.Duration, workers int) (Done, error) {
	served, err := files(root)
	if err != nil {
		return Done{}, err
	}
	var operations, failed atomic.Int64
	var errs sync.Map
	var group sync.WaitGroup
	folders := strings.Split(work, ",")
	for _, folder := range folders {
		if _, err := Prepare(root, folder); err != nil {
			return Done{}, err
		}
	}
	end := time.Now().Add(duration) // making the files is not the stress
	for i, folder := range folders {
		for j := range workers {
			w := &worker{root: root, work: folder, served: served, random: rand.New(rand.NewPCG(seed, uint64(i*workers+j)))}
			choice := []func() error{
				w.read, w.read, w.readAnew, w.readMapped, w.overwrite, w.overwriteSynced, w.appendTo, w.writeMapped,
				w.replace, w.remove, w.truncate, w.direct, w.directories, w.writeDirect, w.writeDirect, w.punch, w.share,
			}
			group.Go(func() {
				for time.Now().Before(end) {
					operations.Add(1)
					if err := survive(choice[w.random.IntN(len(choice))]); err != nil {
						failed.Add(1)
						// A *PathError has the path too, of which there are many.
						cause := err
						for next := errors.Unwrap(cause); next != nil; next = errors.Unwrap(cause) {
							cause = next
						}
						errs.Store(cause.Error(), err.Error())
					}
				}
			})
		}
	}
	group.Wait()
	done := Done{Operations: operations.Load(), Failed: failed.Load(), Errors: []string{}}
	errs.Range(func(_, example any) bool {
		done.Errors = append(done.Errors, example.(string))
		return true
	})
	return done, nil
}

// survive does an operation and makes an error of a fault: a file that is mapped
// may have become shorter meanwhile.
func survive(operation func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface {
			error
			Addr() uintptr
		}:
			err = fmt.Errorf("a mapped page is gone: %w", r)
		default:
			panic(r)
		}
	}()
	return operation()
}

// existing opens one of the written files, if it is there.
func (w *worker) existing(flags int) (*os.File, error) {
	file, err := os.OpenFile(w.file(), flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return file, err
}

// writeDirect writes to a file past the page cache.
func (w *worker) writeDirect() error {
	file, err := w.existing(os.O_WRONLY | unix.O_DIRECT)
	if file == nil {
		return err
	}
	buffer, err := disk.AlignedBuffer((1 + w.random.IntN(8)) * pageSize)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	defer buffer.Free()
	copy(buffer, w.bytes(len(buffer)))
	_, err = file.WriteAt(buffer, w.random.Int64N(workSize/pageSize)*pageSize)
	return errors.Join(err, file.Close())
}

// punch makes a hole in a file, or has a part of it read as zero.
func (w *worker) punch() error {
	file, err := w.existing(os.O_RDWR)
	if file == nil {
		return err
	}
	mode := uint32(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
	if w.random.IntN(2) == 0 {
		mode = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
	}
	err = unix.Fallocate(int(file.Fd()), mode, w.random.Int64N(workSize), 1+w.random.Int64N(workSize/4))
	return errors.Join(err, file.Close())
}

// share has a file become a clone of another, or of a served one: both have the
// same blocks then, until one is written to.
func (w *worker) share() error {
	source, err := w.existing(os.O_RDONLY)
	if source == nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(w.file(), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if source.Name() == target.Name() {
		return target.Close()
	}
	return errors.Join(unix.IoctlFileClone(int(target.Fd()), int(source.Fd())), target.Close())
}
