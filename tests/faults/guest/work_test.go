package guest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWorkLeavesServedFilesAlone(t *testing.T) {
	root, work := filepath.Join(t.TempDir(), "served"), filepath.Join(t.TempDir(), "work")
	want := bytes.Repeat([]byte("served"), 20_000)
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "file"), want, 0o644); err != nil {
		t.Fatal(err)
	}
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
	got, err := os.ReadFile(filepath.Join(root, "file"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("a served file was changed: %v", err)
	}
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
