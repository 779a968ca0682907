package build

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOverlay lays another package over a stand-in that has a file more.
func TestOverlay(t *testing.T) {
	from, binding := Checkout{Dir: t.TempDir()}, t.TempDir()
	write(t, filepath.Join(from.Dir, "go.mod"), "module toy\n\ngo 1.26.0\n")
	write(t, filepath.Join(from.Dir, "main.go"), "package main\n\nimport \"toy/"+standIn+"\"\n\nfunc main() { println(xenlight.Name) }\n")
	write(t, filepath.Join(from.Dir, standIn, "xenlight.go"), "package xenlight\n\nconst Name = name\n")
	write(t, filepath.Join(from.Dir, standIn, "more.go"), "package xenlight\n\nconst name = \"stand-in\"\n")
	write(t, filepath.Join(binding, "xenlight.go"), "package xenlight\n\nconst Name = \"binding\"\n")
	write(t, filepath.Join(binding, "types.gen.go"), "package xenlight\n\nconst name = 1\n")
	if err := from.overlayXenlight(binding); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ flag, want string }{{"-v=false", "stand-in"}, {"-overlay=" + xenlightOverlay, "binding"}} {
		program := filepath.Join(t.TempDir(), "program")
		build := exec.CommandContext(t.Context(), "go", "build", c.flag, "-buildvcs=false", "-o", program, ".")
		build.Dir = from.Dir
		if err := runQuietly(build); err != nil {
			t.Fatal(err)
		}
		output, err := exec.CommandContext(t.Context(), program).CombinedOutput()
		if got := strings.TrimSpace(string(output)); err != nil || got != c.want {
			t.Errorf("with %s it says %q, %v, want %q", c.flag, got, err, c.want)
		}
	}
}

// TestChange: a long list of fixes that are missing is wrapped.
func TestChange(t *testing.T) {
	if got, want := change("Built from commit 0123."), "  * Built from commit 0123.\n"; got != want {
		t.Errorf("%q", got)
	}
	text := "SECURITY: xen lacks " + strings.Repeat("XSA-509, ", 40) + "XSA-523."
	got := change(text)
	for line := range strings.Lines(got) {
		if n := len(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if words := strings.Fields(got); strings.Join(words[1:], " ") != text {
		t.Errorf("%q", got)
	}
}
