package toolstack

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// configTarget is a file that is to be replaced.
type configTarget struct {
	path string // without links
	was  fs.FileInfo
	raw  []byte
}

func openConfig(path string) (t configTarget, err error) {
	if t.path, err = filepath.EvalSymlinks(path); err != nil {
		return t, err
	}
	if t.was, err = os.Lstat(t.path); err != nil {
		return t, err
	}
	if !t.was.Mode().IsRegular() {
		return t, fmt.Errorf("%s is no file", t.path)
	}
	if stat := t.was.Sys().(*syscall.Stat_t); stat.Nlink != 1 {
		return t, fmt.Errorf("%s has %d names (hard links), and would be changed under one of them only", t.path, stat.Nlink)
	}
	t.raw, err = os.ReadFile(t.path)
	return t, err
}

// CanWriteConfig returns why WriteConfig would fail, as far as can be told without
// changing anything.
func CanWriteConfig(path string, d Domain, old, new Kernel) error {
	t, err := openConfig(path)
	if err != nil {
		return err
	}
	if _, err := ConfigWithKernel(t.raw, d, old, new); err != nil {
		return err
	}
	const write = 2 // W_OK
	dir := filepath.Dir(t.path)
	if err := syscall.Access(dir, write); err != nil {
		return fmt.Errorf("%s cannot be written to: %w; if that is the service's own restriction: systemctl edit warmrebootd, with ReadWritePaths=%s below [Service]", dir, err, dir)
	}
	return nil
}

// WriteConfig has a configuration of xl's name another kernel of a domain, see
// ConfigWithKernel. The file is replaced as a whole, with its mode, owner and extended
// attributes; with an error it is what it was.
func WriteConfig(path string, d Domain, old, new Kernel) error {
	t, err := openConfig(path)
	if err != nil {
		return err
	}
	raw, err := ConfigWithKernel(t.raw, d, old, new)
	if err != nil || bytes.Equal(raw, t.raw) {
		return err
	}
	dir, name := filepath.Split(t.path)
	next := dir + "." + name + ".warmreboot" // of one that was killed, too: nobody else uses the name
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err == nil {
		err = t.dress(f)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = t.unchanged()
	}
	if err == nil {
		err = os.Rename(next, t.path)
	}
	if err != nil {
		_ = os.Remove(next)
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// unchanged returns an error if somebody has written to the file since it was read.
func (t configTarget) unchanged() error {
	now, err := os.Lstat(t.path)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(t.path)
	if err == nil && (!os.SameFile(now, t.was) || !bytes.Equal(raw, t.raw)) {
		err = fmt.Errorf("somebody is changing %s just now", t.path)
	}
	return err
}

// dress gives a new file what the old one has beside its content.
func (t configTarget) dress(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	was, is := t.was.Sys().(*syscall.Stat_t), st.Sys().(*syscall.Stat_t)
	if was.Uid != is.Uid || was.Gid != is.Gid {
		if err := f.Chown(int(was.Uid), int(was.Gid)); err != nil {
			return fmt.Errorf("its owner, %d:%d, cannot be kept: %w", was.Uid, was.Gid, err)
		}
	}
	if err := f.Chmod(t.was.Mode()); err != nil {
		return err
	}
	from, err := os.OpenFile(t.path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	names, err := attributes(func(p []byte) (int, error) { return syscall.Listxattr(byDescriptor(from), p) })
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value, err := attributes(func(p []byte) (int, error) { return syscall.Getxattr(byDescriptor(from), name, p) })
		if err == nil {
			err = syscall.Setxattr(byDescriptor(f), name, value, 0)
		}
		if err != nil {
			return fmt.Errorf("its attribute %s cannot be kept: %w", name, err)
		}
	}
	return nil
}

// byDescriptor returns a path of an open file that nobody can exchange.
func byDescriptor(f *os.File) string {
	return fmt.Sprintf("/proc/self/fd/%d", f.Fd())
}

// attributes reads what is asked for its size first; nothing where a file system has none.
func attributes(read func([]byte) (int, error)) ([]byte, error) {
	n, err := read(nil)
	if n <= 0 || err != nil {
		if errors.Is(err, syscall.ENOTSUP) {
			err = nil
		}
		return nil, err
	}
	p := make([]byte, n)
	n, err = read(p)
	return p[:max(n, 0)], err
}
