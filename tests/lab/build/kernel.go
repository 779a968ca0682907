package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

//go:embed hang
var hangSource embed.FS

// Kernel is a kernel for the domU.
type Kernel struct {
	Image string // bzImage
	Hang  string // module that hangs it, or "" if there is none
}

// Kernel builds the guest kernel from its series and the files of its
// configuration, of which a later one overrides an earlier one.
func (c *Cache) Kernel(ctx context.Context, tools Root, series Series, config []string, variant string) (Kernel, error) {
	key, err := series.Key()
	if err != nil {
		return Kernel{}, err
	}
	var settings []byte
	for _, path := range config {
		content, err := os.ReadFile(path)
		if err != nil {
			return Kernel{}, err
		}
		settings = append(settings, content...)
	}
	module, err := KeyOfTree(hangSource)
	if err != nil {
		return Kernel{}, err
	}
	dir, err := c.Entry(ctx, "kernel-"+variant, KeyOf("kernel 1", tools.Key, key, sha256.Sum256(settings), module),
		func(ctx context.Context, dir string) error {
			tree, unlock, err := c.workingCopy(ctx, series, variant)
			if err != nil {
				return err
			}
			defer unlock()
			if err := makeKernel(ctx, tools, tree, settings, "bzImage", "modules_prepare"); err != nil {
				return err
			}
			if err := buildHang(ctx, tools, tree, dir); err != nil {
				return err
			}
			return CopyFile(filepath.Join(tree, "arch/x86/boot/bzImage"), filepath.Join(dir, "bzImage"))
		})
	return Kernel{Image: filepath.Join(dir, "bzImage"), Hang: filepath.Join(dir, "hang.ko")}, err
}

// KernelModules builds the modules that go with kernel, which was built from
// the same. It returns a folder with lib/modules, config and System.map.
func (c *Cache) KernelModules(ctx context.Context, tools Root, series Series, config, variant string, kernel Kernel) (string, error) {
	key, err := series.Key()
	if err != nil {
		return "", err
	}
	settings, err := os.ReadFile(config)
	if err != nil {
		return "", err
	}
	return c.Entry(ctx, "kernel-modules-"+variant, KeyOf("kernel modules 1", tools.Key, key, sha256.Sum256(settings)),
		func(ctx context.Context, dir string) error {
			tree, unlock, err := c.workingCopy(ctx, series, variant)
			if err != nil {
				return err
			}
			defer unlock()
			if err := makeKernel(ctx, tools, tree, settings, "bzImage", "modules"); err != nil {
				return err
			}
			if err := sameFile(kernel.Image, filepath.Join(tree, "arch/x86/boot/bzImage")); err != nil {
				return err
			}
			if err := tools.Run(ctx, tree, kernelMake("modules_install", "INSTALL_MOD_PATH="+dir, "INSTALL_MOD_STRIP=1")...); err != nil {
				return err
			}
			// Where it was built is nobody's business.
			link, err := filepath.Glob(filepath.Join(dir, "lib/modules/*/build"))
			if err != nil {
				return err
			}
			for _, path := range link {
				if err := os.Remove(path); err != nil {
					return err
				}
			}
			return errors.Join(CopyFile(filepath.Join(tree, ".config"), filepath.Join(dir, "config")),
				CopyFile(filepath.Join(tree, "System.map"), filepath.Join(dir, "System.map")))
		})
}

// sameFile reports an error if two files differ.
func sameFile(a, b string) error {
	one, err := os.ReadFile(a)
	if err != nil {
		return err
	}
	other, err := os.ReadFile(b)
	if err != nil {
		return err
	}
	if !bytes.Equal(one, other) {
		return fmt.Errorf("%s differs from %s, though it was built from the same", a, b)
	}
	return nil
}

// makeKernel configures a tree and makes targets in it.
func makeKernel(ctx context.Context, tools Root, tree string, settings []byte, targets ...string) error {
	if err := configure(ctx, tools, tree, settings); err != nil {
		return err
	}
	return tools.Run(ctx, tree, kernelMake(targets...)...)
}

// configure writes .config, unless it is what an earlier call wrote: a newer
// one would make everything be rebuilt.
func configure(ctx context.Context, tools Root, tree string, settings []byte) error {
	asked := filepath.Join(tree, ".config.asked")
	if before, err := os.ReadFile(asked); err == nil && string(before) == string(settings) {
		return tools.Run(ctx, tree, kernelMake("olddefconfig")...) // a patch may bring options of its own
	}
	if err := os.WriteFile(filepath.Join(tree, ".config"), settings, 0o644); err != nil {
		return err
	}
	if err := tools.Run(ctx, tree, kernelMake("olddefconfig")...); err != nil {
		return err
	}
	return os.WriteFile(asked, settings, 0o644)
}

// kernelMake is the command that builds the kernel. Time and place stay out.
func kernelMake(targets ...string) []string {
	return append([]string{"nice", "make", "-j2", "KBUILD_BUILD_TIMESTAMP=1970-01-01", "KBUILD_BUILD_USER=warmreboot",
		"KBUILD_BUILD_HOST=lab", "KBUILD_BUILD_VERSION=1"}, targets...)
}

// buildHang builds the module beside the image, in dir.
func buildHang(ctx context.Context, tools Root, tree, dir string) error {
	source := filepath.Join(dir, "hang.build")
	if err := os.CopyFS(source, mustSub(hangSource, "hang")); err != nil {
		return err
	}
	// The kernel's modules are not built, so nobody knows which symbols they
	// could use; the kernel itself will tell when the module is loaded.
	if err := tools.Run(ctx, tree, kernelMake("M="+source, "KBUILD_MODPOST_WARN=1", "modules")...); err != nil {
		return err
	}
	return errors.Join(CopyFile(filepath.Join(source, "hang.ko"), filepath.Join(dir, "hang.ko")), os.RemoveAll(source))
}

// PlainKernel writes the kernel that is compressed in a bzImage to a file of its
// own, which Xen's toolstack boots sooner. The fields are those of the kernel's
// Documentation/arch/x86/boot.rst.
func PlainKernel(ctx context.Context, tools Root, image, plain string) error {
	const (
		setupSectors, header, payloadOffset, payloadLength = 0x1f1, 0x202, 0x248, 0x24c
		sizeAtEnd                                          = 4 // of the plain kernel, in bytes
	)
	content, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	if len(content) < payloadLength+4 || string(content[header:][:4]) != "HdrS" {
		return fmt.Errorf("%s is no bzImage", image)
	}
	start := (int(content[setupSectors])+1)*512 + int(binary.LittleEndian.Uint32(content[payloadOffset:]))
	end := start + int(binary.LittleEndian.Uint32(content[payloadLength:])) - sizeAtEnd
	if start > end || end > len(content) {
		return fmt.Errorf("%s is cut off", image)
	}
	compressed := plain + ".lz4"
	defer os.Remove(compressed)
	if err := os.WriteFile(compressed, content[start:end], 0o644); err != nil {
		return err
	}
	return tools.withBind(filepath.Dir(plain)).Run(ctx, "/", "lz4", "-d", "-f", "-q", compressed, plain)
}
