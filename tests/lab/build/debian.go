package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Mirror says where Debian packages come from.
type Mirror struct {
	Main     string
	Security string
}

// FindMirror takes the mirrors that the machine uses, unless WARMREBOOT_MIRROR
// and WARMREBOOT_SECURITY_MIRROR name others.
func FindMirror(ctx context.Context) (Mirror, error) {
	mirror := Mirror{Main: os.Getenv("WARMREBOOT_MIRROR"), Security: os.Getenv("WARMREBOOT_SECURITY_MIRROR")}
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

// pool returns where a file may lie, whatever the index says.
func (m Mirror) pool(u Upstream) []string {
	folder := u.Name[:1] + "/" + u.Name + "/" + u.File
	return []string{m.Main + "/pool/main/" + folder, m.Security + "/pool/updates/main/" + folder}
}

// debootstrap makes a minimal trixie root with some packages in dir.
func (c *Cache) debootstrap(ctx context.Context, dir string, packages []string, suites ...string) error {
	mirror, err := FindMirror(ctx)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	args := []string{"--quiet", "--variant=apt", "--include=" + strings.Join(packages, ",")}
	for _, path := range []string{"doc", "man", "locale", "info"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+path+"/*")
	}
	args = append(args, "trixie", dir)
	return runHost(ctx, "mmdebstrap", append(args, mirror.sources([]string{"deb"}, suites...)...)...)
}

// apt runs a command of apt with a configuration of our own, in which trixie
// is known, in the folder dir.
func (c *Cache) apt(ctx context.Context, dir, tool string, args ...string) error {
	mirror, err := FindMirror(ctx)
	if err != nil {
		return err
	}
	home := filepath.Join(c.Dir, "apt")
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "etc"} {
		if err := os.MkdirAll(filepath.Join(home, sub), 0o755); err != nil {
			return err
		}
	}
	list := filepath.Join(home, "etc", "sources.list")
	if err := os.WriteFile(list, []byte(strings.Join(mirror.sources([]string{"deb", "deb-src"}), "\n")+"\n"), 0o644); err != nil {
		return err
	}
	options := []string{
		"-q", "-o", "Dir::Etc::SourceList=" + list, "-o", "Dir::Etc::SourceParts=/dev/null",
		"-o", "Dir::Etc::Preferences=/dev/null", "-o", "Dir::Etc::PreferencesParts=/dev/null",
		"-o", "Dir::State::Lists=" + filepath.Join(home, "lists"), "-o", "Dir::Cache=" + filepath.Join(home, "cache"),
		"-o", "Dir::State::Status=/dev/null", "-o", "APT::Sandbox::User=root",
	}
	command := exec.CommandContext(ctx, tool, append(options, args...)...)
	command.Dir = dir
	return runQuietly(command)
}
