package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// downloaded is where the file of a base is kept.
func (c *Cache) downloaded(u Upstream) string { return filepath.Join(c.Dir, "dl", u.File) }

// Download returns the file with the base, of which the checksum was compared:
// from where it was put before, from the machine's mirrors, or from Debian's
// snapshot archive.
func (c *Cache) Download(ctx context.Context, u Upstream) (string, error) {
	unlock, err := c.Lock("download")
	if err != nil {
		return "", err
	}
	defer unlock()
	path := c.downloaded(u)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	if checkSum(path, u.SHA256) == nil {
		return path, nil
	}
	mirror, err := FindMirror(ctx)
	if err != nil {
		return "", err
	}
	if c.Progress != nil {
		c.Progress("download " + u.File)
	}
	var all []error
	for _, uri := range mirror.places(u) {
		err := c.fetch(ctx, uri, path, u.SHA256)
		if err == nil {
			return path, nil
		}
		all = append(all, err)
	}
	return "", fmt.Errorf("%s %s cannot be had: %w\nWhoever has the file %s, with SHA-256 %s, can put it into %s",
		u.Name, u.Version, errors.Join(all...), u.File, u.SHA256, filepath.Dir(path))
}

// aptHelper is how apt itself fetches a file: it knows the machine's proxies.
const aptHelper = "/usr/lib/apt/apt-helper"

// fetch gets one file, whole and right or not at all.
func (c *Cache) fetch(ctx context.Context, uri, path, sum string) error {
	part := path + ".part"
	for _, left := range []string{part, part + ".FAILED"} { // as apt names what has another checksum
		defer os.RemoveAll(left)
	}
	command := exec.CommandContext(ctx, aptHelper, "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=1",
		"-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20", "download-file", uri, part, "SHA256:"+sum)
	output, err := command.CombinedOutput()
	if err == nil {
		err = checkSum(part, sum)
	} else if why := reason(output, uri); why != "" && ctx.Err() == nil {
		err = errors.New(why)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", uri, err)
	}
	return os.Rename(part, path)
}

// reason is why apt could not fetch from uri, in one line.
func reason(output []byte, uri string) string {
	for line := range strings.Lines(string(output)) {
		if rest, ok := strings.CutPrefix(line, "E: "); ok {
			return strings.TrimSpace(strings.TrimPrefix(rest, "Failed to fetch "+uri))
		}
	}
	return strings.TrimSpace(string(output))
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

// pristine is the cache's name for an unpacked base.
func pristine(u Upstream) (name string, key Key) { return "pristine-" + u.Name, KeyOf(u.SHA256) }

// Pristine returns the unpacked base. Nobody may write to it.
func (c *Cache) Pristine(ctx context.Context, u Upstream) (string, error) {
	name, key := pristine(u)
	return c.Entry(ctx, name, key, func(ctx context.Context, dir string) error {
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
