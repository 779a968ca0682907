package build

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const onePatch = `From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: someone <someone@localhost>
Date: Sat, 21 Nov 2026 12:00:00 +0000
Subject: [PATCH] change a line

diff --git a/dir/file b/dir/file
--- a/dir/file
+++ b/dir/file
@@ -1,3 +1,3 @@
 one
-two
+TWO
 three
`

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func newSeries(t *testing.T, names ...string) Series {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "UPSTREAM"), "# base\nname = toy\npackage = toy\nversion = 1\nfile = toy.tar\nsha256 = 00\n")
	list := "# comment\n"
	for _, name := range names {
		write(t, filepath.Join(dir, name), onePatch)
		list += name + "\n"
	}
	write(t, filepath.Join(dir, "series"), list)
	s, err := ReadSeries(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSync(t *testing.T) {
	if _, err := exec.LookPath("patch"); err != nil {
		t.Fatal("patch is needed: ", err)
	}
	s := newSeries(t, "0001-change.patch")
	pristine, tree := filepath.Join(t.TempDir(), "pristine"), filepath.Join(t.TempDir(), "tree")
	write(t, filepath.Join(pristine, "dir/file"), "one\ntwo\nthree\n")
	write(t, filepath.Join(pristine, "other"), "other\n")
	content := func() string {
		text, err := os.ReadFile(filepath.Join(tree, "dir/file"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, step := range []struct {
		patches int
		want    string
	}{{0, "one\ntwo\nthree\n"}, {1, "one\nTWO\nthree\n"}, {0, "one\ntwo\nthree\n"}, {1, "one\nTWO\nthree\n"}} {
		if err := s.First(step.patches).Sync(t.Context(), pristine, tree); err != nil {
			t.Fatal(err)
		}
		if got := content(); got != step.want {
			t.Fatalf("with %d patches the file is %q", step.patches, got)
		}
	}
	// What is right already keeps its time, or make would rebuild it.
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(filepath.Join(tree, "dir/file"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context(), pristine, tree); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(tree, "dir/file"))
	if err != nil || !info.ModTime().Equal(old) {
		t.Errorf("an unchanged file was written: %v, %v", info, err)
	}
	// A copy has what was built, and forgets the series as well as the tree itself.
	write(t, filepath.Join(tree, "built"), "object\n")
	from := tree
	tree = filepath.Join(t.TempDir(), "stock")
	if err := errors.Join(fork(t.Context(), from, tree), s.First(0).Sync(t.Context(), pristine, tree)); err != nil {
		t.Fatal(err)
	}
	if got := content(); got != "one\ntwo\nthree\n" {
		t.Errorf("without patches the copy's file is %q", got)
	}
	if _, err := os.Stat(filepath.Join(tree, "built")); err != nil {
		t.Error(err)
	}
}

func TestApplyExactly(t *testing.T) {
	s := newSeries(t, "0001-change.patch")
	for what, c := range map[string]struct {
		content        string
		loose, exactly bool // whether it applies
	}{
		"where it says":       {"one\ntwo\nthree\n", true, true},
		"a line further":      {"zero\none\ntwo\nthree\n", true, false},
		"with another around": {"one\ntwo\n3\n", false, false},
	} {
		for _, exactly := range []bool{false, true} {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "dir/file"), c.content)
			want := c.loose
			if exactly {
				want = c.exactly
			}
			if err := s.Apply(t.Context(), dir, exactly); (err == nil) != want {
				t.Errorf("%s, exactly %t: %v", what, exactly, err)
			}
		}
	}
}

func TestCheckLedger(t *testing.T) {
	s := newSeries(t, "0001-change.patch", "0002-change.patch")
	for readme, good := range map[string]bool{
		"| patch | what |\n|---|---|\n| 0001 a | b |\n| 0002 c | d |\n": true,
		"| 0001 a | b |\n":                   false,
		"| 0002 c | d |\n| 0001 a | b |\n":   false,
		"| `0001` a | b |\n| `0002` | d |\n": true,
	} {
		write(t, filepath.Join(s.Dir, "README.md"), readme)
		if err := s.checkLedger(); (err == nil) != good {
			t.Errorf("ledger %q: %v", readme, err)
		}
	}
	write(t, filepath.Join(s.Dir, "README.md"), "| 0001 a |\n| 0002 c |\n")
	write(t, filepath.Join(s.Dir, "0003-stray.patch"), "")
	if err := s.checkLedger(); err == nil {
		t.Error("a patch that is not in the list was not noticed")
	}
}

func TestEntryIsMadeOnce(t *testing.T) {
	c := &Cache{Dir: t.TempDir()}
	calls := 0
	for range 2 {
		dir, err := c.Entry(t.Context(), "thing", KeyOf("a"), func(_ context.Context, dir string) error {
			calls++
			return os.WriteFile(filepath.Join(dir, "x"), nil, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "x")); err != nil {
			t.Fatal(err)
		}
	}
	if calls != 1 {
		t.Errorf("made %d times", calls)
	}
	failure := errors.New("no")
	for range 2 {
		_, err := c.Entry(t.Context(), "thing", KeyOf("b"), func(context.Context, string) error { return failure })
		if !errors.Is(err, failure) {
			t.Errorf("a failed build was kept: %v", err)
		}
	}
}

// TestExportIgnoresAttributes makes a patch whose hunk follows a label, which
// git's driver for C does not take for a function, and plain git does.
func TestExportIgnoresAttributes(t *testing.T) {
	const before = "int f(void)\n{\n\tg();\nagain:\n\ta();\n\tb();\n\tc();\n\td();\n}\n"
	s := Series{Dir: t.TempDir()}
	for _, attributes := range []string{"", "*.c diff=cpp\n"} {
		tree := t.TempDir()
		write(t, filepath.Join(tree, ".gitattributes"), attributes)
		write(t, filepath.Join(tree, "f.c"), before)
		if err := s.commit(t.Context(), tree); err != nil {
			t.Fatal(err)
		}
		if len(s.Patches) == 0 {
			write(t, filepath.Join(tree, "f.c"), strings.Replace(before, "d()", "e()", 1))
			if err := git(t.Context(), tree, "commit", "-q", "-a", "-m", "f: call e"); err != nil {
				t.Fatal(err)
			}
			if err := s.export(t.Context(), tree); err != nil {
				t.Fatal(err)
			}
			s.Patches = []string{"0001-f-call-e.patch"}
			continue
		}
		if err := s.compareExport(t.Context(), tree); err != nil {
			t.Error(err)
		}
	}
}

// TestSeriesFromAbove: a series takes patches from the one in the folder above, as
// long as they make the same change to its own base.
func TestSeriesFromAbove(t *testing.T) {
	tree := func(base string) string {
		t.Helper()
		tree := t.TempDir()
		write(t, filepath.Join(tree, "file"), base)
		if err := (Series{}).commit(t.Context(), tree); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(tree, "file"), strings.Replace(base, "five", "FIVE", 1))
		if err := git(t.Context(), tree, "commit", "-q", "-a", "-m", "change a line", "--date", "2026-11-21T12:00:00Z"); err != nil {
			t.Fatal(err)
		}
		return tree
	}
	const base = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n"
	above := newSeries(t)
	write(t, filepath.Join(above.Dir, "README.md"), "| 0001 a |\n")
	if err := above.export(t.Context(), tree(base)); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		base string
		own  bool
	}{
		"further down":        {"zero\n" + base, false},
		"with another around": {strings.Replace(base, "four", "4", 1), true},
	} {
		dir := filepath.Join(above.Dir, "other")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "UPSTREAM"), "name = toy\npackage = toy\nversion = 2\nfile = toy2.tar\nsha256 = 01\n")
		write(t, filepath.Join(dir, "series"), "../0001-change-a-line.patch\n")
		read := func() Series {
			t.Helper()
			s, err := ReadSeries(dir)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s := read()
		if s.Home() != above.Dir {
			t.Errorf("%s: at home in %s", what, s.Home())
		}
		if err := s.checkLedger(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		scratch := t.TempDir()
		write(t, filepath.Join(scratch, "file"), c.base)
		if err := s.Apply(t.Context(), scratch, true); (err == nil) == c.own {
			t.Errorf("%s: apply: %v", what, err)
		}
		commits := tree(c.base)
		if err := s.compareExport(t.Context(), commits); (err == nil) == c.own {
			t.Errorf("%s: compare: %v", what, err)
		}
		if err := s.export(t.Context(), commits); err != nil {
			t.Fatal(err)
		}
		s = read()
		if own := len(s.own()) == 1; len(s.Patches) != 1 || own != c.own {
			t.Errorf("%s: the list is %v", what, s.Patches)
		}
		if err := s.compareExport(t.Context(), commits); err != nil {
			t.Errorf("%s: exported: %v", what, err)
		}
	}
}
