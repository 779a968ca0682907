package build

import (
	"context"
	"path/filepath"
)

// BootLoader returns Debian's GRUB for PVH domains, which is booted in the place of a
// kernel. It has all that it needs built in, and reads /boot/grub/grub.cfg from
// whichever of the domain's disks has it.
func (c *Cache) BootLoader(ctx context.Context) (string, error) {
	packages := []string{"grub-xen-host"}
	dir, err := c.Entry(ctx, "grub", KeyOf("grub 1", packages), func(ctx context.Context, dir string) error {
		return c.extract(ctx, dir, packages)
	})
	return filepath.Join(dir, "usr/lib/grub-xen/grub-i386-xen_pvh.bin"), err
}
