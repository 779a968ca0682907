// Package store writes files that must survive: a crash, a full disk or a lost
// power supply leaves the old content or the new one, never a part of either, and
// what is read is known to be what was written. It knows nothing of what is in
// them.
//
// A file is a line, which names what is inside, the version of its form and a
// checksum, and after it the content. What was written by a newer program is
// refused, not guessed at; a version that is older is handed to whoever can
// migrate it.
package store

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrDamaged is that a file is proved not to be what was written: it was cut off,
// or its checksum is wrong. What merely cannot be read now (no memory, an I/O
// error, no permission) is another error.
var ErrDamaged = errors.New("store: the file is damaged")

// ErrNewer is that a file was written by a newer program.
var ErrNewer = errors.New("store: the file was written by a newer version")

// ErrTooLarge is that a content exceeds the bound of its kind. It is not written.
var ErrTooLarge = errors.New("store: the content is larger than it may be")

// Kind is what is in a file.
type Kind struct {
	// Name has no blanks.
	Name string
	// Version of the content's form, 1 or more.
	Version int
	// Limit bounds the content, in bytes.
	Limit int
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const magic = "warmreboot-store"

// Encode makes the file of a content.
func (k Kind) Encode(body []byte) ([]byte, error) {
	if len(body) > k.Limit {
		return nil, fmt.Errorf("%s of %d bytes, at most %d: %w", k.Name, len(body), k.Limit, ErrTooLarge)
	}
	head := fmt.Sprintf("%s %s %d %d", magic, k.Name, k.Version, len(body))
	return fmt.Appendf(nil, "%s %08x\n%s", head, checksum(head, body), body), nil
}

// checksum is over the line, too: nobody takes one kind for another.
func checksum(head string, body []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(head), castagnoli), castagnoli, body)
}

// Decode returns what is in a file and the version of its form. The error wraps
// ErrDamaged or ErrNewer.
func (k Kind) Decode(raw []byte) (version int, body []byte, err error) {
	line, body, ok := bytes.Cut(raw, []byte("\n"))
	var name string
	var length int
	var sum uint32
	if ok {
		var n int
		n, err = fmt.Sscanf(string(line), magic+" %s %d %d %08x", &name, &version, &length, &sum)
		ok = err == nil && n == 4
	}
	head := fmt.Sprintf("%s %s %d %d", magic, name, version, length)
	switch {
	case !ok:
		return 0, nil, fmt.Errorf("%w: it does not begin as it should", ErrDamaged)
	case string(line) != fmt.Sprintf("%s %08x", head, sum) || checksum(head, body) != sum || len(body) != length:
		return 0, nil, fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
	case name != k.Name:
		return 0, nil, fmt.Errorf("%w: it is %s, not %s", ErrDamaged, name, k.Name)
	case version > k.Version:
		return version, nil, fmt.Errorf("%w: %s of version %d, this program knows up to %d", ErrNewer, name, version, k.Version)
	}
	return version, body, nil
}

// Dir is a folder of such files. Its methods may be called from several
// goroutines, but not for one name at once.
type Dir struct {
	Path string
	// Step, if it is set, is called before each step of a change, with its name.
	// An error of it is taken for one of the step. Tests end the program there.
	Step func(step string) error
}

// Steps are those of Write, in order; Remove has the last one only, twice.
var Steps = []string{"create", "write", "sync", "close", "rename", "sync folder"}

func (d Dir) step(name string, do func() error) error {
	if d.Step != nil {
		if err := d.Step(name); err != nil {
			return err
		}
	}
	return do()
}

const unfinished = ".new"

// Make makes the folder, for root alone, and removes what a crash has left
// unfinished.
func (d Dir) Make() error {
	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		return err
	}
	left, err := d.Names(unfinished)
	if err != nil {
		return err
	}
	for _, name := range left {
		if err := os.Remove(filepath.Join(d.Path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Write replaces a file. When it returns without an error the new content
// survives a crash of the host; with one, the old content is there or, if only the
// last step failed, the new one.
func (d Dir) Write(name string, k Kind, body []byte) error {
	raw, err := k.Encode(body)
	if err != nil {
		return err
	}
	return d.Replace(name, raw)
}

// Replace is Write for a file of another form.
func (d Dir) Replace(name string, raw []byte) (err error) {
	path := filepath.Join(d.Path, name)
	tmp := path + unfinished
	var f *os.File
	err = d.step("create", func() (err error) {
		f, err = os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	err = d.step("write", func() error { _, err := f.Write(raw); return err })
	if err == nil {
		err = d.step("sync", f.Sync)
	}
	// What the file system could not write is told at the latest here.
	if err = errors.Join(err, d.step("close", f.Close)); err == nil {
		err = d.step("rename", func() error { return os.Rename(tmp, path) })
	}
	if err != nil {
		f.Close()
		_ = os.Remove(tmp) // it holds space that may be short
		return err
	}
	return d.step("sync folder", d.Sync)
}

// Sync has what was created, renamed or removed in the folder survive a crash of the host.
func (d Dir) Sync() error {
	f, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Read returns a file's content and the version of its form. The error wraps
// fs.ErrNotExist, ErrDamaged, ErrNewer, or is that of the system.
func (d Dir) Read(name string, k Kind) (version int, body []byte, err error) {
	path := filepath.Join(d.Path, name)
	f, err := os.Open(path)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	const line = 256 // more than the first line has
	raw, err := io.ReadAll(io.LimitReader(f, int64(k.Limit)+line))
	if err != nil {
		return 0, nil, err
	}
	if version, body, err = k.Decode(raw); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return version, body, err
}

// Remove removes a file; that there is none is no error.
func (d Dir) Remove(name string) error {
	err := d.step("remove", func() error { return os.Remove(filepath.Join(d.Path, name)) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return d.step("sync folder", d.Sync)
}

// Names returns the names that end in suffix, in their order.
func (d Dir) Names(suffix string) ([]string, error) {
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) && !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Trim removes the first of the files that end in suffix, until there are most.
func (d Dir) Trim(suffix string, most int) error {
	names, err := d.Names(suffix)
	if err != nil {
		return err
	}
	for ; len(names) > most; names = names[1:] {
		if err := d.Remove(names[0]); err != nil {
			return err
		}
	}
	return nil
}

// asides is how many damaged files of one name are kept.
const asides = 4

// SetAside moves a file that is damaged away, so that nothing writes over it, and
// returns where to. Of several of one name the first and the latest are kept.
func (d Dir) SetAside(name string) (to string, err error) {
	taken := func(n string) bool {
		_, err := os.Lstat(filepath.Join(d.Path, n))
		return !errors.Is(err, fs.ErrNotExist)
	}
	var names []string
	for i := range asides {
		n := name + ".corrupt"
		if i > 0 {
			n += fmt.Sprintf(".%d", i)
		}
		names = append(names, n)
	}
	to = names[len(names)-1]
	if i := slices.IndexFunc(names, func(n string) bool { return !taken(n) }); i >= 0 {
		to = names[i]
	}
	to = filepath.Join(d.Path, to)
	if err := os.Rename(filepath.Join(d.Path, name), to); err != nil {
		return "", err
	}
	return to, d.Sync()
}
