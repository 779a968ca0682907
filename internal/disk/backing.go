package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// System is where the kernel shows its devices; the zero value is not usable,
// tests point it at a tree of their own.
type System struct {
	Sys string // /sys
	Dev string // /dev
	// loopStatus asks a loop device what is behind it, mapper the device mapper
	// for its table; nil asks the kernel.
	loopStatus func(path string) (*unix.LoopInfo64, error)
	mapper     func(device string) (dmStatus, error)
	events     *uevents
}

// Host is the machine this runs on.
var Host = System{Sys: "/sys", Dev: "/dev", events: new(uevents)}

// ErrUnsupported: the backing cannot be compared with memory, e.g. because it
// is an image in a format other than raw.
var ErrUnsupported = errors.New("backing not supported")

// ErrNotReady: the toolstack has not attached the backing yet.
var ErrNotReady = errors.New("backing not attached yet")

// Identity says which disk it is; what it consists of is in Stack.
type Identity struct {
	Name  string `json:"name"`  // for people: /dev/vdb, /srv/img/web.img
	Size  int64  `json:"size"`  // bytes
	Block string `json:"block"` // "major:minor" of a block device, else empty
	// DiskSeq tells a block device from a later one of the same number; 0
	// where the kernel does not say.
	DiskSeq uint64 `json:"diskseq,omitempty"`
	// Own is a block device's own name, which it keeps when it is removed and
	// added again: its serial number, the device mapper's UUID. "" if it has none.
	Own string `json:"own,omitempty"`
	// File is set for an image file, behind a loop device or not.
	File *FileID `json:"file,omitempty"`
	// Loop is the loop device through which an image file is attached now.
	Loop string `json:"loop,omitempty"`
}

// FileID names a file, whatever its path is.
type FileID struct {
	Path   string `json:"path"`
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	// Birth is when the inode was made, in nanoseconds: its number is given
	// away again as soon as the file is removed. 0 if the filesystem has none.
	Birth  int64 `json:"birth,omitempty"`
	Offset int64 `json:"offset,omitempty"` // of the disk in the file, bytes
}

// Differs returns why o is another disk than i, "" if it is the same one. It may
// have been away meanwhile, if it has a name of its own: see Returned.
func (i Identity) Differs(o Identity) string {
	if i.Returned(o) != "" {
		return ""
	}
	switch {
	case (i.File == nil) != (o.File == nil), i.Block != o.Block:
		return fmt.Sprintf("another disk: was %s, is %s", i.describe(), o.describe())
	case i.File != nil && (i.File.Device != o.File.Device || i.File.Inode != o.File.Inode || i.File.Birth != o.File.Birth):
		return fmt.Sprintf("the image file was replaced: was %s, is %s", i.describe(), o.describe())
	case i.File != nil && i.File.Offset != o.File.Offset:
		return fmt.Sprintf("the offset in the image file was %d, is %d", i.File.Offset, o.File.Offset)
	case i.DiskSeq != o.DiskSeq:
		return fmt.Sprintf("%s was removed and added again", i.Name)
	case i.Size != o.Size:
		return fmt.Sprintf("%s was resized: was %d bytes, is %d", i.Name, i.Size, o.Size)
	}
	return ""
}

// Returned says that the disk was removed and added again, "" if it was not, or if
// it is another one. Nobody was watching it while it was away.
func (i Identity) Returned(o Identity) string {
	if i.File != nil || o.File != nil || i.Own == "" || i.Own != o.Own || i.Size != o.Size ||
		i.Block == o.Block && i.DiskSeq == o.DiskSeq {
		return ""
	}
	return fmt.Sprintf("%s was removed and added again", i.Name)
}

func (i Identity) describe() string {
	if i.File != nil {
		return fmt.Sprintf("%s (inode %d)", i.Name, i.File.Inode)
	}
	return fmt.Sprintf("%s (%s)", i.Name, i.Block)
}

// Backing is a backend's disk, resolved.
type Backing struct {
	Identity
	// Path is what to open to read the disk.
	Path string
	// device is "major:minor" of the block device that blkback uses, also for
	// loop devices; empty for QEMU's backends.
	device string
	// emulated: QEMU is the backend, a process that has the disk open.
	emulated bool
	sys      System
}

// Resolve finds a backend's disk. ErrNotReady if the hotplug script has not
// run yet; ErrUnsupported for what cannot be read sector by sector.
func (s System) Resolve(b Backend) (Backing, error) {
	if b.Kind == "qdisk" {
		format, file, ok := strings.Cut(b.Params, ":")
		if !ok || (format != "aio" && format != "raw") {
			return Backing{}, fmt.Errorf("%s: format of %q: %w", b.VBD.Name(), b.Params, ErrUnsupported)
		}
		if !strings.HasPrefix(file, "/") { // nothing at all, or QEMU's own way to a disk: rbd:, nbd:, iscsi:
			return Backing{}, fmt.Errorf("%s: %q is no file or device of this host: %w", b.VBD.Name(), b.Params, ErrUnsupported)
		}
		r, err := s.resolvePath(file)
		r.emulated = true
		return r, err
	}
	if b.PhysicalDevice == "" {
		return Backing{}, fmt.Errorf("%s: %w", b.VBD.Name(), ErrNotReady)
	}
	major, minor, ok := strings.Cut(b.PhysicalDevice, ":")
	ma, err1 := strconv.ParseUint(major, 16, 32)
	mi, err2 := strconv.ParseUint(minor, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return Backing{}, fmt.Errorf("%s: physical-device %q: %w", b.VBD.Name(), b.PhysicalDevice, ErrUnsupported)
	}
	return s.resolveDevice(fmt.Sprintf("%d:%d", ma, mi))
}

func (s System) resolvePath(path string) (Backing, error) {
	st, err := stat(path)
	if err != nil {
		return Backing{}, err
	}
	switch st.mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return s.resolveDevice(st.device)
	case unix.S_IFREG:
		return Backing{Path: path, sys: s, Identity: Identity{Name: path, Size: st.size,
			File: &FileID{Path: path, Device: st.on, Inode: st.inode, Birth: st.birth}}}, nil
	}
	return Backing{}, fmt.Errorf("%s: neither a block device nor a file: %w", path, ErrUnsupported)
}

// resolveDevice resolves a block device by "major:minor" in decimal.
func (s System) resolveDevice(device string) (Backing, error) {
	dir := filepath.Join(s.Sys, "dev/block", device)
	name, err := s.deviceName(dir)
	if err != nil {
		return Backing{}, err
	}
	sectors, err := readUint(filepath.Join(dir, "size"))
	if err != nil {
		return Backing{}, err
	}
	b := Backing{Path: filepath.Join(s.Dev, name), device: device, sys: s,
		Identity: Identity{Name: filepath.Join("/dev", name), Size: int64(sectors) * 512}}
	file, err := os.ReadFile(filepath.Join(dir, "loop/backing_file"))
	if errors.Is(err, fs.ErrNotExist) {
		b.Block = device
		if b.DiskSeq, err = diskSeq(dir); err != nil {
			return Backing{}, err
		}
		// What cannot be told of it makes it one without a name, and its stack blind.
		l, _ := s.layer(device)
		b.Own = l.name
		return b, nil
	}
	if err != nil {
		return Backing{}, err
	}
	// The path is for people: the file may have been renamed or replaced since
	// it was attached. What is attached, only the device itself can say.
	info, err := s.loop(b.Path)
	if err != nil {
		return Backing{}, err
	}
	path := strings.TrimSuffix(string(file), "\n")
	b.Loop = b.Name
	b.Name = path
	b.File = &FileID{Path: path, Device: info.Device, Inode: info.Inode, Offset: int64(info.Offset)}
	if st, err := stat(path); err == nil && st.on == info.Device && st.inode == info.Inode {
		b.File.Birth = st.birth
	}
	return b, nil
}

// loop asks a loop device what is behind it.
func (s System) loop(path string) (*unix.LoopInfo64, error) {
	if s.loopStatus != nil {
		return s.loopStatus(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("status of %s: %w", path, err)
	}
	return info, nil
}

func sameFile(i fs.FileInfo, device, inode uint64) bool {
	st, ok := i.Sys().(*syscall.Stat_t)
	return ok && st.Dev == device && st.Ino == inode
}

// facts are of one file, taken at one moment.
type facts struct {
	mode      uint16
	on, inode uint64 // the device that it is on
	size      int64
	device    string // "major:minor" of a block device
	birth     int64  // when it was made, in nanoseconds; 0 if the file system does not say
}

func stat(path string) (facts, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return facts{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	f := facts{mode: st.Mode, on: unix.Mkdev(st.Dev_major, st.Dev_minor), inode: st.Ino, size: int64(st.Size),
		device: fmt.Sprintf("%d:%d", st.Rdev_major, st.Rdev_minor)}
	if st.Mask&unix.STATX_BTIME != 0 {
		f.birth = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return f, nil
}

// diskSeq is of a disk, or of the disk that a partition is on; 0 where the
// kernel does not say.
func diskSeq(dir string) (uint64, error) {
	n, err := readOfDisk(dir, "diskseq")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return n, err
}

// readOfDisk reads a number that a disk has in sysfs, and its partitions have not.
func readOfDisk(dir, file string) (uint64, error) {
	n, err := readUint(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		// dir is a symbolic link: what is above it, only the kernel knows.
		return readUint(dir + "/../" + file)
	}
	return n, err
}

func (s System) deviceName(dir string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "uevent"))
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(string(raw), "\n") {
		if name, ok := strings.CutPrefix(line, "DEVNAME="); ok {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s/uevent: no DEVNAME: %w", dir, ErrUnsupported)
}

func readUint(path string) (uint64, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return v, nil
}
