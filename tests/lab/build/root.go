package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// toolPackages is what the private root holds. With it, the Debian release of
// the machine does not matter.
var toolPackages = []string{
	"ca-certificates", "build-essential", "flex", "bison", "bc", "libelf-dev", "libssl-dev", "python3",
	"cpio", "kmod", "xz-utils", "zstd", "lz4", "quilt", "patch", "git", "pkg-config", "libxen-dev", "uuid-dev",
	"libyajl-dev", "e2fsprogs", "xfsprogs", "golang-go", "rsync",
}

// Root is a Debian root that commands can be run in.
type Root struct {
	Dir  string
	Key  Key
	Bind []string // folders of the machine that are seen in it, at the same path
}

// Tools makes the root with compilers, and with what QEMU needs to run.
func (c *Cache) Tools(ctx context.Context, bind ...string) (Root, error) {
	key := KeyOf("tools 2", toolPackages)
	dir, err := c.Entry(ctx, "tools", key, func(ctx context.Context, dir string) error {
		if err := c.debootstrap(ctx, dir, toolPackages, "trixie-backports"); err != nil {
			return err
		}
		root := Root{Dir: dir}
		// Debian's own QEMU brings the firmware and the libraries for ours.
		if err := root.Run(ctx, "/", "apt-get", "update"); err != nil {
			return err
		}
		return root.Run(ctx, "/", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q",
			"--no-install-recommends", "-t", "trixie-backports", "qemu-system-x86")
	})
	return Root{Dir: dir, Key: key, Bind: append([]string{c.Dir}, bind...)}, err
}

// withBind returns the root with further folders of the machine in it.
func (r Root) withBind(paths ...string) Root {
	r.Bind = append(slices.Clone(paths), r.Bind...)
	return r
}

// Command prepares a command that runs in the root, in the folder dir. The
// process started is the command itself: it can be waited for and killed.
func (r Root) Command(ctx context.Context, dir string, args ...string) *exec.Cmd {
	script := []string{
		"set -e", "mount --make-rprivate /",
		"mount --rbind /dev " + quote(filepath.Join(r.Dir, "dev")),
		"mount -t proc proc " + quote(filepath.Join(r.Dir, "proc")),
		"cat /etc/resolv.conf >" + quote(filepath.Join(r.Dir, "etc/resolv.conf")) + " 2>/dev/null || true",
	}
	for _, path := range r.Bind {
		inside := quote(filepath.Join(r.Dir, path))
		script = append(script, "mkdir -p "+inside, "mount --rbind "+quote(path)+" "+inside)
	}
	script = append(script, "exec chroot "+quote(r.Dir)+` sh -c 'cd "$0" && exec "$@"' "$@"`)
	command := exec.CommandContext(ctx, "unshare", append([]string{"-m", "sh", "-c", strings.Join(script, "\n"), "root", dir}, args...)...)
	// The options of the make that this may run under are not those of a build.
	command.Env = append(os.Environ(), "HOME=/root", "LC_ALL=C.UTF-8", "MAKEFLAGS=", "MFLAGS=",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	// make and ninja then end what they have started, which SIGKILL would not.
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 10 * time.Second
	return command
}

// Run runs a command in the root to its end. Its output is shown only if it
// fails.
func (r Root) Run(ctx context.Context, dir string, args ...string) error {
	return runQuietly(r.Command(ctx, dir, args...))
}

func quote(path string) string { return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'" }

// runQuietly runs a command; the error has the end of what it printed.
func runQuietly(command *exec.Cmd) error {
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	err := command.Run()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(output.String()), "\n")
	lines = lines[max(0, len(lines)-30):]
	var name string
	if args := command.Args; len(args) > 6 && args[0] == "unshare" {
		name = strings.Join(args[6:], " ")
	} else {
		name = strings.Join(args, " ")
	}
	return fmt.Errorf("%s: %w\n%s", name, err, strings.Join(lines, "\n"))
}

// runHost runs a command of the machine itself.
func runHost(ctx context.Context, name string, args ...string) error {
	err := runQuietly(exec.CommandContext(ctx, name, args...))
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w; `make deps` installs what the lab needs", err)
	}
	return err
}
