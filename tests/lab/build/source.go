package build

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Upstream is the base of a patch series, as its file UPSTREAM names it.
type Upstream struct {
	Name    string // xen, linux
	Package string // Debian package that carries it
	Version string // of that package
	File    string // that apt delivers
	SHA256  string
}

// ReadUpstream parses lines of the form `key = value`; # begins a comment.
func ReadUpstream(path string) (Upstream, error) {
	file, err := os.Open(path)
	if err != nil {
		return Upstream{}, err
	}
	defer file.Close()
	var u Upstream
	fields := map[string]*string{"name": &u.Name, "package": &u.Package, "version": &u.Version, "file": &u.File, "sha256": &u.SHA256}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		key, value, ok := strings.Cut(line, "=")
		if field := fields[strings.TrimSpace(key)]; ok && field != nil {
			*field = strings.TrimSpace(value)
		}
	}
	for key, field := range fields {
		if *field == "" {
			return u, fmt.Errorf("%s: no value for %q", path, key)
		}
	}
	return u, nil
}

// Download returns the file with the base, of which the checksum was compared.
func (c *Cache) Download(ctx context.Context, u Upstream) (string, error) {
	unlock, err := c.Lock("download")
	if err != nil {
		return "", err
	}
	defer unlock()
	dir := filepath.Join(c.Dir, "dl")
	path := filepath.Join(dir, u.File)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if checkSum(path, u.SHA256) == nil {
		return path, nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if c.Progress != nil {
		c.Progress("download " + u.File)
	}
	if err := c.apt(ctx, dir, "apt-get", "update"); err != nil {
		return "", err
	}
	if strings.HasSuffix(u.File, ".deb") {
		err = c.apt(ctx, dir, "apt-get", "download", u.Package+"="+u.Version)
	} else {
		// A missing .dsc fails the command though the tarball has arrived, so
		// the checksum decides.
		err = c.apt(ctx, dir, "apt-get", "source", "--download-only", u.Package+"="+u.Version)
	}
	if checkSum(path, u.SHA256) != nil {
		err = errors.Join(err, c.fromPool(ctx, u, path))
	}
	if sumErr := checkSum(path, u.SHA256); sumErr != nil {
		return "", errors.Join(fmt.Errorf("%w\nThe mirror has no %s %s (any more). Put the file %s, with SHA-256 %s, into %s by hand "+
			"(snapshot archives keep old versions), or move the base: change UPSTREAM, then `make patches-refresh`",
			sumErr, u.Package, u.Version, u.File, u.SHA256, dir), err)
	}
	return path, nil
}

// aptHelper is how apt itself fetches a file.
const aptHelper = "/usr/lib/apt/apt-helper"

// fromPool fetches a file that a newer version has displaced from the mirror's
// index, but not yet from its pool.
func (c *Cache) fromPool(ctx context.Context, u Upstream, path string) error {
	mirror, err := FindMirror(ctx)
	if err != nil {
		return err
	}
	var all error
	for _, uri := range mirror.pool(u) {
		err := c.apt(ctx, filepath.Dir(path), aptHelper, "download-file", uri, path, "SHA256:"+u.SHA256)
		if err == nil {
			return nil
		}
		all = errors.Join(all, err)
	}
	return all
}

func checkSum(path, want string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != want {
		return fmt.Errorf("%s: SHA-256 is %s, but has to be %s", path, got, want)
	}
	return nil
}

// Pristine returns the unpacked base. Nobody may write to it.
func (c *Cache) Pristine(ctx context.Context, u Upstream) (string, error) {
	return c.Entry(ctx, "pristine-"+u.Name, KeyOf(u.SHA256), func(ctx context.Context, dir string) error {
		archive, err := c.Download(ctx, u)
		if err != nil {
			return err
		}
		if strings.HasSuffix(archive, ".deb") {
			carrier := dir + ".deb"
			defer os.RemoveAll(carrier)
			if err := runHost(ctx, "dpkg-deb", "-x", archive, carrier); err != nil {
				return err
			}
			found, err := filepath.Glob(filepath.Join(carrier, "usr/src", u.Name+"-source-*.tar.xz"))
			if err != nil || len(found) != 1 {
				return fmt.Errorf("%s: want one source archive in it, found %d", archive, len(found))
			}
			archive = found[0]
		}
		return runHost(ctx, "tar", "-C", dir, "--strip-components=1", "-xf", archive)
	})
}
