package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// exportOptions make `git format-patch` give the same bytes for the same
// commits, whatever git's version.
var exportOptions = []string{"format-patch", "-q", "-N", "--zero-commit", "--no-signature", "--no-stat", "--full-index"}

// Prove shows that a series is what it says it is: its files, the list and the
// ledger agree; it applies in order with neither fuzz nor offset; exported
// again it is the same; it builds after each patch, and in the end with its
// option off, too. Each verdict is kept by content, so that only what has
// changed is proved again.
func (c *Cache) Prove(ctx context.Context, tools Root, s Series, option string) error {
	if err := s.checkLedger(); err != nil {
		return err
	}
	if err := c.checkExport(ctx, s); err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(s.Home(), "config"))
	if err != nil {
		return err
	}
	on, off := option+"=y\n", "# "+option+" is not set\n"
	if !strings.Contains(string(config), on) {
		return fmt.Errorf("%s: config does not set %s", s.Home(), option)
	}
	for n := range s.Patches {
		if err := c.proveBuild(ctx, tools, s.First(n+1), config, "after "+s.Patches[n]); err != nil {
			return err
		}
	}
	return c.proveBuild(ctx, tools, s, []byte(strings.Replace(string(config), on, off, 1)), "with "+option+" off")
}

// proveBuild builds the series in a tree of its own, in which each call
// rebuilds only what has changed since the last one.
func (c *Cache) proveBuild(ctx context.Context, tools Root, s Series, config []byte, what string) error {
	key, err := s.Key()
	if err != nil {
		return err
	}
	_, err = c.Entry(ctx, "proof-"+s.Upstream.Name, KeyOf("proof 2", tools.Key, key, string(config)), func(ctx context.Context, _ string) error {
		if c.Progress != nil {
			c.Progress("build " + s.Upstream.Name + " " + what)
		}
		tree, unlock, err := c.workingCopy(ctx, s, "proof")
		if err != nil {
			return err
		}
		defer unlock()
		if s.Upstream.Name == "xen" {
			return c.makeXen(ctx, tools, tree, config)
		}
		return makeKernel(ctx, tools, tree, config, "bzImage")
	})
	if err != nil {
		return fmt.Errorf("build %s %s: %w", s.Upstream.Name, what, err)
	}
	return nil
}

// checkLedger compares the patches in the folder with the list and with the
// rows of README.md, which begin with a patch's number.
func (s Series) checkLedger() error {
	found, err := filepath.Glob(filepath.Join(s.Dir, "*.patch"))
	if err != nil {
		return err
	}
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	if own := s.own(); !slices.Equal(found, own) {
		return fmt.Errorf("%s: the files are %v, but the list says %v", s.Dir, found, own)
	}
	readme, err := os.ReadFile(filepath.Join(s.Home(), "README.md"))
	if err != nil {
		return err
	}
	var rows, numbers []string
	for _, match := range regexp.MustCompile(`(?m)^\|[ \x60\[]*(\d{4})\b`).FindAllSubmatch(readme, -1) {
		rows = append(rows, string(match[1]))
	}
	for _, name := range s.Patches {
		number, _, _ := strings.Cut(filepath.Base(name), "-")
		numbers = append(numbers, number)
	}
	if !slices.Equal(rows, numbers) {
		return fmt.Errorf("%s: README.md has rows for %v, want %v", s.Dir, rows, numbers)
	}
	return nil
}

// checkExport commits the series on the files that it touches, exports the
// commits and compares.
func (c *Cache) checkExport(ctx context.Context, s Series) error {
	pristine, err := c.Pristine(ctx, s.Upstream)
	if err != nil {
		return err
	}
	applied, err := s.applyAside(ctx, pristine, true) // neither fuzz nor offset
	if err != nil {
		return err
	}
	if err := os.RemoveAll(applied.scratch); err != nil {
		return err
	}
	base, err := s.copyAside(pristine)
	if err != nil {
		return err
	}
	defer os.RemoveAll(base.scratch)
	if err := s.commit(ctx, base.scratch); err != nil {
		return err
	}
	return s.compareExport(ctx, base.scratch)
}

// commit makes a repository of tree with the base and one commit per patch.
func (s Series) commit(ctx context.Context, tree string) error {
	if err := git(ctx, tree, "init", "-q"); err != nil {
		return err
	}
	// Linux chooses git's idea of a C function for the hunks' headers; what is
	// exported may not depend on that.
	if err := os.WriteFile(filepath.Join(tree, ".git", "info", "attributes"), []byte("* !diff\n"), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{{"add", "-A", "-f"}, {"commit", "-q", "--allow-empty", "-m", "base"}, {"tag", "base"}} {
		if err := git(ctx, tree, args...); err != nil {
			return err
		}
	}
	args := []string{"am", "-q", "--keep-non-patch"}
	for _, name := range s.Patches {
		args = append(args, filepath.Join(s.Dir, name))
	}
	if len(s.Patches) == 0 {
		return nil
	}
	return git(ctx, tree, args...)
}

func (s Series) compareExport(ctx context.Context, tree string) error {
	out := filepath.Join(tree, ".git", "export")
	if err := git(ctx, tree, append(slices.Clone(exportOptions), "-o", out, "base..")...); err != nil {
		return err
	}
	var errs []error
	for _, name := range s.Patches {
		want, wantErr := os.ReadFile(filepath.Join(s.Dir, name))
		got, gotErr := os.ReadFile(filepath.Join(out, filepath.Base(name)))
		errs = append(errs, wantErr, gotErr)
		same := bytes.Equal
		if strings.HasPrefix(name, fromAbove) {
			same = sameChange
		}
		if !same(want, got) {
			errs = append(errs, fmt.Errorf("%s: exported again it is not the same; `make patches-refresh` exports all", name))
		}
	}
	return errors.Join(errs...)
}

// placed is what a patch says about where in which file its change is: the hashes
// of the files, and the lines.
var placed = regexp.MustCompile(`(?m)^index [0-9a-f]+\.\.[0-9a-f]+.*\n|^@@ -[0-9,]+ \+[0-9,]+ @@.*`)

// sameChange says whether two patches differ only in what their bases differ in.
func sameChange(a, b []byte) bool {
	return bytes.Equal(placed.ReplaceAll(a, nil), placed.ReplaceAll(b, nil))
}

func git(ctx context.Context, dir string, args ...string) error {
	args = append([]string{"-c", "user.name=warmreboot", "-c", "user.email=warmreboot@localhost", "-c", "core.autocrlf=false",
		"-c", "commit.gpgsign=false", "-c", "advice.detachedHead=false"}, args...)
	command := exec.CommandContext(ctx, "git", args...)
	command.Dir = dir
	return runQuietly(command)
}

// Refresh is how a series is edited. The first call makes a repository of the
// base with one commit per patch; a later one exports the commits that are
// there into the series' folder. It returns where the repository is and
// whether it was exported.
func (c *Cache) Refresh(ctx context.Context, s Series) (tree string, exported bool, err error) {
	tree = filepath.Join(c.Dir, "edit", s.Upstream.Name+"-"+s.Upstream.SHA256[:12])
	if _, err := os.Stat(filepath.Join(tree, ".git", "refs", "tags", "base")); err == nil {
		return tree, true, s.export(ctx, tree)
	}
	pristine, err := c.Pristine(ctx, s.Upstream)
	if err != nil {
		return tree, false, err
	}
	if err := copyTree(ctx, pristine, tree); err != nil {
		return tree, false, err
	}
	return tree, false, s.commit(ctx, tree)
}

// export replaces the series by the commits in tree. What does not differ from the
// patch of the series above is that one.
func (s Series) export(ctx context.Context, tree string) error {
	out := filepath.Join(tree, ".git", "export")
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	if err := git(ctx, tree, append(slices.Clone(exportOptions), "-o", out, "base..")...); err != nil {
		return err
	}
	for _, name := range s.own() {
		if err := os.Remove(filepath.Join(s.Dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	found, err := filepath.Glob(filepath.Join(out, "*.patch"))
	if err != nil {
		return err
	}
	var list strings.Builder
	for _, path := range found {
		name := filepath.Base(path)
		exported, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if above, err := os.ReadFile(filepath.Join(s.Dir, fromAbove, name)); s.Home() != s.Dir && err == nil && sameChange(above, exported) {
			fmt.Fprintln(&list, fromAbove+name)
			continue
		}
		if err := os.WriteFile(filepath.Join(s.Dir, name), exported, 0o644); err != nil {
			return err
		}
		fmt.Fprintln(&list, name)
	}
	return os.WriteFile(filepath.Join(s.Dir, "series"), []byte(list.String()), 0o644)
}
