// Package inmemory has tests keep their files in memory, where that is possible: a disk
// that others use, too, would be waited for at each of some thousand syncs.
package inmemory

import (
	"os"
	"testing"
)

// Main is what TestMain does.
func Main(m *testing.M) {
	dir, err := os.MkdirTemp("/dev/shm", "test")
	if err == nil {
		err = os.Setenv("TMPDIR", dir)
	}
	code := m.Run()
	if err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}
