package guest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// folders makes a folder with a served file. unchanged fails the test if that is not
// what it was.
func folders(t *testing.T) (root, work string, unchanged func()) {
	t.Helper()
	root, work = filepath.Join(t.TempDir(), "served"), filepath.Join(t.TempDir(), "work")
	want := bytes.Repeat([]byte("served"), 20_000)
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "file"), want, 0o644); err != nil {
		t.Fatal(err)
	}
	return root, work, func() {
		t.Helper()
		got, err := os.ReadFile(filepath.Join(root, "file"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("a served file was changed: %v", err)
		}
	}
}

func TestWorkLeavesServedFilesAlone(t *testing.T) {
	root, work, unchanged := folders(t)
	inodes, err := Prepare(root, work)
	if err != nil || len(inodes) != 1 {
		t.Fatalf("%v, %v", inodes, err)
	}
	before, err := files(work)
	if err != nil || len(before) != workFiles {
		t.Fatalf("%d files, %v", len(before), err)
	}
	if err := Work(root, work, 1, 300*time.Millisecond, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	unchanged()
}

func TestSee(t *testing.T) {
	root := t.TempDir()
	for name, size := range map[string]int{"empty": 0, "small": 100, "page": 4096, "large": 2<<20 + 17} {
		if err := os.WriteFile(filepath.Join(root, name), make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	unix.Sync()
	seen, err := see(root, 1)
	if err != nil || seen.Files != 1 || len(seen.Differ) != 0 {
		t.Errorf("%+v, %v", seen, err)
	}
}

// TestStress: many do all that there is at once, on the same files, and leave those
// alone that are only read.
func TestStress(t *testing.T) {
	root, work, unchanged := folders(t)
	done, err := Stress(root, work, 1, 500*time.Millisecond, 4)
	if err != nil || done.Operations < 50 || done.Failed > done.Operations/2 {
		t.Errorf("%+v, %v", done, err)
	}
	t.Logf("%+v", done)
	unchanged()
	unix.Sync()
	seen, err := Compare(root + "," + work)
	if err != nil || seen.Files < 10 || len(seen.Differ) != 0 {
		t.Errorf("%+v, %v", seen, err)
	}
}

// TestSurvive: a page of a mapped file that is gone is an error, and another fault
// of a worker's is none.
func TestSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 8192), 0o644); err != nil {
		t.Fatal(err)
	}
	gone := func() error {
		return mapped(path, os.O_RDWR, func(memory []byte) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			memory[4096] = 1
		})
	}
	if err := survive(gone); err == nil {
		t.Error("a page that is gone was written to")
	}
	defer func() {
		if recover() == nil {
			t.Error("a mistake of our own was taken for a page that is gone")
		}
	}()
	_ = survive(func() error { panic("mistake") })
}
