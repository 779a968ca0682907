package hand

import (
	"os"
	"syscall"
	"unsafe"
)

// System calls that Go's scheduler is not told of. It would have a thread look
// after each that takes longer than 20 µs, every 20 µs, at the expense of what is
// measured; other goroutines, of which there are none with anything to do,
// have to wait for these.

func rawRead(file int, p []byte) (int, error) { return rawCall(syscall.SYS_READ, file, p, 0) }

func rawWrite(file *os.File, p []byte) error {
	n, err := rawCall(syscall.SYS_WRITE, int(file.Fd()), p, 0)
	if err == nil && n < len(p) {
		err = syscall.ENOSPC
	}
	return err
}

func rawReadAt(file *os.File, p []byte, at int64) (int, error) {
	return rawCall(syscall.SYS_PREAD64, int(file.Fd()), p, at)
}

func rawSync(file *os.File) error {
	_, err := rawCall(syscall.SYS_FSYNC, int(file.Fd()), []byte{0}, 0)
	return err
}

// rawCall makes a call with the arguments of pread(2), or the first of them.
func rawCall(trap uintptr, file int, p []byte, at int64) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(trap, uintptr(file), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), uintptr(at), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
