package disk

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Use is who else uses a disk in dom0.
type Use struct {
	By string // "" if nobody does
	// Leaving: it is a loop device that was detached already, and goes with the last who
	// has it open (LO_FLAGS_AUTOCLEAR in loop(4)): that of a guest that is gone, or a mount.
	Leaving bool
	Err     error // that cannot be told
}

// InUse returns who else uses each of the disks: a mount of it or of one of its
// partitions, a device stacked on it, another loop device with the same file or on
// top of it, or a process that can write to it. It goes through all processes once.
func InUse(all []Backing) []Use {
	users := make([]Use, len(all))
	searches := make([]search, len(all))
	for i, b := range all {
		s, err := b.search()
		if err != nil {
			users[i].Err = err
			continue
		}
		searches[i] = s
		loop := func() (by string, err error) {
			by, users[i].Leaving, err = s.otherLoop()
			return by, err
		}
		for _, ask := range []func() (string, error){s.stacked, s.mounted, loop, s.claimed} {
			if users[i].By, users[i].Err = ask(); users[i] != (Use{}) {
				break
			}
		}
	}
	by, err := writers(len(all), func(i int, st *unix.Stat_t) bool { return users[i] == Use{} && searches[i].is(st) })
	for i := range users {
		if users[i] == (Use{}) {
			users[i] = Use{By: by[i], Err: err}
		}
	}
	return users
}

// search looks for who else uses a disk.
type search struct {
	Backing
	devices map[string]bool // the numbers of its device and the partitions
}

func (b Backing) search() (search, error) {
	devices, err := b.devices()
	return search{b, devices}, err
}

func (b Backing) dir() string { return filepath.Join(b.sys.Sys, "dev/block", b.device) }

// stacked finds what the device mapper and the like have put on the device.
func (b search) stacked() (string, error) {
	if b.device == "" {
		return "", nil
	}
	holders, err := os.ReadDir(filepath.Join(b.dir(), "holders"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if len(holders) > 0 {
		return "device " + holders[0].Name(), nil
	}
	return "", nil
}

// devices returns the numbers of the device and its partitions, each a directory
// in that of the device.
func (b Backing) devices() (map[string]bool, error) {
	all := map[string]bool{}
	if b.device == "" {
		return all, nil
	}
	all[b.device] = true
	children, err := os.ReadDir(b.dir())
	if err != nil {
		return nil, err
	}
	for _, c := range children {
		if !c.IsDir() {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(b.dir(), c.Name(), "dev"))
		if err == nil {
			all[strings.TrimSpace(string(raw))] = true
		}
	}
	return all, nil
}

// mounted finds a mount in this process's mount namespace. It can name the
// place, which claimed cannot.
func (b search) mounted() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	return mounted(bufio.NewScanner(f), b.devices)
}

// mounted returns the first mount of one of the devices.
func mounted(s *bufio.Scanner, devices map[string]bool) (string, error) {
	for s.Scan() {
		// 36 35 98:0 /root /mount/point options ...
		f := strings.Fields(s.Text())
		if len(f) >= 5 && devices[f[2]] {
			return "mount " + unescape(f[4]), nil
		}
	}
	return "", s.Err()
}

// unescape returns a name that mountinfo has written with \040 for a space, and the
// like (proc_pid_mountinfo(5)).
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// otherLoop finds a loop device that is not the guest's, with the same file, or
// on top of the block device; of several, one that is not leaving.
func (b search) otherLoop() (by string, leaving bool, err error) {
	files, err := filepath.Glob(filepath.Join(b.sys.Sys, "block/loop*/loop/backing_file"))
	if err != nil {
		return "", false, err
	}
	for _, file := range files {
		name := filepath.Base(filepath.Dir(filepath.Dir(file)))
		if filepath.Join("/dev", name) == b.Loop {
			continue
		}
		info, err := b.sys.loop(filepath.Join(b.sys.Dev, name))
		if errors.Is(err, unix.ENXIO) || errors.Is(err, fs.ErrNotExist) {
			continue // detached meanwhile
		}
		if err != nil {
			return "", false, err
		}
		if b.File != nil && info.Device == b.File.Device && info.Inode == b.File.Inode ||
			info.Rdevice != 0 && b.devices[deviceNumber(info.Rdevice)] {
			by, leaving = "loop device /dev/"+name, info.Flags&unix.LO_FLAGS_AUTOCLEAR != 0
			if !leaving {
				break
			}
		}
	}
	return by, leaving, nil
}

func deviceNumber(rdev uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev))
}

// claimed reports whether somebody uses the block device exclusively: a mount
// in whatever namespace, swap, a stacked device. blkback does not.
func (b search) claimed() (string, error) {
	if b.device == "" {
		return "", nil
	}
	fd, err := unix.Open(b.openPath(), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return "somebody who has claimed it for himself: a mount in another namespace, or swap", nil
	}
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: b.openPath(), Err: err}
	}
	return "", unix.Close(fd)
}

func (b Backing) openPath() string {
	if b.Loop != "" {
		return filepath.Join(b.sys.Dev, filepath.Base(b.Loop))
	}
	return b.Path
}

// is reports whether an open file is the disk or its file. QEMU's backend has it open
// itself, so that nobody is looked for.
func (b search) is(st *unix.Stat_t) bool {
	switch {
	case b.emulated:
		return false
	case st.Mode&unix.S_IFMT == unix.S_IFBLK:
		return b.devices[deviceNumber(st.Rdev)]
	case st.Mode&unix.S_IFMT == unix.S_IFREG:
		return b.File != nil && st.Dev == b.File.Device && st.Ino == b.File.Inode
	}
	return false
}

// writers returns, for each of n disks, the first process but this one that has a
// file of it open for writing. Processes and files that go away meanwhile are passed
// over.
func writers(n int, is func(i int, st *unix.Stat_t) bool) ([]string, error) {
	by := make([]string, n)
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return by, err
	}
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join("/proc", p.Name())
		open, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			continue
		}
		for _, fd := range open {
			var st unix.Stat_t
			if unix.Stat(filepath.Join(dir, "fd", fd.Name()), &st) != nil {
				continue
			}
			for i := range by {
				if by[i] != "" || !is(i, &st) {
					continue
				}
				info, err := os.ReadFile(filepath.Join(dir, "fdinfo", fd.Name()))
				if err == nil && writable(info) {
					by[i] = processName(pid) + ", which has it open for writing"
				}
			}
		}
	}
	return by, nil
}

// writable parses /proc/PID/fdinfo/N (proc_pid_fdinfo(5)).
func writable(info []byte) bool {
	for line := range bytes.Lines(info) {
		if v, ok := bytes.CutPrefix(line, []byte("flags:")); ok {
			flags, err := strconv.ParseUint(string(bytes.TrimSpace(v)), 8, 64)
			return err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY
		}
	}
	return true
}

// processName names a process for people.
func processName(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("process %d (%s)", pid, bytes.TrimSpace(name))
}

// Flush writes out what dom0's page cache has of a block device and the disk
// does not, so that it is counted and read.
func (b Backing) Flush() error {
	if b.Block == "" {
		return nil // reading an image with O_DIRECT does it
	}
	return syncFile(b.Path, nil)
}

// Settle writes out what dom0's page cache has of an image file, after the
// guest's last write: a process that has mapped the file cannot write to it
// from then on without changing its times.
func (b Backing) Settle() error {
	if b.File == nil {
		return nil
	}
	return syncFile(b.File.Path, b.File)
}

func syncFile(path string, id *FileID) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if id != nil {
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if !sameFile(st, id.Device, id.Inode) {
			return fmt.Errorf("%s: another file", path)
		}
	}
	return f.Sync()
}
