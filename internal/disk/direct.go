package disk

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Reader reads a disk past dom0's page cache (O_DIRECT), so that it sees what
// is on the disk. For a file, and for a loop device without direct I/O, the
// kernel writes what it has cached of the range out first.
type Reader struct {
	f    *os.File
	size int64
}

// OpenReader opens the disk for reading. On filesystems without O_DIRECT
// (tmpfs) it reads through the page cache, which is the disk there.
func (b Backing) OpenReader() (*Reader, error) {
	r, err := openDirect(b.Path, b.Size)
	if err != nil {
		return nil, err
	}
	// A name is not a disk: another one may have got it.
	var st unix.Stat_t
	if err := unix.Fstat(int(r.f.Fd()), &st); err != nil {
		return nil, errors.Join(&os.PathError{Op: "stat", Path: b.Path, Err: err}, r.Close())
	}
	switch {
	case b.device != "" && (st.Mode&unix.S_IFMT != unix.S_IFBLK || deviceNumber(st.Rdev) != b.device),
		b.device == "" && b.File != nil && (st.Dev != b.File.Device || st.Ino != b.File.Inode):
		return nil, errors.Join(fmt.Errorf("%s is another disk than the one that is attached", b.Path), r.Close())
	}
	return r, nil
}

func openDirect(path string, size int64) (*Reader, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_DIRECT, 0)
	if err == unix.EINVAL {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &Reader{f: os.NewFile(uintptr(fd), path), size: size}, nil
}

// Size is the disk's size in bytes.
func (r *Reader) Size() int64 { return r.size }

// ReadAt fills p from byte offset off of the disk.
//
// Preconditions: p is from AlignedBuffer or a page-aligned part of one; off
// and len(p) are multiples of 512.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > r.size {
		return 0, fmt.Errorf("%s: bytes [%d, %d) of %d: %w", r.f.Name(), off, off+int64(len(p)), r.size, io.ErrUnexpectedEOF)
	}
	return r.f.ReadAt(p, off)
}

// Close closes the disk.
func (r *Reader) Close() error { return r.f.Close() }

// Buffer is page-aligned memory, as O_DIRECT asks for.
type Buffer []byte

// AlignedBuffer returns a page-aligned buffer. Free it.
func AlignedBuffer(size int) (Buffer, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("buffer of %d bytes: %w", size, err)
	}
	return b, nil
}

// Free gives the memory back.
func (b Buffer) Free() { _ = unix.Munmap(b) }
