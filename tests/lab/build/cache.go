// Package build makes everything that the lab boots: the private Debian root
// with the tools, Xen, the guest kernel, and the images of dom0 and the domU.
// Results are kept outside the checkout, under a hash of what they were made
// from, so that a fresh clone rebuilds only what has changed.
package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Cache is a folder of finished builds.
type Cache struct {
	Dir string
	// Progress is told what is being made, and may be nil.
	Progress func(what string)
	// Warn is told what a person should know, and may be nil.
	Warn func(what string)
	told sync.Map // of what Warn was told
}

// openCache opens $WARMREBOOT_CACHE, or else ~/.cache/warmreboot.
func openCache() (*Cache, error) {
	dir := os.Getenv("WARMREBOOT_CACHE")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("find the cache: %w; set WARMREBOOT_CACHE", err)
		}
		dir = filepath.Join(home, ".cache", "warmreboot")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	// Also where nobody watches a terminal: builds take up to half an hour, and
	// whoever reads a log has to see that they get on.
	start := time.Now()
	progress := func(what string) {
		fmt.Fprintf(os.Stderr, "[%4.0f s] %s\n", time.Since(start).Seconds(), what)
	}
	warn := func(what string) { fmt.Fprintln(os.Stderr, "warning:", what) }
	return &Cache{Dir: dir, Progress: progress, Warn: warn}, os.MkdirAll(dir, 0o755)
}

// Entry returns the folder that make fills, which it is asked to do only if no
// earlier call with the same name and key has succeeded.
func (c *Cache) Entry(ctx context.Context, name string, key Key, make func(ctx context.Context, dir string) error) (string, error) {
	final := c.entry(name, key)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	unlock, err := c.Lock(name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(final); err == nil { // made while we waited
		return final, nil
	}
	if c.Progress != nil {
		c.Progress(name)
	}
	temporary := final + ".tmp"
	if err := os.RemoveAll(temporary); err != nil {
		return "", err
	}
	if err := os.MkdirAll(temporary, 0o755); err != nil {
		return "", err
	}
	if err := make(ctx, temporary); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	return final, os.Rename(temporary, final)
}

// entry is the folder that Entry returns.
func (c *Cache) entry(name string, key Key) string {
	return filepath.Join(c.Dir, "store", name+"-"+key.String())
}

// Lock waits until nobody else, in this process or another, holds name.
func (c *Cache) Lock(name string) (unlock func(), err error) {
	path := filepath.Join(c.Dir, "locks", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	return func() { _ = file.Close() }, nil // closing is what unlocks
}

// Key identifies what something is made from.
type Key [sha256.Size]byte

func (k Key) String() string { return hex.EncodeToString(k[:8]) }

// KeyOf hashes its parts, in order.
func KeyOf(parts ...any) Key {
	hash := sha256.New()
	for _, part := range parts {
		text := fmt.Sprintf("%v", part)
		fmt.Fprintf(hash, "%d:%s", len(text), text)
	}
	return Key(hash.Sum(nil))
}

// KeyOfTree hashes names and contents of all files below root.
func KeyOfTree(tree fs.FS) (Key, error) {
	var parts []any
	err := fs.WalkDir(tree, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(tree, path)
		parts = append(parts, path, sha256.Sum256(content))
		return err
	})
	return KeyOf(parts...), err
}
