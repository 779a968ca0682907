package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/ident"
)

// Cloner makes copies of disks that a guest is using, as they are at one moment, and
// without the guest's noticing: of image files, by sharing their blocks (reflinks of XFS
// and btrfs).
//
// No other way leaves a disk's account alone (package custody). A snapshot of the device
// mapper's needs another table below the guest, for which nobody but the device mapper
// can vouch; without one, what the guest writes meanwhile would show through in the copy.
type Cloner struct {
	System System
	Store  Store
}

// Source is a disk of a domain that a clone of it may have, too.
type Source struct {
	VBD  ident.VBD
	Path string // of the file, or of a device that nobody writes to
	// Shared: it is a device that is read only, and can be given to the clone as it is.
	Shared   bool
	ReadOnly bool

	file Backing
}

// Sources returns the disks of a domain, or why one of them cannot be cloned. Nothing is
// left behind by looking.
func (c Cloner) Sources(ctx context.Context, domid ident.Domid) ([]Source, error) {
	backends, err := Backends(ctx, c.Store, domid)
	if err != nil {
		return nil, err
	}
	var all []Source
	for _, be := range backends {
		b, err := c.System.Resolve(be)
		if err != nil {
			return nil, err
		}
		s := Source{VBD: be.VBD, Path: b.Path, ReadOnly: be.ReadOnly, file: b}
		switch {
		case b.File == nil && be.ReadOnly:
			s.Shared = true
		case b.File == nil:
			return nil, fmt.Errorf("its disk %s is the device %s, of which there can be no copy while the domain writes to it: only image files on a file system that shares blocks (XFS, btrfs) are cloned", be.VBD.Name(), b.Name)
		case b.File.Offset != 0:
			return nil, fmt.Errorf("its disk %s begins at byte %d of %s: only whole files are cloned", be.VBD.Name(), b.File.Offset, b.File.Path)
		default:
			s.Path = b.File.Path
			if err := b.probe(); err != nil {
				return nil, fmt.Errorf("its disk %s is %s, which cannot be cloned: %w", be.VBD.Name(), s.Path, err)
			}
		}
		all = append(all, s)
	}
	return all, nil
}

// image opens the image file: the one that is attached, whatever has its name now. The
// agent opens it itself, which AccessWatch does not take for somebody else.
func (b Backing) image() (*os.File, error) {
	f, err := os.Open(b.File.Path)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !sameFile(st, b.File.Device, b.File.Inode) {
		f.Close()
		return nil, fmt.Errorf("%s is not the file that is attached: %w", b.File.Path, errors.Join(err, fs.ErrNotExist))
	}
	return f, nil
}

// probed is how much of a file is shared to see whether that can be done: a multiple of
// all blocks that file systems have.
const probed = 64 << 10

// probe shares the beginning of a file with one that has no name, and goes at once.
func (b Backing) probe() error {
	src, err := b.image()
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := unix.Open(filepath.Dir(b.File.Path), unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("warmrebootd may not write to %s: under systemd, systemctl edit warmrebootd, with ReadWritePaths=%[1]s below [Service], and restart it", filepath.Dir(b.File.Path))
	}
	if err != nil {
		return fmt.Errorf("a file cannot be made beside it: %w", err)
	}
	defer func() { _ = unix.Close(dst) }()
	length := uint64(probed)
	if b.Size < probed {
		length = 0 // all of it
	}
	return reflinks(unix.IoctlFileCloneRange(dst, &unix.FileCloneRange{Src_fd: int64(src.Fd()), Src_length: length}))
}

func reflinks(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("its file system does not share blocks between files, as XFS and btrfs do (%w)", err)
	}
	return err
}

// Clone makes a file that has what the disk has now: all writes of the guest's that have
// ended, none that has not begun, as if the power had been cut. The file shares its blocks
// with the disk's, and is written to without changing that.
func (Cloner) Clone(s Source, to string) error {
	src, err := s.file.image()
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err != nil {
		return errors.Join(fmt.Errorf("clone %s: %w", s.Path, reflinks(err)), dst.Close())
	}
	return dst.Close()
}

// Traffic is what a domain's disks had to do.
type Traffic struct {
	// Apart are the disks that the guest is not connected to.
	Apart         []string
	Read, Written int64 // bytes, through blkback
}

// connected is XenbusStateConnected (xen/io/xenbus.h).
const connected = "4"

// Traffic returns that of a domain.
func (c Cloner) Traffic(ctx context.Context, domid ident.Domid) (t Traffic, err error) {
	backends, err := Backends(ctx, c.Store, domid)
	if err != nil {
		return t, err
	}
	if len(backends) == 0 {
		t.Apart = []string{"any"}
	}
	for _, be := range backends {
		state, err := readOptional(ctx, c.Store, be.Path+"/state")
		if err != nil {
			return t, err
		}
		if state != connected {
			t.Apart = append(t.Apart, be.VBD.Name())
			continue
		}
		dir := filepath.Join(c.System.Sys, "bus/xen-backend/devices", fmt.Sprintf("vbd-%d-%d", domid, be.VBD), "statistics")
		for name, to := range map[string]*int64{"rd_sect": &t.Read, "wr_sect": &t.Written} {
			n, err := readUint(filepath.Join(dir, name))
			if err != nil {
				return t, err
			}
			*to += int64(n) * 512
		}
	}
	return t, nil
}

// RoomOf returns how many bytes of a clone's file are its own, written by either side
// since it was made, and how many are free in the file system that it is on, or will be.
func (Cloner) RoomOf(path string) (own, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &st); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: filepath.Dir(path), Err: err}
	}
	free = int64(st.Bavail) * st.Bsize
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, free, nil
	}
	if err != nil {
		return 0, free, err
	}
	defer f.Close()
	for at := uint64(0); ; {
		buf := make([]byte, fiemapHeader+fiemapExtents*fiemapExtent)
		put := binary.NativeEndian.PutUint64
		put(buf, at)
		put(buf[8:], ^uint64(0)-at)
		binary.NativeEndian.PutUint32(buf[16:], fiemapSync)
		binary.NativeEndian.PutUint32(buf[24:], fiemapExtents)
		if err := ioctlBuffer(int(f.Fd()), fiemapRequest, buf); err != nil {
			return own, free, fmt.Errorf("extents of %s: %w", path, err)
		}
		unshared, next, last := parseExtents(buf)
		own += unshared
		if last || next <= at {
			return own, free, nil
		}
		at = next
	}
}

// FS_IOC_FIEMAP (linux/fiemap.h).
const (
	fiemapRequest = 0xc020660b // _IOWR('f', 11, struct fiemap)
	fiemapHeader  = 32         // sizeof(struct fiemap)
	fiemapExtent  = 56         // sizeof(struct fiemap_extent)
	fiemapExtents = 512        // at a time

	// What is only in dom0's memory has no place of its own yet.
	fiemapSync   = 0x1
	fiemapLast   = 0x1
	fiemapShared = 0x2000
)

// parseExtents returns how many bytes of the extents in an answer nobody shares, where
// the next ones begin, and whether there are none.
func parseExtents(buf []byte) (unshared int64, next uint64, last bool) {
	n := int(binary.NativeEndian.Uint32(buf[20:]))
	last = n == 0
	for i := range min(n, (len(buf)-fiemapHeader)/fiemapExtent) {
		e := buf[fiemapHeader+i*fiemapExtent:]
		length, flags := binary.NativeEndian.Uint64(e[16:]), binary.NativeEndian.Uint32(e[40:])
		if flags&fiemapShared == 0 {
			unshared += int64(length)
		}
		next, last = binary.NativeEndian.Uint64(e)+length, flags&fiemapLast != 0
	}
	return unshared, next, last
}

// Remove removes a clone's file, and a loop device of it that whoever was to detach it
// has left. That there is no file is no error.
func (c Cloner) Remove(path string) error {
	files, err := filepath.Glob(filepath.Join(c.System.Sys, "block/loop*/loop/backing_file"))
	if err != nil {
		return err
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil || strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), " (deleted)") != path {
			continue // detached meanwhile, or somebody else's
		}
		if err := detach(filepath.Join(c.System.Dev, filepath.Base(filepath.Dir(filepath.Dir(file))))); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func detach(device string) error {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: device, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach %s: %w", device, err)
	}
	return nil
}

// BootComplete reports whether a guest says that it has booted: it writes 1 to
// data/boot-complete in xenstore, below its own folder.
func (c Cloner) BootComplete(ctx context.Context, domid ident.Domid) (bool, error) {
	v, err := readOptional(ctx, c.Store, "/local/domain/"+strconv.Itoa(int(domid))+"/data/boot-complete")
	return strings.TrimSpace(v) == "1", err
}
