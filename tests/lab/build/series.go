package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Series is a patch series in the manner of quilt.
type Series struct {
	Dir      string
	Bases    []Upstream // that it can be built on; an earlier one is preferred
	Upstream Upstream   // the one that it is built on: the first, until one was settled on
	Patches  []string   // file names, in order; those of another series begin with ../
}

// fromAbove is how the list names a patch of the series in the folder above. That
// one's patches are for another base; only what has to differ is in Dir.
const fromAbove = "../"

// own lists the patches that are in Dir.
func (s Series) own() []string {
	return slices.DeleteFunc(slices.Clone(s.Patches), func(name string) bool { return strings.HasPrefix(name, fromAbove) })
}

// Home is the folder with the ledger and the configuration.
func (s Series) Home() string {
	if len(s.own()) < len(s.Patches) {
		return filepath.Dir(s.Dir)
	}
	return s.Dir
}

// ReadSeries reads UPSTREAM and series in dir. A series that is not there yet
// has no patches.
func ReadSeries(dir string) (Series, error) {
	bases, err := ReadUpstream(filepath.Join(dir, "UPSTREAM"))
	if err != nil {
		return Series{}, err
	}
	s := Series{Dir: dir, Bases: bases, Upstream: bases[0]}
	text, err := os.ReadFile(filepath.Join(dir, "series"))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	for _, line := range strings.Split(string(text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			s.Patches = append(s.Patches, line)
		}
	}
	return s, err
}

// First returns the series cut down to its first n patches; the base alone
// for 0.
func (s Series) First(n int) Series {
	s.Patches = s.Patches[:n]
	return s
}

// Key identifies base and patches.
func (s Series) Key() (Key, error) {
	parts := []any{s.Upstream.identity()}
	for _, name := range s.Patches {
		content, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err != nil {
			return Key{}, err
		}
		parts = append(parts, sha256.Sum256(content))
	}
	return KeyOf(parts...), nil
}

// ErrOffset says that a patch applies, but not exactly where it says.
var ErrOffset = errors.New("patch does not apply exactly")

// Apply applies the series inside dir, which has to hold at least the files
// that the patches touch. Fuzz is never let pass; lines may lie elsewhere than a
// patch says unless exactly, as the bases of a series differ in that. Those of the
// series above are for another base, so of them that is not asked.
func (s Series) Apply(ctx context.Context, dir string, exactly bool) error {
	for _, name := range s.Patches {
		command := exec.CommandContext(ctx, "patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch", "--batch", "-i", filepath.Join(s.Dir, name))
		command.Dir = dir
		output, err := command.CombinedOutput()
		if err != nil {
			return fmt.Errorf("apply %s: %w\n%s", name, err, output)
		}
		if exactly && !strings.HasPrefix(name, fromAbove) && bytes.Contains(output, []byte("offset")) {
			return fmt.Errorf("apply %s to %s: %w\n%s", name, s.Upstream.Version, ErrOffset, output)
		}
	}
	return nil
}

// touched lists the files that the series changes, creates or removes.
func (s Series) touched() ([]string, error) {
	var paths []string
	for _, name := range s.Patches {
		text, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err != nil {
			return nil, err
		}
		for _, line := range strings.Split(string(text), "\n") {
			for _, prefix := range []string{"--- a/", "+++ b/"} {
				if path, ok := strings.CutPrefix(line, prefix); ok {
					path, _, _ = strings.Cut(path, "\t")
					paths = append(paths, path)
				}
			}
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

// recordOf is the file that lists what the series has touched that tree had last.
func recordOf(tree string) string { return tree + ".touched" }

// Sync makes tree, a working copy of pristine, equal to pristine with the
// series applied. Files that are right already are left alone, so that make
// rebuilds only what has changed.
func (s Series) Sync(ctx context.Context, pristine, tree string) error {
	if _, err := os.Stat(tree); errors.Is(err, fs.ErrNotExist) {
		if err := copyTree(ctx, pristine, tree); err != nil {
			return err
		}
	}
	aside, err := s.applyAside(ctx, pristine, false)
	if err != nil {
		return err
	}
	defer os.RemoveAll(aside.scratch)
	record := recordOf(tree)
	before, err := os.ReadFile(record)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all := slices.Concat(aside.paths, strings.Fields(string(before)))
	if err := os.WriteFile(record, []byte(strings.Join(all, "\n")), 0o644); err != nil {
		return err
	}
	for _, path := range all {
		if err := syncFile(aside.source(path), filepath.Join(tree, path)); err != nil {
			return err
		}
	}
	return os.WriteFile(record, []byte(strings.Join(aside.paths, "\n")), 0o644)
}

// fork copies a working copy and all that was built in it. Of the copy, too, it
// must be known what is not as in pristine, so that comes first.
func fork(ctx context.Context, from, to string) error {
	if err := syncFile(recordOf(from), recordOf(to)); err != nil {
		return err
	}
	return copyTree(ctx, from, to)
}

// aside is copies of the files that a series touches, in a folder of their own
// that the caller removes.
type aside struct {
	pristine, scratch string
	paths             []string // sorted
}

// source is where a file is found: with the copies, or where it is untouched.
// It need not exist, if the series adds or removes it.
func (a aside) source(path string) string {
	if _, ours := slices.BinarySearch(a.paths, path); ours {
		return filepath.Join(a.scratch, path)
	}
	return filepath.Join(a.pristine, path)
}

// copyAside copies the files as they are without the series.
func (s Series) copyAside(pristine string) (aside, error) {
	paths, err := s.touched()
	if err != nil {
		return aside{}, err
	}
	scratch, err := os.MkdirTemp("", "series-*")
	if err != nil {
		return aside{}, err
	}
	for _, path := range paths {
		err := syncFile(filepath.Join(pristine, path), filepath.Join(scratch, path))
		if err != nil {
			return aside{}, errors.Join(err, os.RemoveAll(scratch))
		}
	}
	return aside{pristine, scratch, paths}, nil
}

// applyAside copies the files and applies the series to them; see Apply.
func (s Series) applyAside(ctx context.Context, pristine string, exactly bool) (aside, error) {
	a, err := s.copyAside(pristine)
	if err != nil {
		return a, err
	}
	if err := s.Apply(ctx, a.scratch, exactly); err != nil {
		return aside{}, errors.Join(err, os.RemoveAll(a.scratch))
	}
	return a, nil
}

// syncFile makes to equal from, which may mean that it does not exist.
func syncFile(from, to string) error {
	want, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(to); err == nil && bytes.Equal(have, want) {
		return nil
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(to, want, info.Mode().Perm()), os.Chmod(to, info.Mode().Perm()))
}

// copyTree copies a whole tree, all or nothing.
func copyTree(ctx context.Context, from, to string) error {
	temporary := to + ".tmp"
	if err := os.RemoveAll(temporary); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := runHost(ctx, "cp", "-a", "--reflink=auto", from, temporary); err != nil {
		return err
	}
	return os.Rename(temporary, to)
}
