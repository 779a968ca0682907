package privcmd

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Paths of the devices. The second name of each is that of older kernels.
var (
	privcmdPaths   = []string{"/dev/xen/privcmd", "/proc/xen/privcmd"}
	hypercallPaths = []string{"/dev/xen/hypercall"}
)

// ioctl numbers of linux/include/uapi/xen/privcmd.h: _IOC(_IOC_NONE, 'P', nr, size).
const (
	ioctlHypercall    = uintptr(unsafe.Sizeof(hypercallArg{}))<<16 | 'P'<<8
	ioctlMmapBatchV2  = uintptr(unsafe.Sizeof(mmapBatchArg{}))<<16 | 'P'<<8 | 4
	ioctlMmapResource = uintptr(unsafe.Sizeof(mmapResourceArg{}))<<16 | 'P'<<8 | 7
)

type hypercallArg struct {
	op  uint64
	arg [5]uint64
}

// Device is an open privcmd. Its methods may be called concurrently.
type Device struct {
	privcmd *os.File
	// hypercall is nil on kernels without /dev/xen/hypercall: buffers are
	// then locked anonymous memory.
	hypercall *os.File

	mu   sync.Mutex
	free []*Buffer // of poolSize bytes each
}

// Open opens the devices. The error satisfies errors.Is(err, fs.ErrNotExist)
// where this is not a Xen dom0.
func Open() (*Device, error) {
	p, err := openFirst(privcmdPaths)
	if err != nil {
		return nil, err
	}
	h, err := openFirst(hypercallPaths)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.Close()
		return nil, err
	}
	return &Device{privcmd: p, hypercall: h}, nil
}

func openFirst(paths []string) (*os.File, error) {
	var first error
	for _, path := range paths {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), path), nil
		}
		if first == nil {
			first = &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
	return nil, first
}

// Close closes the devices. Mappings made earlier stay valid.
func (d *Device) Close() error {
	d.mu.Lock()
	for _, b := range d.free {
		_ = b.release()
	}
	d.free = nil
	d.mu.Unlock()
	if d.hypercall != nil {
		d.hypercall.Close()
	}
	return d.privcmd.Close()
}

// Hypercall makes hypercall op. Arguments that are addresses must be those of
// a Buffer, which the caller must keep until the call returns. It returns
// what Xen returned; the error is a unix.Errno.
func (d *Device) Hypercall(op uint64, args ...uint64) (int64, error) {
	c := hypercallArg{op: op}
	if len(args) > len(c.arg) {
		return 0, fmt.Errorf("hypercall %d: %d arguments", op, len(args))
	}
	copy(c.arg[:], args)
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, d.privcmd.Fd(), ioctlHypercall,
		uintptr(unsafe.Pointer(&c)))
	runtime.KeepAlive(&c)
	runtime.KeepAlive(d.privcmd)
	if errno != 0 {
		return 0, errno
	}
	return int64(r), nil
}
