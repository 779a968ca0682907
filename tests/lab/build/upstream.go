package build

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Upstream is one base of a patch series.
type Upstream struct {
	Name    string // xen, linux, qemu: also of Debian's source package
	Package string // Debian package that carries it
	Version string // of that package
	File    string // in Debian's pool
	SHA256  string // of File
	// Snapshot is a time at which Debian's archive had the file, as its snapshot
	// archive writes times; "" if that is not to be asked.
	Snapshot string
	// Lacks names the published security fixes that a better base has.
	Lacks string
}

// identity is what distinguishes what is built from one base from what is built
// from another.
func (u Upstream) identity() any {
	return struct{ Name, Package, Version, File, SHA256 string }{u.Name, u.Package, u.Version, u.File, u.SHA256}
}

// ReadUpstream reads the bases of a series, of which an earlier one is preferred.
// Lines are of the form `key = value`, and # begins a comment. name and package
// come first and hold for all; each version begins a base of its own.
func ReadUpstream(path string) ([]Upstream, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var common Upstream
	var bases []Upstream
	number := 0
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		number++
		line, _, _ := strings.Cut(lines.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if key == "version" {
			bases = append(bases, common)
		}
		u := &common
		if len(bases) > 0 {
			u = &bases[len(bases)-1]
		}
		field := u.field(key, len(bases) > 0)
		if field == nil || value == "" || *field != "" {
			return nil, fmt.Errorf("%s:%d: %q does not belong here, has no value, or has two", path, number, key)
		}
		*field = value
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(bases) == 0 {
		return nil, fmt.Errorf("%s: no version", path)
	}
	for i, u := range bases {
		switch {
		case u.Name == "" || u.Package == "" || u.File == "" || u.SHA256 == "":
			return nil, fmt.Errorf("%s: version %s wants name, package, file and sha256", path, u.Version)
		case i > 0 && u.Lacks == "":
			return nil, fmt.Errorf("%s: version %s is not the preferred one, and does not say what it lacks", path, u.Version)
		}
	}
	return bases, nil
}

// field is where the value of a key belongs; nil if it does not.
func (u *Upstream) field(key string, ofBase bool) *string {
	if !ofBase {
		return map[string]*string{"name": &u.Name, "package": &u.Package}[key]
	}
	return map[string]*string{"version": &u.Version, "file": &u.File, "sha256": &u.SHA256, "snapshot": &u.Snapshot, "lacks": &u.Lacks}[key]
}

// retryAfter is for how long a base that could not be had is not asked for again,
// so that not every build waits for archives that do not answer.
const retryAfter = 24 * time.Hour

// settle decides on which of its bases a series is built: the first that can be
// had. The choice is the same for everybody who uses the cache, until a better
// base can be had; see retryAfter.
func (c *Cache) settle(ctx context.Context, s Series) (Series, error) {
	unlock, err := c.Lock("base-" + s.Bases[0].Name)
	if err != nil {
		return s, err
	}
	defer unlock()
	var missing []error
	for i, base := range s.Bases {
		err := c.obtain(ctx, base, i == len(s.Bases)-1)
		if ctx.Err() != nil {
			return s, err
		}
		if err != nil {
			missing = append(missing, err)
			continue
		}
		s.Upstream = base
		return s, c.settledFor(s, i, missing)
	}
	return s, fmt.Errorf("%w\nNone of the bases in %s can be had: see \"Moving to a new base\" in docs/patches.md",
		errors.Join(missing...), filepath.Join(s.Dir, "UPSTREAM"))
}

// settledFor notes that better bases than the one with the index chosen are
// missing, and warns of what that means.
func (c *Cache) settledFor(s Series, chosen int, missing []error) error {
	if chosen == 0 {
		return nil
	}
	for _, err := range missing {
		c.warn(err.Error())
	}
	var notes []string
	for _, base := range s.Bases[:chosen] {
		note := c.missingNote(base)
		if !isRecent(note) {
			if err := os.WriteFile(note, nil, 0o644); err != nil {
				return err
			}
		}
		notes = append(notes, note)
	}
	c.warn(fmt.Sprintf("%s %s is built on instead of %s. It lacks: %s. That is good enough for the lab, and not for a host with guests that are not trusted. "+
		"After %.0f h, or without the file %s, the better one is asked for again",
		s.Upstream.Name, s.Upstream.Version, s.Bases[0].Version, s.Upstream.Lacks, retryAfter.Hours(), strings.Join(notes, ", ")))
	return nil
}

// missingNote is the file that remembers when a base could not be had. The
// checksum is part of the name: another file is another question.
func (c *Cache) missingNote(u Upstream) string {
	return fmt.Sprintf("%s.%s.missing", c.downloaded(u), u.SHA256[:min(12, len(u.SHA256))])
}

func isRecent(note string) bool {
	info, err := os.Stat(note)
	return err == nil && time.Since(info.ModTime()) < retryAfter
}

// obtain makes sure of a base. If it could not be had lately, it is asked for
// only if there is no other.
func (c *Cache) obtain(ctx context.Context, u Upstream, last bool) error {
	if c.holds(u) {
		return nil
	}
	if !last && isRecent(c.missingNote(u)) {
		return fmt.Errorf("%s %s could not be had within the last %.0f h", u.Name, u.Version, retryAfter.Hours())
	}
	_, err := c.Download(ctx, u)
	return err
}

// holds says whether nothing has to be downloaded for a base.
func (c *Cache) holds(u Upstream) bool {
	if _, err := os.Stat(c.entry(pristine(u))); err == nil {
		return true
	}
	return checkSum(c.downloaded(u), u.SHA256) == nil
}

// warn tells a person something once in the life of the process.
func (c *Cache) warn(what string) {
	if c.Warn == nil {
		return
	}
	if _, told := c.told.LoadOrStore(what, true); !told {
		c.Warn(what)
	}
}
