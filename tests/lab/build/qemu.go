package build

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// qemuPackages is what the root that QEMU is built in holds. It is apart from
// the tools, of which everything else is made.
var qemuPackages = []string{
	"gcc", "libc6-dev", "ninja-build", "meson", "pkg-config", "python3-venv", "python3-pycotap",
	"libglib2.0-dev", "libslirp-dev", "libfdt-dev", "zlib1g-dev",
}

// qemuOptions are for QEMU's configure: what the lab needs, and no more.
var qemuOptions = []string{
	"--target-list=x86_64-softmmu", "--without-default-features", "--enable-tcg", "--enable-slirp",
	"--without-default-devices", "--with-devices-x86_64=lab",
	"--disable-docs", "--disable-install-blobs", "--disable-debug-info", "--disable-qom-cast-debug",
}

// QEMU builds the lab's emulator from its series, with the devices that the file
// devices.mak lists, and returns the program. It runs in the root with the
// tools, where the firmware is; see QEMUFirmware.
func (c *Cache) QEMU(ctx context.Context, series Series) (string, error) {
	patches, err := series.Key()
	if err != nil {
		return "", err
	}
	devices, err := os.ReadFile(filepath.Join(series.Dir, "devices.mak"))
	if err != nil {
		return "", err
	}
	dir, err := c.Entry(ctx, "qemu", KeyOf("qemu 1", qemuPackages, qemuOptions, patches, devices), func(ctx context.Context, dir string) error {
		return c.makeQEMU(ctx, series, devices, dir)
	})
	return filepath.Join(dir, "qemu-system-x86_64"), err
}

// QEMUFirmware are QEMU's arguments that say where its firmware is.
func QEMUFirmware() []string { return []string{"-L", "/usr/share/qemu", "-L", "/usr/share/seabios"} }

func (c *Cache) makeQEMU(ctx context.Context, series Series, devices []byte, dir string) error {
	key := KeyOf("qemu root 1", qemuPackages)
	rootDir, err := c.Entry(ctx, "qemu-root", key, func(ctx context.Context, dir string) error {
		return c.debootstrap(ctx, dir, qemuPackages)
	})
	if err != nil {
		return err
	}
	root := Root{Dir: rootDir, Key: key, Bind: []string{c.Dir}}
	tree, unlock, err := c.workingCopy(ctx, series, "lab")
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.WriteFile(filepath.Join(tree, "configs", "devices", "x86_64-softmmu", "lab.mak"), devices, 0o644); err != nil {
		return err
	}
	work := filepath.Join(tree, "build")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	for _, line := range []string{
		"../configure " + strings.Join(qemuOptions, " "),
		"nice ninja -j2 qemu-system-x86_64",
		"strip -o " + filepath.Join(dir, "qemu-system-x86_64") + " qemu-system-x86_64",
	} {
		if err := root.Run(ctx, work, "sh", "-c", line); err != nil {
			return err
		}
	}
	return nil
}
