package hand

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// writes are the ways to write, in the order in which they can be run: the
// second and third change what the first has made. Each ends with the data on
// the disk.
var writes = map[string]func(root string, bytes int64) error{
	"write": func(root string, bytes int64) error {
		return writeFile(filepath.Join(root, "file"), os.O_CREATE|os.O_TRUNC, bytes)
	},
	"rewrite": func(root string, bytes int64) error { return writeFile(filepath.Join(root, "file"), 0, bytes) },
	"mmap":    mmapFile,
	"fsync":   fsyncOften,
	"churn":   churn,
}

// Write runs one of them.
func Write(name, root string, bytes int64, disk string) (Result, error) {
	do := writes[name]
	if do == nil {
		return Result{}, fmt.Errorf("unknown way to write %q", name)
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return Result{}, err
	}
	r := Result{Bytes: bytes}
	err := measure(&r, disk, func() error { return do(root, bytes) })
	return r, err
}

func writeFile(path string, flags int, bytes int64) error {
	file, err := os.OpenFile(path, os.O_WRONLY|flags, 0o644)
	if err != nil {
		return err
	}
	buffer := make([]byte, 128<<10)
	for at := int64(0); at < bytes && err == nil; at += int64(len(buffer)) {
		err = rawWrite(file, buffer)
	}
	return errors.Join(err, rawSync(file), file.Close())
}

// mmapFile changes a word in each page of the file that is there.
func mmapFile(root string, bytes int64) error {
	file, err := os.OpenFile(filepath.Join(root, "file"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	memory, err := syscall.Mmap(int(file.Fd()), 0, int(bytes), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	for i := 0; i < len(memory); i += PageSize {
		memory[i]++
	}
	return errors.Join(rawSync(file), syscall.Munmap(memory))
}

// fsyncOften appends page by page, as a log does.
func fsyncOften(root string, bytes int64) error {
	path := filepath.Join(root, "log")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	page := make([]byte, PageSize)
	for at := int64(0); at < bytes && err == nil; at += PageSize {
		err = errors.Join(rawWrite(file, page), rawSync(file))
	}
	return errors.Join(err, file.Close(), os.Remove(path))
}

// churn does what a compilation does to a file system: it writes many small
// files beside their final names, renames them, reads them, and removes them.
func churn(root string, bytes int64) error {
	const each = 12 << 10
	content := make([]byte, each)
	root = filepath.Join(root, "churn")
	for i := range bytes / each {
		path := filepath.Join(root, fileName(i))
		if i%100 == 0 {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
		}
		if err := errors.Join(os.WriteFile(path+".new", content, 0o644), os.Rename(path+".new", path)); err != nil {
			return err
		}
	}
	syscall.Sync()
	for i := range bytes / each {
		if _, err := os.ReadFile(filepath.Join(root, fileName(i))); err != nil {
			return err
		}
	}
	err := os.RemoveAll(root)
	syscall.Sync()
	return err
}
