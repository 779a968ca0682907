package disk

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctlBuffer passes a buffer to a device's ioctl, for requests that
// golang.org/x/sys has no wrapper for.
func ioctlBuffer(fd int, request uint, buf []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(unsafe.Pointer(unsafe.SliceData(buf))))
	runtime.KeepAlive(buf)
	if errno != 0 {
		return errno
	}
	return nil
}
