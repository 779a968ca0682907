package disk

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// InUse returns who else uses a block device in dom0: a mount of it or of one
// of its partitions, or a device stacked on it; "" if nobody. It sees the
// mounts of this process's mount namespace only.
func (b Backing) InUse() (string, error) {
	if b.device == "" {
		return "", nil
	}
	dir := filepath.Join(b.sys.Sys, "dev/block", b.device)
	holders, err := os.ReadDir(filepath.Join(dir, "holders"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if len(holders) > 0 {
		return "device " + holders[0].Name(), nil
	}
	devices := map[string]bool{b.device: true}
	children, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, c := range children {
		raw, err := os.ReadFile(filepath.Join(dir, c.Name(), "dev"))
		if err == nil {
			devices[strings.TrimSpace(string(raw))] = true
		}
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	return mounted(bufio.NewScanner(f), devices)
}

// mounted returns the first mount of one of the devices.
func mounted(s *bufio.Scanner, devices map[string]bool) (string, error) {
	for s.Scan() {
		// 36 35 98:0 /root /mount/point options ...
		f := strings.Fields(s.Text())
		if len(f) >= 5 && devices[f[2]] {
			return "mount " + f[4], nil
		}
	}
	return "", s.Err()
}

// Flush writes out what dom0's page cache has of a block device and the disk
// does not, so that it is counted and read. Image files need none: reading
// them with O_DIRECT does it, and their times change when they are written to.
func (b Backing) Flush() error {
	if b.Block == "" {
		return nil
	}
	fd, err := unix.Open(b.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", b.Path, err)
	}
	defer unix.Close(fd)
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("fsync %s: %w", b.Path, err)
	}
	return nil
}
