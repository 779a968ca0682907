package build

import (
	"context"
	"embed"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed hostile
var hostileSource embed.FS

// Hostile is what tests use to call Xen as nobody should.
type Hostile struct {
	Program string // for dom0 and the domU; main.c says what it does
	Scanner string // a PVH guest that looks for the secret in its memory
	Compat  string // a PVH guest of 32 bits that uses its warm cache
}

// Hostile builds them with the headers of the patched Xen.
func (c *Cache) Hostile(ctx context.Context, tools Root, series Series) (Hostile, error) {
	key, err := series.Key()
	if err != nil {
		return Hostile{}, err
	}
	source, err := KeyOfTree(hostileSource)
	if err != nil {
		return Hostile{}, err
	}
	dir, err := c.Entry(ctx, "hostile", KeyOf("hostile 1", tools.Key, key, source), func(ctx context.Context, dir string) error {
		if err := os.CopyFS(filepath.Join(dir, "source"), mustSub(hostileSource, "hostile")); err != nil {
			return err
		}
		if err := c.publicHeaders(ctx, series, dir); err != nil {
			return err
		}
		// As <xen/...>, before the headers that Debian's Xen came with.
		if err := os.MkdirAll(filepath.Join(dir, "include"), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(filepath.Join("..", publicDir), filepath.Join(dir, "include/xen")); err != nil {
			return err
		}
		const program = `
gcc -O2 -Wall -Wextra -Wno-unused-parameter -Werror -std=gnu11 -static -pthread -Iinclude -o hostile \
	source/main.c source/call.c source/pool.c source/guest.c source/frames.c source/tricks.c source/race.c source/peer.c source/dom0.c
for guest in scan compat; do
	gcc -m32 -O2 -Wall -Wextra -Werror -std=gnu11 -ffreestanding -fno-pic -fno-pie -fno-stack-protector -fcf-protection=none \
		-mno-sse -mno-mmx -fno-asynchronous-unwind-tables -Iinclude -c -o $guest.o source/$guest.c
	ld -m elf_i386 -static -nostdlib -z noexecstack --build-id=none -Ttext-segment=0x100000 -e _start -o $guest $guest.o
done
strip hostile
rm -rf include xen scan.o compat.o
`
		return tools.Run(ctx, dir, "nice", "sh", "-e", "-c", program)
	})
	return Hostile{Program: filepath.Join(dir, "hostile"), Scanner: filepath.Join(dir, "scan"), Compat: filepath.Join(dir, "compat")}, err
}

// publicDir is where a tree of Xen has the headers of its public interface.
const publicDir = "xen/include/public"

// publicHeaders copies them into dir, as the series leaves them.
func (c *Cache) publicHeaders(ctx context.Context, series Series, dir string) error {
	pristine, err := c.Pristine(ctx, series.Upstream)
	if err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(dir, publicDir), os.DirFS(filepath.Join(pristine, publicDir))); err != nil {
		return err
	}
	touched, err := series.touched()
	if err != nil {
		return err
	}
	ours := slices.DeleteFunc(touched, func(path string) bool { return !strings.HasPrefix(path, publicDir+"/") })
	return c.Patched(ctx, series, dir, ours...)
}
