package hypercall

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// The handlers are compiled for ThreadSanitizer, the model is not; see
// harness/races.h. What is volatile there is not taken for an access.
var (
	raceFlags     = []string{"-fsanitize=thread", "-mllvm", "-tsan-distinguish-volatile=1"}
	raceModel     = []string{"cpu", "memory", "operations", "scenario", "cases", "standalone"}
	withoutRaces  = []string{"-fsanitize", "-fno-sanitize", "-fprofile", "-fcoverage"}
	raceReport    = regexp.MustCompile(`(?m)^WARNING: ThreadSanitizer: .*`)
	raceSummary   = regexp.MustCompile(`(?m)^SUMMARY: ThreadSanitizer: .*`)
	raceBuildName = "handlers-races"
)

// races returns the folder with the program "races".
func (b bench) races(t *testing.T) string {
	t.Helper()
	dir, err := b.cache.Entry(t.Context(), raceBuildName, build.KeyOf(raceBuildName+" 1", b.key, raceFlags), func(ctx context.Context, dir string) error {
		if err := b.prepare(ctx, dir); err != nil {
			return err
		}
		for _, name := range raceModel {
			if err := b.compileRaces(ctx, dir, name, "-fno-builtin"); err != nil {
				return err
			}
		}
		return b.linkRaces(ctx, dir)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (b bench) compileRaces(ctx context.Context, dir, name string, flags ...string) error {
	plain := slices.DeleteFunc(slices.Clone(compilerFlags), func(flag string) bool {
		return slices.ContainsFunc(withoutRaces, func(prefix string) bool { return strings.HasPrefix(flag, prefix) })
	})
	return b.tools.Run(ctx, dir, slices.Concat([]string{"clang-19"}, plain, []string{"-DRACES"}, flags, []string{"-c", "harness/" + name + ".c", "-o", name + ".o"})...)
}

// linkRaces compiles the handlers and links the program.
func (b bench) linkRaces(ctx context.Context, dir string) error {
	if err := b.compileRaces(ctx, dir, "handlers", raceFlags...); err != nil {
		return err
	}
	args := []string{"clang-19", "-fsanitize=thread", "-o", "races", "handlers.o"}
	for _, name := range raceModel {
		args = append(args, name+".o")
	}
	return b.tools.Run(ctx, dir, args...)
}

// lookForRaces runs the program until ThreadSanitizer has something to report.
func (b bench) lookForRaces(ctx context.Context, dir string, args ...string) (string, error) {
	command := b.tools.Command(ctx, dir, append([]string{"./races"}, args...)...)
	command.Env = append(command.Env, "TSAN_OPTIONS=halt_on_error=1")
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	err := command.Run()
	return output.String(), err
}

// TestRaces: of what the handlers share between processors nothing is accessed by two
// without something that orders the one before the other. ThreadSanitizer is told of
// locks and of whatever else orders things, and not of how the harness interleaves its
// CPUs: so a race is found wherever the two accesses are made, however far apart.
func TestRaces(t *testing.T) {
	b := newBench(t)
	dir := b.races(t)
	for name, args := range map[string][]string{"scenario": {"scenarios"}, "cases": {"cases"}, "seeds": {"random", "1", strconv.Itoa(*runs), "0"}} {
		t.Run(name, func(t *testing.T) {
			output, err := b.lookForRaces(t.Context(), dir, args...)
			if err != nil || raceReport.MatchString(output) {
				t.Errorf("%v\n%s", err, output)
			}
		})
	}
}

// unlocked are mistakes of locking that nothing asserts, and a function that has to be
// in what is reported.
var unlocked = []struct {
	variant
	where string
}{
	{variant{name: "the status is copied without the lock", file: "warmcache.c",
		old: "        spin_lock(&wc->lock);\n        st = wc->st;\n        st.version = XEN_WARMCACHE_VERSION;\n        st.flags",
		new: "        st = wc->st;\n        st.version = XEN_WARMCACHE_VERSION;\n        spin_lock(&wc->lock);\n        st.flags"}, "wc_status"},
	{variant{name: "counted after the lock is released", file: "warmcache.c",
		old: "    wc->st.registered += tracked;\n    wc->st.untrackable += untrackable;\n    spin_unlock(&wc->lock);\n",
		new: "    spin_unlock(&wc->lock);\n    wc->st.registered += tracked;\n    wc->st.untrackable += untrackable;\n"}, "wc_register"},
	{variant{name: "a page is looked up in an image without its lock", file: "warmcache-image.c",
		old: "    bool found = false;\n\n    spin_lock(&image_lock);\n\n    img = wc->image;\n", new: "    bool found = false;\n\n    img = wc->image;\n    spin_lock(&image_lock);\n\n"}, "wc_image_has"},
}

// TestUnlocked: each of a number of races is found.
func TestUnlocked(t *testing.T) {
	b := newBench(t)
	base := b.races(t)
	for _, v := range unlocked {
		t.Run(v.name, func(t *testing.T) {
			dir := filepath.Join(b.cache.Dir, "races-variant")
			unlock, err := b.cache.Lock("races-variant")
			if err != nil {
				t.Fatal(err)
			}
			defer unlock()
			v.apply(t, dir, base)
			if err := b.linkRaces(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			output, err := b.lookForRaces(t.Context(), dir, "random", "1", strconv.Itoa(*runs), "0")
			if err == nil || !raceReport.MatchString(output) || !strings.Contains(output, v.where) {
				t.Fatalf("not found in %s: %v\n%s", v.where, err, output)
			}
			t.Log(raceSummary.FindString(output), seed.FindString(output))
		})
	}
}

// apply makes a copy of a program's folder in which the mistake is made.
func (v variant) apply(t *testing.T, dir, base string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(base)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "xen/arch/x86/mm", v.file)
	if v.file == claimsFile {
		path = filepath.Join(dir, v.file)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(text, []byte(v.old)); n == 0 {
		t.Fatalf("%s no longer has %q", v.file, v.old)
	}
	text = bytes.Replace(text, []byte(v.old), []byte(v.new), 1)
	if v.also[0] != "" {
		if n := bytes.Count(text, []byte(v.also[0])); n != 1 {
			t.Fatalf("%s has %d times %q", v.file, n, v.also[0])
		}
		text = bytes.Replace(text, []byte(v.also[0]), []byte(v.also[1]), 1)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}
