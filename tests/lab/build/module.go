package build

import (
	"context"
	"crypto/sha256"
	"io/fs"
	"os"
	"path/filepath"
)

// Module builds a module for the guest kernel from source, a folder with a
// Makefile as the kernel wants it, and returns the path of name.ko.
func (c *Cache) Module(ctx context.Context, tools Root, series Series, config, name string, source fs.FS) (string, error) {
	key, err := series.Key()
	if err != nil {
		return "", err
	}
	settings, err := os.ReadFile(config)
	if err != nil {
		return "", err
	}
	sourceKey, err := KeyOfTree(source)
	if err != nil {
		return "", err
	}
	file := name + ".ko"
	dir, err := c.Entry(ctx, "module-"+name, KeyOf("module 1", tools.Key, key, sha256.Sum256(settings), sourceKey),
		func(ctx context.Context, dir string) error {
			tree, unlock, err := c.workingCopy(ctx, series, Patched)
			if err != nil {
				return err
			}
			defer unlock()
			if err := makeKernel(ctx, tools, tree, settings, "modules_prepare"); err != nil {
				return err
			}
			work := filepath.Join(dir, "build")
			defer os.RemoveAll(work)
			if err := os.CopyFS(work, source); err != nil {
				return err
			}
			// As with the module that hangs the kernel: the kernel itself will
			// tell which symbols there are.
			if err := tools.Run(ctx, tree, kernelMake("M="+work, "KBUILD_MODPOST_WARN=1", "modules")...); err != nil {
				return err
			}
			return CopyFile(filepath.Join(work, file), filepath.Join(dir, file))
		})
	return filepath.Join(dir, file), err
}

// Program builds one of the checkout's own programs, without cgo, to run in
// dom0 or the domU.
func (c *Cache) Program(ctx context.Context, tools Root, from Checkout, source string) (string, error) {
	path := filepath.Join(from.Dir, "build", "lab", filepath.Base(source))
	return path, c.goBuild(ctx, tools, from, path, source, "CGO_ENABLED=0")
}
