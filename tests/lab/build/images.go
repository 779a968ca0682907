package build

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/warmreboot/warmreboot/tests/lab/agent"
)

// overlay holds, for each image, the files that are ours rather than Debian's.
//
//go:embed overlay
var overlay embed.FS

// Dom0 is what dom0 boots from. InitrdIDE is the initrd for a machine with IDE disks
// and an e1000, as Bochs emulates them.
type Dom0 struct{ Kernel, Initrd, InitrdIDE, Disk string }

// Guest is the domU's own disk, and what its files have to be.
type Guest struct {
	Disk string
	Sums agent.Sums // of the files under WebRoot
}

// Where the domU keeps the files that the demo reads.
const (
	WebRoot   = "/srv/www"
	ImageRoot = "/srv/img"
)

// Dataset is what the domU serves.
var Dataset = agent.Dataset{Seed: 1, Bytes: 192 << 20}

var (
	dom0Packages = []string{"xen-utils-4.20", "xenstore-utils", "linux-image-amd64", "busybox-static", "kmod",
		"iproute2", "e2fsprogs", "xfsprogs"}
	dom0SystemdPackages = slices.Concat(dom0Packages, []string{"dbus", "libvirt-daemon-driver-xen", "libvirt-clients",
		"grub2-common", "xen-hypervisor-4.20-amd64"})
	guestPackages = []string{"nginx-light", "busybox-static", "kmod", "iproute2"}
	// What is loaded in dom0 before its root disk is looked for: what any dom0 needs,
	// after the drivers of a machine's disks and network.
	initrdModules = []string{"ext4", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd", "xen-blkback", "xen-netback", "loop", "xenfs"}
	virtioModules = []string{"virtio_pci", "virtio_blk", "virtio_net"}
	ideModules    = []string{"ata_piix", "sd_mod", "e1000"}
)

// Dom0 makes dom0's disk and initrd. agentBinary is the lab's agent.
func (c *Cache) Dom0(ctx context.Context, tools Root, agentBinary string) (Dom0, error) {
	return c.dom0(ctx, tools, agentBinary, "dom0", dom0Packages, busyboxInit, "1000M", "dom0")
}

// Dom0Systemd makes a dom0 like an ordinary Debian host: systemd starts
// Debian's own units. It has libvirt, too.
func (c *Cache) Dom0Systemd(ctx context.Context, tools Root, agentBinary string) (Dom0, error) {
	return c.dom0(ctx, tools, agentBinary, "dom0-systemd", dom0SystemdPackages, systemdInit, "1400M", "dom0", "dom0-systemd")
}

// Dom0SystemdRoot is what that dom0's disk is made from.
func (c *Cache) Dom0SystemdRoot(ctx context.Context) (string, error) {
	return c.dom0Root(ctx, "dom0-systemd", dom0SystemdPackages)
}

func (c *Cache) dom0Root(ctx context.Context, name string, packages []string) (string, error) {
	return c.Entry(ctx, name+"-root", KeyOf(name+" 1", packages), func(ctx context.Context, dir string) error {
		return c.debootstrap(ctx, dir, packages)
	})
}

// Names of files of a dom0's image.
const (
	initrd    = "initrd.img"
	initrdIDE = "initrd-ide.img"
)

func (c *Cache) dom0(ctx context.Context, tools Root, agentBinary, name string, packages []string, init initSystem, size string, overlays ...string) (Dom0, error) {
	root, err := c.dom0Root(ctx, name, packages)
	if err != nil {
		return Dom0{}, err
	}
	var trees []string
	for _, overlay := range append(slices.Clone(overlays), "initrd") {
		trees = append(trees, "overlay/"+overlay)
	}
	key, err := imageKey(KeyOf(name+" 2", packages), agentBinary, trees...)
	if err != nil {
		return Dom0{}, err
	}
	dir, err := c.Entry(ctx, name+"-image", key, func(ctx context.Context, dir string) error {
		stage, err := c.stage(ctx, root, dir, agentBinary, init, overlays...)
		if err != nil {
			return err
		}
		for name, drivers := range map[string][]string{initrd: virtioModules, initrdIDE: ideModules} {
			if err := dom0Initrd(ctx, tools, stage, filepath.Join(dir, name), append(slices.Clone(drivers), initrdModules...)); err != nil {
				return err
			}
		}
		if err := xfsImage(ctx, tools, filepath.Join(stage, "srv/img.raw"), dir); err != nil {
			return err
		}
		return diskImage(ctx, tools, stage, filepath.Join(dir, "disk.img"), size, "^has_journal")
	})
	return Dom0{
		Kernel: filepath.Join(dir, "vmlinuz"), Initrd: filepath.Join(dir, initrd),
		InitrdIDE: filepath.Join(dir, initrdIDE), Disk: filepath.Join(dir, "disk.img"),
	}, err
}

// Guest makes the domU's disk, with more of Debian's packages than the usual
// ones if some are named.
func (c *Cache) Guest(ctx context.Context, tools Root, agentBinary string, more ...string) (Guest, error) {
	packages := slices.Concat(guestPackages, more)
	rootKey := KeyOf("guest 1", packages)
	root, err := c.Entry(ctx, "guest-root", rootKey, func(ctx context.Context, dir string) error {
		return c.debootstrap(ctx, dir, packages)
	})
	if err != nil {
		return Guest{}, err
	}
	key, err := imageKey(rootKey, agentBinary, "overlay/guest")
	if err != nil {
		return Guest{}, err
	}
	dir, err := c.Entry(ctx, "guest-image", KeyOf(key, Dataset), func(ctx context.Context, dir string) error {
		stage, err := c.stage(ctx, root, dir, agentBinary, busyboxInit, "guest")
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(stage, ImageRoot), 0o755); err != nil {
			return err
		}
		if err := Dataset.Write(filepath.Join(stage, WebRoot)); err != nil {
			return err
		}
		sums, err := agent.SumTree(filepath.Join(stage, WebRoot))
		if err != nil {
			return err
		}
		text, err := json.Marshal(sums)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "sums.json"), text, 0o644); err != nil {
			return err
		}
		return diskImage(ctx, tools, stage, filepath.Join(dir, "disk.img"), "800M", "has_journal")
	})
	if err != nil {
		return Guest{}, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "sums.json"))
	if err != nil {
		return Guest{}, err
	}
	sums, err := agent.Decode[agent.Sums](text)
	return Guest{Disk: filepath.Join(dir, "disk.img"), Sums: sums}, err
}

func imageKey(root Key, agentBinary string, overlays ...string) (Key, error) {
	binary, err := os.ReadFile(agentBinary)
	if err != nil {
		return Key{}, err
	}
	parts := []any{"image 2", root, sha256.Sum256(binary)}
	for _, dir := range overlays {
		key, err := KeyOfTree(mustSub(overlay, dir))
		if err != nil {
			return Key{}, err
		}
		parts = append(parts, key)
	}
	return KeyOf(parts...), nil
}

// initSystem says where the links to a root's init and to what stops it lead.
type initSystem struct{ init, stop string }

var (
	busyboxInit = initSystem{"/bin/busybox", "/bin/busybox"}
	systemdInit = initSystem{"/usr/lib/systemd/systemd", "/usr/bin/systemctl"}
)

// stage copies a root and lays our files over it.
func (c *Cache) stage(ctx context.Context, root, dir, agentBinary string, init initSystem, overlays ...string) (string, error) {
	stage := filepath.Join(dir, "stage")
	if err := runHost(ctx, "cp", "-a", root, stage); err != nil {
		return "", err
	}
	// Images differ from the cached root in a few files only; the rest of the
	// packages' leftovers would cost time at every boot.
	for _, path := range []string{"var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"} {
		if err := os.RemoveAll(filepath.Join(stage, path)); err != nil {
			return "", err
		}
	}
	for _, name := range overlays {
		if err := layOver(stage, "overlay/"+name); err != nil {
			return "", err
		}
	}
	for name, target := range map[string]string{"init": init.init, "reboot": init.stop, "poweroff": init.stop, "halt": init.stop} {
		link := filepath.Join(stage, "usr/sbin", name)
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err := os.Symlink(target, link); err != nil {
			return "", err
		}
	}
	return stage, CopyFile(agentBinary, filepath.Join(stage, "usr/local/sbin/labagent"))
}

// layOver copies one of the embedded trees into root. Scripts, which are what
// begins with #!, can be executed.
func layOver(root, dir string) error {
	tree := mustSub(overlay, dir)
	return fs.WalkDir(tree, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(tree, path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(string(content), "#!") {
			mode = 0o755
		}
		target := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, content, mode)
	})
}

// diskImage turns stage into a disk with ext4 on it.
func diskImage(ctx context.Context, tools Root, stage, image, size, feature string) error {
	if err := tools.Run(ctx, "/", "mke2fs", "-q", "-t", "ext4", "-O", feature, "-d", stage, "-F", image, size); err != nil {
		return err
	}
	return os.RemoveAll(stage)
}

// EmptyDisk makes a disk of so many MiB, of which no block is allocated.
func EmptyDisk(image string, mib int64) error {
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		return err
	}
	return os.Truncate(image, mib<<20)
}

// xfsImage makes a disk of 320 MiB, XFS's least, with a few files on it.
func xfsImage(ctx context.Context, tools Root, image, scratch string) error {
	source := filepath.Join(scratch, "img")
	defer os.RemoveAll(source)
	prototype := []string{"/", "0 0", "d--755 0 0"}
	for i, size := range []int64{8 << 20, 3_000_000, 65_537, 16 << 20, 4096} {
		path := filepath.Join(source, fmt.Sprintf("image-%d.bin", i))
		if err := agent.WriteContent(path, uint64(1000+i), size); err != nil {
			return err
		}
		prototype = append(prototype, fmt.Sprintf("%s ---644 0 0 %s", filepath.Base(path), path))
	}
	description := filepath.Join(source, "prototype")
	text := strings.Join(append(prototype, "$", ""), "\n")
	if err := os.WriteFile(description, []byte(text), 0o644); err != nil {
		return err
	}
	if err := EmptyDisk(image, 320); err != nil {
		return err
	}
	return tools.Run(ctx, "/", "mkfs.xfs", "-q", "-f", "-p", description, image)
}

// dom0Initrd packs busybox, the modules that dom0 needs, in the order in which
// they are loaded, and our init. It leaves the kernel beside the image.
func dom0Initrd(ctx context.Context, tools Root, stage, image string, modules []string) error {
	dir := filepath.Dir(image)
	kernels, err := filepath.Glob(filepath.Join(stage, "boot/vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return fmt.Errorf("want one kernel in dom0's root, found %d", len(kernels))
	}
	version := strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	if err := CopyFile(kernels[0], filepath.Join(dir, "vmlinuz")); err != nil {
		return err
	}
	tree := filepath.Join(dir, "initrd")
	defer os.RemoveAll(tree)
	if err := layOver(tree, "overlay/initrd"); err != nil {
		return err
	}
	script := `
stage=$1 version=$2 tree=$3 image=$4
shift 4
mkdir -p "$tree/bin" "$tree/lib"
cp "$stage/bin/busybox" "$tree/bin/"
modprobe -d "$stage" -S "$version" -a --show-depends "$@" |
while read -r action file rest; do
	[ "$action" = insmod ] || continue
	name=$(basename "$file" .xz)
	grep -qsx "$name" "$tree/modules" && continue
	xz -dc "$file" >"$tree/lib/$name"
	echo "$name" >>"$tree/modules"
done
rm -rf "$stage/boot/initrd.img"*
cd "$tree" && find . | cpio -o -H newc --quiet >"$image"
`
	return tools.Run(ctx, "/", append([]string{"sh", "-e", "-c", script, "initrd", stage, version, tree, image},
		modules...)...)
}
