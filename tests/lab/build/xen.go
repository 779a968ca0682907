package build

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Variants of Xen, and of the guest's kernel.
const (
	Patched = "patched"
	Stock   = "stock" // none of our patches
	// Trusting is the variant of Xen that believes whatever the guest says of its
	// page cache. The fault injection compares with it.
	Trusting = "trusting"
	Debug    = "debug" // with its own checks: Xen's assertions, or those of the guest's kernel
	// Newer begins the variants of the newer Linux, so that building one does not
	// hold up who builds the other.
	Newer = "newer-"
)

// trustingSettings and trustingFlags leave out what else CONFIG_DEBUG brings, as
// assertions and -O1, which the variant that it is compared with does not have:
// with these a run of the fault injection takes more than half as long again.
const (
	trustingSettings = `CONFIG_DEBUG=y
CONFIG_WARMCACHE_TRUST_GUEST=y
# CONFIG_FRAME_POINTER is not set
# CONFIG_DEBUG_LOCKS is not set
# CONFIG_SCRUB_DEBUG is not set
# CONFIG_VERBOSE_DEBUG is not set
# CONFIG_XMEM_POOL_POISON is not set
`
	trustingFlags = "EXTRA_CFLAGS_XEN_CORE=-O2 -DNDEBUG"
)

// debugSettings bring Xen's assertions, checks of its locks and of scrubbed memory.
const debugSettings = "CONFIG_DEBUG=y\n"

// Xen builds Xen from its series and returns the file that QEMU boots: the
// 32-bit ELF, not compressed. variant names the working copy, so that the
// patched and the plain build each keep their objects.
func (c *Cache) Xen(ctx context.Context, tools Root, series Series, variant string) (string, error) {
	key, err := series.Key()
	if err != nil {
		return "", err
	}
	settings, err := os.ReadFile(filepath.Join(series.Dir, "config"))
	if err != nil {
		return "", err
	}
	parts := []any{"xen 2", tools.Key, key, settings}
	var flags []string
	switch variant {
	case Trusting:
		flags = []string{trustingFlags}
		parts = append(parts, trustingSettings, trustingFlags)
		settings = append(settings, trustingSettings...)
	case Debug:
		parts = append(parts, debugSettings)
		settings = append(settings, debugSettings...)
	}
	dir, err := c.Entry(ctx, "xen-"+variant, KeyOf(parts...), func(ctx context.Context, dir string) error {
		tree, unlock, err := c.workingCopy(ctx, series, variant)
		if err != nil {
			return err
		}
		defer unlock()
		if err := c.makeXen(ctx, tools, tree, settings, flags...); err != nil {
			return err
		}
		return gunzip(filepath.Join(tree, "xen", "xen.gz"), filepath.Join(dir, "xen"))
	})
	return filepath.Join(dir, "xen"), err
}

// makeXen configures and builds a tree. Options that the tree does not know, as
// the base does not know ours, are left out by Kconfig.
func (c *Cache) makeXen(ctx context.Context, tools Root, tree string, settings []byte, flags ...string) error {
	if err := tools.Run(ctx, tree, xenMake("defconfig")...); err != nil {
		return err
	}
	config, err := os.OpenFile(filepath.Join(tree, "xen", ".config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = config.Write(settings)
	if err := errors.Join(err, config.Close()); err != nil {
		return err
	}
	if err := tools.Run(ctx, tree, xenMake("olddefconfig")...); err != nil {
		return err
	}
	return tools.Run(ctx, tree, append(xenMake("build"), flags...)...)
}

// xenMake is the command that builds Xen. Time and place stay out of it.
func xenMake(target string) []string {
	return []string{"nice", "make", "-C", "xen", "-j2", target, "XEN_BUILD_DATE=1970-01-01", "XEN_BUILD_TIME=00:00:00",
		"XEN_WHOAMI=warmreboot", "XEN_DOMAIN=lab"}
}

// workingCopy returns the tree of the variant with the series applied, locked.
func (c *Cache) workingCopy(ctx context.Context, series Series, variant string) (tree string, unlock func(), err error) {
	pristine, err := c.Pristine(ctx, series.Upstream)
	if err != nil {
		return "", nil, err
	}
	tree, unlock, err = c.lockTree(series, variant)
	if err != nil {
		return "", nil, err
	}
	if variant == Stock {
		err = c.beginWithPatched(ctx, series, tree)
	}
	if err == nil {
		err = series.Sync(ctx, pristine, tree)
	}
	if err != nil {
		unlock()
		return "", nil, fmt.Errorf("prepare %s: %w", tree, err)
	}
	return tree, unlock, nil
}

// lockTree locks the tree of a variant, which need not exist. Whoever has
// locked that of stock may lock that of patched, not the other way round.
func (c *Cache) lockTree(series Series, variant string) (tree string, unlock func(), err error) {
	name := series.Upstream.Name + "-" + variant
	unlock, err = c.Lock("tree-" + name)
	// The base is part of the name: another base is another tree.
	return filepath.Join(c.Dir, "trees", name+"-"+series.Upstream.SHA256[:12]), unlock, err
}

// beginWithPatched makes a tree that does not exist yet from the patched one and
// what was built there, if there is one. Of the guest's kernel a sixth has to be
// built anew then; of Xen most, as its series touches what everything includes.
func (c *Cache) beginWithPatched(ctx context.Context, series Series, tree string) error {
	if _, err := os.Stat(tree); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	from, unlock, err := c.lockTree(series, Patched)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fork(ctx, from, tree)
}

func gunzip(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	reader, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, reader)
	return errors.Join(err, out.Close())
}

// PlainXen returns what QEMU can boot, given a Xen that may be compressed.
func PlainXen(path, scratch string) (string, error) {
	if filepath.Ext(path) != ".gz" {
		return path, nil
	}
	plain := filepath.Join(scratch, "xen")
	return plain, gunzip(path, plain)
}
