package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestMain fails if the tests leave descriptors open, which may be those of the code.
func TestMain(m *testing.M) {
	before := openFiles()
	code := m.Run()
	for fd, what := range openFiles() {
		if _, ok := before[fd]; !ok && code == 0 {
			fmt.Fprintf(os.Stderr, "descriptor %s is left open: %s\n", fd, what)
			code = 1
		}
	}
	os.Exit(code)
}

// openFiles are the process's, but for those of the runtime and of fuzzing.
func openFiles() map[string]string {
	all := map[string]string{}
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		what, err := os.Readlink(fd)
		if err == nil && what != "anon_inode:[eventpoll]" && what != "anon_inode:[eventfd]" && filepath.Ext(what) != ".out" {
			all[fd] = what
		}
	}
	return all
}
