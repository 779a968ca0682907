package privcmd

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

type mmapBatchArg struct {
	num  uint32
	dom  uint16
	_    uint16
	addr uint64
	arr  *uint64
	err  *int32
}

type mmapResourceArg struct {
	dom  uint16
	_    uint16
	typ  uint32
	id   uint32
	idx  uint32
	num  uint64
	addr uint64
}

// Mapping is memory of Xen or of another domain, mapped read-only.
type Mapping struct {
	mem []byte
}

// Bytes is the mapped memory; writing to it is a fault. It may change under
// the reader.
func (m *Mapping) Bytes() []byte { return m.mem }

// Close unmaps. Slices of the memory must not be used afterwards.
func (m *Mapping) Close() error {
	if m.mem == nil {
		return nil
	}
	mem := m.mem
	m.mem = nil
	return unix.Munmap(mem)
}

// ResourceSize returns the number of frames of a resource.
func (d *Device) ResourceSize(domid uint16, typ, id uint32) (uint64, error) {
	a := mmapResourceArg{dom: domid, typ: typ, id: id}
	if err := d.mmapResource(&a); err != nil {
		return 0, err
	}
	return a.num, nil
}

// MapResource maps frames frames of a resource from frame first, read-only.
func (d *Device) MapResource(domid uint16, typ, id uint32, first uint32, frames uint64) (*Mapping, error) {
	m, err := d.reserve(frames)
	if err != nil {
		return nil, err
	}
	a := mmapResourceArg{dom: domid, typ: typ, id: id, idx: first, num: frames,
		addr: uint64(uintptr(unsafe.Pointer(&m.mem[0])))}
	if err := d.mmapResource(&a); err != nil {
		_ = m.Close()
		return nil, err
	}
	return m, nil
}

func (d *Device) mmapResource(a *mmapResourceArg) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.privcmd.Fd(), ioctlMmapResource,
		uintptr(unsafe.Pointer(a)))
	runtime.KeepAlive(a)
	runtime.KeepAlive(d.privcmd)
	if errno != 0 {
		return errno
	}
	return nil
}

// MapForeign maps the frames gfns of a domain side by side, read-only. errs
// has an errno (positive, 0 for none) for each of them; reading a page whose
// errno is not 0 is a fault.
func (d *Device) MapForeign(domid uint16, gfns []uint64) (m *Mapping, errs []unix.Errno, err error) {
	if len(gfns) == 0 {
		return &Mapping{}, nil, nil
	}
	m, err = d.reserve(uint64(len(gfns)))
	if err != nil {
		return nil, nil, err
	}
	raw := make([]int32, len(gfns))
	a := mmapBatchArg{num: uint32(len(gfns)), dom: domid,
		addr: uint64(uintptr(unsafe.Pointer(&m.mem[0]))), arr: &gfns[0], err: &raw[0]}
	var pin runtime.Pinner
	pin.Pin(&gfns[0])
	pin.Pin(&raw[0])
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.privcmd.Fd(), ioctlMmapBatchV2,
		uintptr(unsafe.Pointer(&a)))
	pin.Unpin()
	runtime.KeepAlive(&a)
	runtime.KeepAlive(d.privcmd)
	// ENOENT only says that some frame failed with it (paged out).
	if errno != 0 && errno != unix.ENOENT {
		_ = m.Close()
		return nil, nil, errno
	}
	errs = make([]unix.Errno, len(raw))
	for i, e := range raw {
		if e < 0 {
			errs[i] = unix.Errno(-e)
		} else if e > 0 {
			errs[i] = unix.EIO
		}
	}
	return m, errs, nil
}

// reserve makes the address range that an ioctl fills. The range never has
// write permission, so neither has the mapping that Xen is asked for.
func (d *Device) reserve(frames uint64) (*Mapping, error) {
	size := frames * uint64(os.Getpagesize())
	if frames == 0 || size/uint64(os.Getpagesize()) != frames || size > 1<<46 {
		return nil, fmt.Errorf("mapping of %d frames: %w", frames, unix.EINVAL)
	}
	mem, err := unix.Mmap(int(d.privcmd.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &Mapping{mem: mem}, nil
}
