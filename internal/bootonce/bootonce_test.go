package bootonce

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/ident"
)

// libxl is one that boots a domain by a boot loader.
type libxl struct {
	t     *testing.T
	dir   string
	trial Trial
	next  int
	names []string // what it has stored
}

// boots are what the domain is booted with, and loads it: libxl unlinks the files.
func (l *libxl) boot() (kernel, initrd, args string, code int) {
	l.t.Helper()
	l.next++
	out, dir := filepath.Join(l.dir, fmt.Sprintf("bootloader.%d.out", l.next)), filepath.Join(l.dir, fmt.Sprintf("bootloader.%d.d", l.next))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	argv := append(append([]string{}, l.names...), "--output="+out, "--output-format=simple0", "--output-directory="+dir, l.trial.Dir, "/dev/vdb")
	if !Asked(argv) || Asked([]string{"--state-dir", "/x"}) {
		l.t.Error("it is not known that libxl asks")
	}
	var said bytes.Buffer
	if code = Main(argv, &said); code != 0 {
		if said.Len() == 0 {
			l.t.Error("it failed, and said nothing")
		}
		return "", "", "", code
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, item := range strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00") {
		key, value, _ := strings.Cut(item, " ")
		switch key {
		case "args":
			args = value
			continue
		case "kernel", "ramdisk":
		default:
			l.t.Errorf("libxl does not know %q", item)
		}
		content, err := os.ReadFile(value)
		if err != nil {
			l.t.Fatal(err)
		}
		if err := os.Remove(value); err != nil {
			l.t.Error(err)
		}
		if key == "kernel" {
			kernel = string(content)
		} else {
			initrd = string(content)
		}
	}
	return kernel, initrd, args, 0
}

func newTrial(t *testing.T) *libxl {
	l := &libxl{t: t, dir: t.TempDir(), trial: Trial{filepath.Join(t.TempDir(), "trial")}, next: 6, names: []string{"--kernel=/boot/old", "--args=root=/dev/xvda"}}
	for w, text := range map[Which]string{New: "n", Old: "o"} {
		i := Image{Kernel: filepath.Join(l.dir, text+"-kernel"), Cmdline: "root=" + text}
		if err := os.WriteFile(i.Kernel, []byte(text+"k"), 0o600); err != nil {
			t.Fatal(err)
		}
		if w == New {
			i.Initrd = filepath.Join(l.dir, text+"-initrd")
			if err := os.WriteFile(i.Initrd, []byte(text+"i"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.trial.Keep(w, i); err != nil {
			t.Fatal(err)
		}
		if same, err := l.trial.Same(w, i); err != nil || !same {
			t.Errorf("%v, %v", same, err)
		}
		if err := os.WriteFile(i.Kernel, []byte("another"), 0o600); err != nil {
			t.Fatal(err)
		}
		if same, err := l.trial.Same(w, i); err != nil || same {
			t.Errorf("another kernel: %v, %v", same, err)
		}
		if err := os.Remove(i.Kernel); err != nil { // the operator has
			t.Fatal(err)
		}
		if same, err := l.trial.Same(w, i); err != nil || same {
			t.Errorf("no kernel: %v, %v", same, err)
		}
		if err := l.trial.Keep(w, i); err != nil { // it is kept already
			t.Fatal(err)
		}
	}
	return l
}

func (l *libxl) boots(want map[ident.Domid]Which) {
	l.t.Helper()
	if got, err := l.trial.Boots(); err != nil || !maps.Equal(got, want) {
		l.t.Errorf("booted %v, %v; want %v", got, err, want)
	}
}

// TestOnce: the new image is booted once, the old one ever after, whoever else is there.
func TestOnce(t *testing.T) {
	l := newTrial(t)
	expect := func(kernel, initrd, args string) {
		t.Helper()
		if k, i, a, code := l.boot(); code != 0 || k != kernel || i != initrd || a != args {
			t.Errorf("%q %q %q, code %d; want %q %q %q", k, i, a, code, kernel, initrd, args)
		}
	}
	armed := func(want bool) {
		t.Helper()
		if got, err := l.trial.Armed(); err != nil || got != want {
			t.Errorf("armed: %v, %v", got, err)
		}
	}
	l.boots(map[ident.Domid]Which{})
	armed(false)
	expect("ok", "", "root=o") // it is not armed yet
	if err := l.trial.Arm(); err != nil {
		t.Fatal(err)
	}
	armed(true)
	expect("nk", "ni", "root=n")
	armed(false)
	for range 3 {
		expect("ok", "", "root=o")
	}
	if err := l.trial.Arm(); err != nil { // whoever did so before was killed
		t.Fatal(err)
	}
	armed(false)
	expect("ok", "", "root=o")
	l.boots(map[ident.Domid]Which{7: Old, 8: New, 9: Old, 10: Old, 11: Old, 12: Old})

	l = newTrial(t)
	if err := l.trial.Arm(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.trial.Disarm(); err != nil {
			t.Fatal(err)
		}
	}
	expect("ok", "", "root=o")
}

// TestHostBooted: what was armed before the host was booted is the old kernel's boot:
// libvirt starts domains then, and nobody looks after a trial.
func TestHostBooted(t *testing.T) {
	was := bootID
	defer func() { bootID = was }()
	bootID = filepath.Join(t.TempDir(), "boot_id")
	boot := func(id string) {
		if err := os.WriteFile(bootID, []byte(id+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	boot("a")
	l := newTrial(t)
	if err := l.trial.Arm(); err != nil {
		t.Fatal(err)
	}
	boot("b")
	if armed, err := l.trial.Armed(); armed || err != nil {
		t.Errorf("armed: %v, %v", armed, err)
	}
	if k, _, _, code := l.boot(); code != 0 || k != "ok" {
		t.Errorf("it boots %q, code %d", k, code)
	}
	l.boots(map[ident.Domid]Which{7: Old})
	if err := os.Remove(bootID); err != nil {
		t.Fatal(err)
	}
	if k, _, _, code := l.boot(); code != 0 || k != "ok" {
		t.Errorf("where nobody says which boot it is: it boots %q, code %d", k, code)
	}
	if err := l.trial.Arm(); err == nil {
		t.Error("it was armed for no boot")
	}
}

// TestNewIsLost: a new image that cannot be had leads to the old one, in the same boot.
func TestNewIsLost(t *testing.T) {
	for _, lose := range []string{"new/kernel", "new/cmdline", "new"} {
		l := newTrial(t)
		if err := l.trial.Arm(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(l.trial.Dir, lose)); err != nil {
			t.Fatal(err)
		}
		if k, _, a, code := l.boot(); code != 0 || k != "ok" || a != "root=o" {
			t.Errorf("without %s: %q %q, code %d", lose, k, a, code)
		}
		l.boots(map[ident.Domid]Which{7: Old})
	}
	l := newTrial(t)
	if err := os.RemoveAll(l.trial.Dir); err != nil {
		t.Fatal(err)
	}
	if _, _, _, code := l.boot(); code != 1 {
		t.Errorf("without the trial: code %d", code)
	}
	for _, args := range [][]string{nil, {"--output=/x", "--output-directory=/bootloader.7.d"}, {"--output=/x", "--output-directory=/y", "a", "b"},
		{"--output=/x", "--output-directory=/bootloader.70000.d", "a", "b"}} {
		if Main(args, &bytes.Buffer{}) != 1 {
			t.Errorf("%q", args)
		}
	}
}

// TestElsewhere: where there is no trial, as the domain has moved to another host, or
// somebody has removed the copies, it boots what its configuration names, and that stays.
func TestElsewhere(t *testing.T) {
	for _, lose := range []string{"", "old", "old/kernel"} {
		l := newTrial(t)
		kernel, initrd := filepath.Join(l.dir, "stored"), filepath.Join(l.dir, "stored-initrd")
		for path, text := range map[string]string{kernel: "sk", initrd: "si"} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l.names = []string{"--kernel=" + kernel, "--ramdisk=" + initrd, "--args=root=s q=\"--x=y\""}
		if err := os.RemoveAll(filepath.Join(l.trial.Dir, lose)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if k, i, a, code := l.boot(); code != 0 || k != "sk" || i != "si" || a != "root=s q=\"--x=y\"" {
				t.Errorf("without %q: %q %q %q, code %d", lose, k, i, a, code)
			}
		}
	}
}

// TestCutOff: a line of which only a part was written is none.
func TestCutOff(t *testing.T) {
	l := newTrial(t)
	if err := os.WriteFile(filepath.Join(l.trial.Dir, bootsName), []byte("7 new\n8 old\n9 ol"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.boots(map[ident.Domid]Which{7: New, 8: Old})
	if err := l.trial.Keep(New, Image{Kernel: "/nowhere"}); err != nil {
		t.Error(err)
	}
	gone := Trial{t.TempDir()}
	if err := gone.Keep(New, Image{Kernel: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("what is not there was kept")
	}
	if left, _ := os.ReadDir(gone.Dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
