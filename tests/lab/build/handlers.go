package build

import (
	"context"
	"os"
	"path/filepath"
)

// sanitizerPackages is what the root for tests/hypercall holds: a compiler
// with libFuzzer, and what reads its profiles. It is apart from the tools, of
// which everything else is made.
var sanitizerPackages = []string{"clang-19", "libclang-rt-19-dev", "llvm-19", "libc6-dev"}

// Sanitizers makes the root with the compiler that has sanitizers and libFuzzer.
func (c *Cache) Sanitizers(ctx context.Context, bind ...string) (Root, error) {
	key := KeyOf("sanitizers 1", sanitizerPackages)
	dir, err := c.Entry(ctx, "sanitizers", key, func(ctx context.Context, dir string) error {
		return c.debootstrap(ctx, dir, sanitizerPackages)
	})
	return Root{Dir: dir, Key: key, Bind: append([]string{c.Dir}, bind...)}, err
}

// Patched copies files of the base into dir, with the series applied to those
// that it touches.
func (c *Cache) Patched(ctx context.Context, s Series, dir string, files ...string) error {
	pristine, err := c.Pristine(ctx, s.Upstream)
	if err != nil {
		return err
	}
	aside, err := s.applyAside(ctx, pristine, false)
	if err != nil {
		return err
	}
	defer os.RemoveAll(aside.scratch)
	for _, file := range files {
		source := aside.source(file)
		if _, err := os.Stat(source); err != nil {
			return err
		}
		if err := syncFile(source, filepath.Join(dir, file)); err != nil {
			return err
		}
	}
	return nil
}
