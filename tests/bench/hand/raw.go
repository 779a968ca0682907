package hand

import (
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System calls that Go's scheduler is not told of. While one that it knows of lasts
// for longer than 20 µs, it has a thread look at it every 20 µs, at the expense of
// what is measured. Other goroutines have to wait for these: there are none with
// anything to do.

func rawRead(file int, p []byte) (int, error) { return rawCall(syscall.SYS_READ, file, p, 0) }

func rawWrite(file *os.File, p []byte) error {
	n, err := rawCall(syscall.SYS_WRITE, int(file.Fd()), p, 0)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

func rawReadAt(file *os.File, p []byte, at int64) (int, error) {
	return rawCall(syscall.SYS_PREAD64, int(file.Fd()), p, at)
}

func rawSync(file *os.File) error {
	_, err := rawCall(syscall.SYS_FSYNC, int(file.Fd()), nil, 0)
	return err
}

func rawOpen(path string) (int, error) {
	name, err := syscall.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	file, _, errno := syscall.RawSyscall6(syscall.SYS_OPENAT, uintptr(cwd), uintptr(unsafe.Pointer(name)), syscall.O_RDONLY|syscall.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(file), nil
}

func rawLstat(path string, stat *syscall.Stat_t) error {
	name, err := syscall.BytePtrFromString(path)
	if err != nil {
		return err
	}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_NEWFSTATAT, uintptr(cwd), uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(stat)), unix.AT_SYMLINK_NOFOLLOW, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func rawClose(file int) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(file), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// cwd is where relative paths begin; a variable, as no constant below 0 converts.
var cwd = unix.AT_FDCWD

// rawCall makes a call with the arguments of pread(2), or the first of them.
func rawCall(trap uintptr, file int, p []byte, at int64) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(trap, uintptr(file), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(at), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
