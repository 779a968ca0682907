package hand

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Stream reads a device again and again, past the page cache, for so many
// seconds.
func Stream(device string, seconds float64) (Result, error) {
	var r Result
	file, err := os.OpenFile(device, os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		return r, err
	}
	defer file.Close()
	buffer, err := syscall.Mmap(-1, 0, 128<<10, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return r, err
	}
	start := time.Now()
	for r.Seconds < seconds {
		n, err := rawRead(int(file.Fd()), buffer)
		if err != nil {
			return r, err
		}
		if r.Bytes += int64(n); n < len(buffer) {
			if _, err := file.Seek(0, 0); err != nil {
				return r, err
			}
		}
		r.Seconds = time.Since(start).Seconds()
	}
	return r, syscall.Munmap(buffer)
}

// LoopDirect makes a loop device read its file past dom0's page cache.
func LoopDirect(device string) error {
	file, err := os.Open(device)
	if err != nil {
		return err
	}
	return errors.Join(unix.IoctlSetInt(int(file.Fd()), unix.LOOP_SET_DIRECT_IO, 1), file.Close())
}
