package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Mirror says where Debian packages come from.
type Mirror struct {
	Main     string
	Security string
	Snapshot string // what both had at some time
}

// FindMirror takes the mirrors that the machine uses, and Debian's own snapshot
// archive, unless WARMREBOOT_MIRROR, WARMREBOOT_SECURITY_MIRROR and
// WARMREBOOT_SNAPSHOT_MIRROR name others.
func FindMirror(ctx context.Context) (Mirror, error) {
	mirror := Mirror{
		Main:     os.Getenv("WARMREBOOT_MIRROR"),
		Security: os.Getenv("WARMREBOOT_SECURITY_MIRROR"),
		Snapshot: cmp.Or(os.Getenv("WARMREBOOT_SNAPSHOT_MIRROR"), "https://snapshot.debian.org"),
	}
	if mirror.Main != "" && mirror.Security != "" {
		return mirror, nil
	}
	output, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)").Output()
	if err != nil {
		return mirror, fmt.Errorf("ask apt for the machine's mirror: %w", err)
	}
	for _, line := range strings.Split(string(output), "\n") {
		fields := strings.Split(line, "|")
		if len(fields) != 3 || fields[0] != "Debian" {
			continue
		}
		uri := strings.TrimSuffix(fields[2], "/")
		switch {
		case fields[1] == "Debian" && mirror.Main == "":
			mirror.Main = uri
		case fields[1] == "Debian-Security" && mirror.Security == "":
			mirror.Security = uri
		}
	}
	if mirror.Main == "" || mirror.Security == "" {
		return mirror, fmt.Errorf("apt knows no Debian mirror: run `apt-get update`, " +
			"or set WARMREBOOT_MIRROR and WARMREBOOT_SECURITY_MIRROR")
	}
	return mirror, nil
}

// sources returns the lines of a sources.list for trixie.
func (m Mirror) sources(types []string, suites ...string) []string {
	var lines []string
	for _, kind := range types {
		line := func(uri, suite string) {
			lines = append(lines, fmt.Sprintf("%s [signed-by=%s] %s %s main", kind, keyring, uri, suite))
		}
		line(m.Main, "trixie")
		line(m.Security, "trixie-security")
		for _, suite := range suites {
			line(m.Main, suite)
		}
	}
	return lines
}

// places returns where the file of a base may lie, in the order to look: a mirror
// keeps it until some time after a newer version is there, the snapshot archive
// for ever.
func (m Mirror) places(u Upstream) []string {
	// Some mirrors take a plus sign for a space.
	folder := u.Name[:1] + "/" + u.Name + "/" + strings.ReplaceAll(u.File, "+", "%2b")
	main, security := "/pool/main/"+folder, "/pool/updates/main/"+folder
	places := []string{m.Main + main, m.Security + security}
	if u.Snapshot != "" {
		places = append(places, m.Snapshot+"/archive/debian/"+u.Snapshot+main, m.Snapshot+"/archive/debian-security/"+u.Snapshot+security)
	}
	return places
}

// debootstrap makes a minimal trixie root with some packages in dir.
func (c *Cache) debootstrap(ctx context.Context, dir string, packages []string, suites ...string) error {
	var options []string
	for _, path := range []string{"doc", "man", "locale", "info"} {
		options = append(options, "--dpkgopt=path-exclude=/usr/share/"+path+"/*")
	}
	return c.mmdebstrap(ctx, dir, append(options, "--variant=apt"), packages, suites)
}

// extract unpacks some packages in dir, and installs nothing.
func (c *Cache) extract(ctx context.Context, dir string, packages []string, suites ...string) error {
	return c.mmdebstrap(ctx, dir, []string{"--variant=extract"}, packages, suites)
}

func (c *Cache) mmdebstrap(ctx context.Context, dir string, options, packages, suites []string) error {
	mirror, err := FindMirror(ctx)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	args := append(slices.Clone(options), "--quiet", "--include="+strings.Join(packages, ","), "trixie", dir)
	return runHost(ctx, "mmdebstrap", append(args, mirror.sources([]string{"deb"}, suites...)...)...)
}

// Newest returns the newest version in Debian's archive of what a series is based
// on; the preferred base's own if there is none that is newer.
func (c *Cache) Newest(ctx context.Context, s Series) (string, error) {
	unlock, err := c.Lock("download")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := c.apt(ctx, "apt-get", "update"); err != nil {
		return "", err
	}
	base := s.Bases[0]
	listed, err := c.apt(ctx, "apt-cache", "madison", base.Package)
	if err != nil {
		return "", err
	}
	return newest(ctx, base, listed)
}

// newest looks through what apt-cache madison prints: package | version | origin,
// and whether the origin is of Packages or of Sources.
func newest(ctx context.Context, base Upstream, listed []byte) (string, error) {
	kind := "Sources"
	if strings.HasSuffix(base.File, ".deb") {
		kind = "Packages"
	}
	best, found := base.Version, false
	for line := range strings.Lines(string(listed)) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		if len(fields) != 3 || strings.TrimSpace(fields[0]) != base.Package || !strings.HasSuffix(fields[2], " "+kind) {
			continue
		}
		found = true
		version := strings.TrimSpace(fields[1])
		err := exec.CommandContext(ctx, "dpkg", "--compare-versions", version, "gt", best).Run()
		if err == nil {
			best = version
		} else if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			return "", fmt.Errorf("compare versions %s and %s: %w", version, best, err)
		}
	}
	if !found {
		return "", fmt.Errorf("the archive's index has no %s %s at all", kind, base.Package)
	}
	return best, nil
}

// apt runs a command of apt with a configuration of our own, in which trixie is
// known, and returns what it printed.
func (c *Cache) apt(ctx context.Context, tool string, args ...string) ([]byte, error) {
	mirror, err := FindMirror(ctx)
	if err != nil {
		return nil, err
	}
	home := filepath.Join(c.Dir, "apt")
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "etc"} {
		if err := os.MkdirAll(filepath.Join(home, sub), 0o755); err != nil {
			return nil, err
		}
	}
	list := filepath.Join(home, "etc", "sources.list")
	if err := os.WriteFile(list, []byte(strings.Join(mirror.sources([]string{"deb", "deb-src"}, "trixie-backports"), "\n")+"\n"), 0o644); err != nil {
		return nil, err
	}
	options := []string{
		"-q", "-o", "Dir::Etc::SourceList=" + list, "-o", "Dir::Etc::SourceParts=/dev/null",
		"-o", "Dir::Etc::Preferences=/dev/null", "-o", "Dir::Etc::PreferencesParts=/dev/null",
		"-o", "Dir::State::Lists=" + filepath.Join(home, "lists"), "-o", "Dir::Cache=" + filepath.Join(home, "cache"),
		"-o", "Dir::State::Status=/dev/null", "-o", "APT::Sandbox::User=root",
	}
	output, err := exec.CommandContext(ctx, tool, append(options, args...)...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil, fmt.Errorf("%s %s: %w\n%s", tool, args[0], err, exit.Stderr)
	}
	return output, err
}
