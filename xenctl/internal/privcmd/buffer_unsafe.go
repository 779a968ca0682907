package privcmd

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poolSize is the size in bytes of the buffers that are kept for reuse.
const poolSize = 4 * 4096

// Buffer is page-aligned memory that Xen may read and write during a
// hypercall without a fault.
type Buffer struct {
	dev *Device
	mem []byte
}

// Alloc returns a zeroed buffer of at least size bytes. Free it.
func (d *Device) Alloc(size int) (*Buffer, error) {
	if size <= poolSize {
		d.mu.Lock()
		if n := len(d.free); n > 0 {
			b := d.free[n-1]
			d.free = d.free[:n-1]
			d.mu.Unlock()
			clear(b.mem)
			return b, nil
		}
		d.mu.Unlock()
		size = poolSize
	}
	size = (size + os.Getpagesize() - 1) &^ (os.Getpagesize() - 1)
	var mem []byte
	var err error
	if d.hypercall != nil {
		mem, err = unix.Mmap(int(d.hypercall.Fd()), 0, size,
			unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	} else {
		mem, err = lockedMemory(size)
	}
	if err != nil {
		return nil, fmt.Errorf("hypercall buffer of %d bytes: %w", size, err)
	}
	return &Buffer{dev: d, mem: mem}, nil
}

// lockedMemory is what libxencall does on kernels without the buffer device.
func lockedMemory(size int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_LOCKED)
	if err != nil {
		return nil, err
	}
	if err := unix.Madvise(mem, unix.MADV_DONTFORK); err != nil {
		_ = unix.Munmap(mem)
		return nil, err
	}
	for i := 0; i < size; i += os.Getpagesize() {
		mem[i] = 0
	}
	return mem, nil
}

// Bytes is the buffer's memory.
func (b *Buffer) Bytes() []byte { return b.mem }

// Addr is the address to pass to Xen.
func (b *Buffer) Addr() uint64 { return uint64(uintptr(unsafe.Pointer(&b.mem[0]))) }

// Free gives the buffer back. It must not be used afterwards.
func (b *Buffer) Free() {
	if len(b.mem) == poolSize {
		b.dev.mu.Lock()
		defer b.dev.mu.Unlock()
		if len(b.dev.free) < 8 {
			b.dev.free = append(b.dev.free, b)
			return
		}
	}
	_ = b.release()
}

func (b *Buffer) release() error {
	mem := b.mem
	b.mem = nil
	return unix.Munmap(mem)
}

// At returns the structure of type T at byte offset off of mem, in place.
//
// Preconditions: T has no pointers; mem is at least as aligned as T at off.
func At[T any](mem []byte, off int) *T {
	var t T
	if off < 0 || off+int(unsafe.Sizeof(t)) > len(mem) {
		panic(fmt.Sprintf("privcmd: %T at %d does not fit %d bytes", t, off, len(mem)))
	}
	return (*T)(unsafe.Pointer(&mem[off]))
}

// Slice returns mem as a slice of T without copying; bytes that do not make a
// whole T are left out.
//
// Preconditions: T has no pointers; mem is page-aligned.
func Slice[T any](mem []byte) []T {
	var t T
	n := len(mem) / int(unsafe.Sizeof(t))
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&mem[0])), n)
}
