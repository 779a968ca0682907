package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Bochs emulates Intel's processors with VMX and EPT, which QEMU does not.
type Bochs struct {
	Root    Root // that it runs in, where its firmware is, and GRUB
	Program string
}

// bochsPackages is what the root that Bochs is built and runs in holds.
var bochsPackages = []string{"g++", "make", "bochsbios", "vgabios", "grub-pc-bin", "grub-common", "xorriso"}

// bochsOptions are for its configure: what the lab needs, and no more. It counts
// the instructions per second, if it is to, in the handler of a signal, and logs
// them there: it waits for the log's lock for ever if it is interrupted while it
// logs something else.
var bochsOptions = []string{
	"--enable-x86-64", "--enable-vmx=2", "--enable-avx", "--enable-evex", "--enable-all-optimizations", "--disable-show-ips",
	"--enable-e1000", "--with-nogui", "--disable-docbook",
}

// Bochs builds the emulator from its source, as it is.
func (c *Cache) Bochs(ctx context.Context, from Upstream) (Bochs, error) {
	key := KeyOf("bochs root 1", bochsPackages)
	rootDir, err := c.Entry(ctx, "bochs-root", key, func(ctx context.Context, dir string) error {
		return c.debootstrap(ctx, dir, bochsPackages)
	})
	if err != nil {
		return Bochs{}, err
	}
	root := Root{Dir: rootDir, Key: key, Bind: []string{c.Dir}}
	dir, err := c.Entry(ctx, "bochs", KeyOf("bochs 1", key, bochsOptions, from.identity()), func(ctx context.Context, dir string) error {
		pristine, err := c.Pristine(ctx, from)
		if err != nil {
			return err
		}
		tree := filepath.Join(dir, "tree")
		if err := copyTree(ctx, pristine, tree); err != nil {
			return err
		}
		for _, line := range []string{
			"CFLAGS=-O2 CXXFLAGS=-O2 ./configure " + strings.Join(bochsOptions, " "),
			"nice make -j2",
			"strip -o " + filepath.Join(dir, "bochs") + " bochs",
		} {
			if err := root.Run(ctx, tree, "sh", "-c", line); err != nil {
				return err
			}
		}
		return os.RemoveAll(tree)
	})
	return Bochs{Root: root, Program: filepath.Join(dir, "bochs")}, err
}

// BochsFirmware are the lines of Bochs's configuration that say where its firmware is.
const BochsFirmware = `romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios-stdvga.bin
`

// Disc makes a CD that GRUB boots Xen from, as Bochs starts nothing by itself.
func (b Bochs) Disc(ctx context.Context, image, xen, xenArguments, kernel, kernelArguments, initrd string) error {
	menu := image + ".cfg"
	text := fmt.Sprintf("multiboot /boot/xen %s\nmodule /boot/vmlinuz %s\nmodule /boot/initrd.img\nboot\n", xenArguments, kernelArguments)
	if err := os.WriteFile(menu, []byte(text), 0o644); err != nil {
		return err
	}
	root := b.Root.withBind(filepath.Dir(image), filepath.Dir(xen))
	return root.Run(ctx, "/", "grub-mkrescue", "-o", image, "--install-modules=normal iso9660 biosdisk multiboot",
		"--locales=", "--fonts=", "--themes=", "boot/grub/grub.cfg="+menu, "boot/xen="+xen, "boot/vmlinuz="+kernel, "boot/initrd.img="+initrd)
}
