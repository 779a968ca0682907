package toolstack

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestWriteConfig: a file is replaced as a whole, and is else what it was.
func TestWriteConfig(t *testing.T) {
	old := Kernel{File: "/boot/old", Initrd: "/boot/old-initrd", Cmdline: `root=/dev/xvda quiet="1"`}
	next := old
	next.File = "/boot/new"
	dir := t.TempDir()
	path, link := filepath.Join(dir, "web.cfg"), filepath.Join(t.TempDir(), "web")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(path, []byte(webConfig), 0o600))
	must(os.Chmod(path, 0o640))
	must(os.Symlink(path, link))
	root := os.Geteuid() == 0
	if root {
		must(os.Chown(path, 12, 34))
	}
	attributed := syscall.Setxattr(path, "user.of", []byte("the wiki"), 0) == nil
	must(os.WriteFile(filepath.Join(dir, ".web.cfg.warmreboot"), []byte("of one that was killed"), 0o600))
	must(CanWriteConfig(link, webDomain, old, next))
	for range 2 { // the second time there is nothing to do
		must(WriteConfig(link, webDomain, old, next))
		raw, err := os.ReadFile(path)
		must(err)
		if want := strings.Replace(webConfig, "'/boot/old'", `"/boot/new"`, 1); string(raw) != want {
			t.Errorf("%s", raw)
		}
	}
	st, err := os.Lstat(path)
	must(err)
	if st.Mode() != 0o640 {
		t.Errorf("its mode is %v", st.Mode())
	}
	if stat := st.Sys().(*syscall.Stat_t); root && (stat.Uid != 12 || stat.Gid != 34) {
		t.Errorf("it is of %d:%d", stat.Uid, stat.Gid)
	}
	value := make([]byte, 20)
	if n, err := syscall.Getxattr(path, "user.of", value); attributed && (err != nil || string(value[:n]) != "the wiki") {
		t.Errorf("its attribute is %q, %v", value[:max(n, 0)], err)
	}
	if to, err := os.Readlink(link); err != nil || to != path {
		t.Errorf("the link is %q, %v", to, err)
	}

	// What is not plain is left alone.
	same := func(what, says string) {
		t.Helper()
		before, err := os.ReadFile(path)
		must(err)
		for _, do := range []func(string, Domain, Kernel, Kernel) error{CanWriteConfig, WriteConfig} {
			if err := do(link, webDomain, old, Kernel{File: "/boot/third", Initrd: old.Initrd, Cmdline: old.Cmdline}); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
			t.Errorf("%s: it was changed, %v", what, err)
		}
		if names, _ := os.ReadDir(dir); len(names) > 2 {
			t.Errorf("%s: left %v", what, names)
		}
	}
	same("another kernel", `kernel is "/boot/new"`)
	must(os.WriteFile(path, []byte(webConfig), 0o640))
	must(os.Link(path, filepath.Join(dir, "x")))
	same("two names", "2 names")
	must(os.Remove(filepath.Join(dir, "x")))
	read, err := openConfig(path)
	must(err)
	must(os.WriteFile(path, []byte("# more\n"+webConfig), 0o640))
	if err := read.unchanged(); err == nil {
		t.Error("a change while it is written is not seen")
	}
	must(os.Remove(path))
	must(os.Mkdir(path, 0o700))
	if err := CanWriteConfig(link, webDomain, old, next); err == nil || !strings.Contains(err.Error(), "no file") {
		t.Errorf("a folder: %v", err)
	}
}
