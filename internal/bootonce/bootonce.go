// Package bootonce is what libxl runs before each boot of a domain whose new kernel is
// on trial, as its boot loader: it hands out the new kernel once, and the old one ever
// after. That needs no daemon. What it has handed out, and to which domain, is written
// down in the trial's folder.
//
// A configuration that is changed between two boots, while somebody who does so is
// alive, leaves a time in which the new kernel runs and a crash leads to it again.
// Here there is none: that it is tried is entered before libxl hears of it.
package bootonce

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/store"
)

// Image is what a domain boots: files of dom0; Initrd may be "".
type Image struct {
	Kernel, Initrd string
	Cmdline        string
}

// Which names one of the two images of a trial.
type Which string

// Both of them.
const (
	New Which = "new"
	Old Which = "old"
)

// Trial is a folder with both images, which are copies: nobody else removes them.
type Trial struct{ Dir string }

func (t Trial) folder() store.Dir { return store.Dir{Path: t.Dir} }

const (
	kernelName, initrdName, cmdlineName = "kernel", "initrd", "cmdline"
	armedName, triedName, bootsName     = "armed", "tried", "boots"
)

// Image is one of the trial's own copies.
func (t Trial) Image(w Which) (Image, error) {
	dir := filepath.Join(t.Dir, string(w))
	line, err := os.ReadFile(filepath.Join(dir, cmdlineName))
	if err != nil {
		return Image{}, err
	}
	i := Image{Kernel: filepath.Join(dir, kernelName), Initrd: filepath.Join(dir, initrdName), Cmdline: string(line)}
	if _, err := os.Stat(i.Initrd); errors.Is(err, fs.ErrNotExist) {
		i.Initrd = ""
	} else if err != nil {
		return Image{}, err
	}
	return i, nil
}

// Keep copies an image into the trial, whole or not at all, unless it has one already.
// The files of the given image may be removed afterwards.
func (t Trial) Keep(w Which, i Image) error {
	dir := filepath.Join(t.Dir, string(w))
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	tmp := dir + ".part"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	err := copyFile(filepath.Join(tmp, kernelName), i.Kernel)
	if err == nil && i.Initrd != "" {
		err = copyFile(filepath.Join(tmp, initrdName), i.Initrd)
	}
	if err == nil {
		err = writeFile(filepath.Join(tmp, cmdlineName), i.Cmdline, os.O_TRUNC)
	}
	if err == nil {
		err = store.Dir{Path: tmp}.Sync()
	}
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err == nil {
		err = t.folder().Sync()
	}
	if err != nil {
		_ = os.RemoveAll(tmp)
	}
	return err
}

// Same reports whether the files of an image are still what the trial has of it.
func (t Trial) Same(w Which, i Image) (bool, error) {
	own, err := t.Image(w)
	if err != nil {
		return false, err
	}
	for _, pair := range [][2]string{{own.Kernel, i.Kernel}, {own.Initrd, i.Initrd}} {
		if (pair[0] == "") != (pair[1] == "") {
			return false, nil
		}
		if pair[0] == "" {
			continue
		}
		same, err := equal(pair[0], pair[1])
		if !same || err != nil {
			return false, err
		}
	}
	return own.Cmdline == i.Cmdline, nil
}

// bootID is a file that says which boot of the host it is.
var bootID = "/proc/sys/kernel/random/boot_id"

// Arm has the next boot be the new kernel's, the first time that it is called, unless
// the host is booted before: whoever starts domains then looks after no trial.
func (t Trial) Arm() error {
	if _, err := os.Stat(filepath.Join(t.Dir, triedName)); err == nil {
		return nil
	}
	boot, err := os.ReadFile(bootID)
	if err != nil {
		return err
	}
	return t.folder().Replace(armedName, boot)
}

// Disarm has all boots be the old kernel's.
func (t Trial) Disarm() error { return t.folder().Remove(armedName) }

// Armed reports whether the new kernel has not been tried yet, and would be.
func (t Trial) Armed() (bool, error) {
	armed, err := os.ReadFile(filepath.Join(t.Dir, armedName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	boot, err := os.ReadFile(bootID)
	return err == nil && bytes.Equal(armed, boot), err
}

// Boots are which image each domain was given that was built since.
func (t Trial) Boots() (map[ident.Domid]Which, error) {
	boots := map[ident.Domid]Which{}
	raw, err := os.ReadFile(filepath.Join(t.Dir, bootsName))
	if errors.Is(err, fs.ErrNotExist) {
		return boots, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(raw)) {
		id, which, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		n, err := strconv.ParseUint(id, 10, 16)
		if !ok || err != nil || which != string(New) && which != string(Old) {
			continue // its writer was killed
		}
		boots[ident.Domid(n)] = Which(which)
	}
	return boots, nil
}

// take says which image the next domain is given, and enters that.
func (t Trial) take(domid ident.Domid) (Which, error) {
	armed, err := t.Armed()
	if err != nil {
		return Old, err
	}
	if !armed {
		return Old, t.enter(domid, Old)
	}
	// Of two that are called at once one has it.
	switch err := os.Rename(filepath.Join(t.Dir, armedName), filepath.Join(t.Dir, triedName)); {
	case errors.Is(err, fs.ErrNotExist):
		return Old, t.enter(domid, Old)
	case err != nil:
		return Old, err
	}
	if err := t.folder().Sync(); err != nil {
		return Old, err
	}
	return New, t.enter(domid, New)
}

func (t Trial) enter(domid ident.Domid, w Which) error {
	return writeFile(filepath.Join(t.Dir, bootsName), fmt.Sprintf("%d %s\n", domid, w), os.O_APPEND)
}

// Asked reports whether a program was called as libxl calls a boot loader.
func Asked(args []string) bool {
	for _, a := range args {
		if a == format {
			return true
		}
	}
	return false
}

const format = "--output-format=simple0"

// folder is the name of the folder that libxl makes for what a boot loader brings.
var folder = regexp.MustCompile(`^bootloader\.([0-9]+)\.d$`)

// Main is the boot loader: called as pygrub is, with the trial's folder before the
// disk, which it does not touch. libxl loads the files that it names, and unlinks them.
// It returns the exit code; anything but 0 fails the boot, and nobody tries another, so
// that whatever is wrong with the new image leads to the old one, and whatever is wrong
// with the copy of that to the file which the domain's configuration names. So a domain
// boots that has moved to a host where the trial is not.
func Main(args []string, stderr io.Writer) int {
	if err := load(args); err != nil {
		fmt.Fprintf(stderr, "warmreboot: kernel on trial: %v\n", err)
		return 1
	}
	return 0
}

func load(args []string) error {
	var output, dir string
	var rest []string
	var stored Image
	for _, a := range args {
		switch name, value, _ := strings.Cut(a, "="); {
		case name == "--output":
			output = value
		case name == "--output-directory":
			dir = value
		case name == "--kernel":
			stored.Kernel = value
		case name == "--ramdisk":
			stored.Initrd = value
		case name == "--args":
			stored.Cmdline = value
		case !strings.HasPrefix(a, "--"):
			rest = append(rest, a)
		}
	}
	if output == "" || dir == "" || len(rest) != 2 {
		return fmt.Errorf("%q: is this libxl?", args)
	}
	found := folder.FindStringSubmatch(filepath.Base(dir))
	if found == nil {
		return fmt.Errorf("%s: no domid in it", dir)
	}
	domid, err := strconv.ParseUint(found[1], 10, 16)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	t := Trial{rest[0]}
	w, bad := t.take(ident.Domid(domid))
	text, err := t.hand(w, dir)
	if w == New && (bad != nil || err != nil) {
		bad = errors.Join(bad, err)
		_ = t.enter(ident.Domid(domid), Old) // the last line counts
		text, err = t.hand(Old, dir)
	}
	if err != nil && stored.Kernel != "" {
		bad = errors.Join(bad, err)
		text, err = stored.hand(dir)
	}
	if err == nil {
		err = os.WriteFile(output, text, 0o600)
	}
	if err != nil {
		return errors.Join(bad, err)
	}
	return nil
}

func (t Trial) hand(w Which, dir string) ([]byte, error) {
	i, err := t.Image(w)
	if err != nil {
		return nil, err
	}
	return i.hand(dir)
}

// hand puts an image where libxl may unlink it, and says so in its format.
func (i Image) hand(dir string) ([]byte, error) {
	var text bytes.Buffer
	for _, f := range []struct{ key, path string }{{"kernel", i.Kernel}, {"ramdisk", i.Initrd}} {
		if f.path == "" {
			continue
		}
		to := filepath.Join(dir, filepath.Base(f.path))
		if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if os.Link(f.path, to) != nil { // another file system
			if err := copyFile(to, f.path); err != nil {
				return nil, err
			}
		}
		fmt.Fprintf(&text, "%s %s\x00", f.key, to)
	}
	fmt.Fprintf(&text, "args %s\x00", i.Cmdline)
	return text.Bytes(), nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

func writeFile(path, text string, how int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|how, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// equal compares two files. One that is not there any more equals none.
func equal(a, b string) (bool, error) {
	x, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := os.Open(b)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer y.Close()
	const chunk = 1 << 16
	p, q := make([]byte, chunk), make([]byte, chunk)
	for {
		n, err := io.ReadFull(x, p)
		m, other := io.ReadFull(y, q)
		if !bytes.Equal(p[:n], q[:m]) {
			return false, nil
		}
		ended := func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
		switch {
		case ended(err) && ended(other):
			return true, nil
		case err != nil && !ended(err):
			return false, err
		case other != nil && !ended(other):
			return false, other
		}
	}
}
