package lab

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// Variant says which of the two sides is patched, or brings a build of one's
// own.
type Variant struct {
	StockXen    bool   // without the patches
	TrustingXen bool   // with the patches, but the guest is trusted: a test's counterpart
	DebugXen    bool   // with the patches, and with Xen's own checks
	StockKernel bool   // without the patches
	DebugKernel bool   // with the patches, and with the kernel's own checks
	NewerKernel bool   // Linux 7.3 instead of 6.12
	XenFile     string // instead of building one; may be gzipped
	KernelFile  string // instead of building one
	HangFile    string // the module that goes with KernelFile
	NoProduct   bool   // without warmreboot and warmrebootd
	Bochs       bool   // on Intel's VMX and EPT, by Bochs, instead of AMD's SVM, by QEMU; see Config.prepareBochs
	Systemd     bool   // dom0 is an ordinary Debian host, with libvirt
	Unthrottled bool
	Packages    []string // of Debian, for the domU, beside the usual ones
	Saveable    bool     // see Machine.Save
	MemoryMiB   int      // of the machine, of which dom0 has 1024; 0 for 2560
	Processors  int      // of the machine; 0 for 1. With more, its clock is the host's, and times measured by it mean nothing
	SpareMiB    int      // of an empty disk, /dev/vdc in dom0; 0 for none. Its contents are not saved
}

// Parts is all that a lab is made of.
type Parts struct {
	Config  Config
	Hang    string // "" if there is none
	Product build.Product
}

// Key identifies the lab, with some further programs, by content, and whatever else
// makes a difference. The parts lie in folders that are named by their content.
func (p Parts) Key(programs []string, more ...any) (build.Key, error) {
	c := p.Config
	list := append([]any{c.Xen, c.Dom0, c.Guest.Disk, c.Kernel}, more...)
	for _, program := range append([]string{c.QEMU, p.Product.CLI, p.Product.Daemon}, programs...) {
		content, err := os.ReadFile(program)
		if err != nil {
			return build.Key{}, err
		}
		list = append(list, sha256.Sum256(content))
	}
	return build.KeyOf(list...), nil
}

// Prepare builds what a lab of this variant needs, or finds it in the cache.
func Prepare(ctx context.Context, cache *build.Cache, from build.Checkout, v Variant) (Parts, error) {
	tools, err := cache.Tools(ctx)
	if err != nil {
		return Parts{}, err
	}
	agentBinary, err := cache.Agent(ctx, tools, from)
	if err != nil {
		return Parts{}, err
	}
	p := Parts{Config: Config{Root: tools, Unthrottled: v.Unthrottled, Saveable: v.Saveable, MemoryMiB: v.MemoryMiB, SpareMiB: v.SpareMiB, Processors: v.Processors}}
	emulator, err := from.QEMU(ctx, cache)
	if err != nil {
		return p, err
	}
	if p.Config.QEMU, err = cache.QEMU(ctx, emulator); err != nil {
		return p, err
	}
	if v.Bochs {
		source, err := from.Bochs(ctx, cache)
		if err != nil {
			return p, err
		}
		bochs, err := cache.Bochs(ctx, source)
		if err != nil {
			return p, err
		}
		p.Config.Bochs = &bochs
	}
	dom0 := cache.Dom0
	if v.Systemd {
		dom0 = cache.Dom0Systemd
	}
	if p.Config.Dom0, err = dom0(ctx, tools, agentBinary); err != nil {
		return p, err
	}
	if p.Config.Guest, err = cache.Guest(ctx, tools, agentBinary, v.Packages...); err != nil {
		return p, err
	}
	if err := p.hypervisor(ctx, cache, from, v); err != nil {
		return p, err
	}
	if err := p.kernel(ctx, cache, from, v); err != nil {
		return p, err
	}
	if !v.NoProduct {
		p.Product, err = cache.Product(ctx, tools, from)
	}
	return p, err
}

func (p *Parts) hypervisor(ctx context.Context, cache *build.Cache, from build.Checkout, v Variant) error {
	if v.XenFile != "" {
		scratch := filepath.Join(from.Dir, "build", "lab")
		if err := os.MkdirAll(scratch, 0o755); err != nil {
			return err
		}
		plain, err := build.PlainXen(v.XenFile, scratch)
		p.Config.Xen = plain
		return err
	}
	series, err := from.Hypervisor(ctx, cache)
	if err != nil {
		return err
	}
	variant := build.Patched
	if v.StockXen {
		series, variant = series.First(0), build.Stock
	}
	if v.TrustingXen {
		variant = build.Trusting
	}
	if v.DebugXen {
		variant = build.Debug
	}
	p.Config.Xen, err = cache.Xen(ctx, p.Config.Root, series, variant)
	return err
}

func (p *Parts) kernel(ctx context.Context, cache *build.Cache, from build.Checkout, v Variant) error {
	if v.KernelFile != "" {
		p.Config.Kernel, p.Hang = v.KernelFile, v.HangFile
		return nil
	}
	read := from.GuestKernel
	if v.NewerKernel {
		read = from.NewerGuestKernel
	}
	series, err := read(ctx, cache)
	if err != nil {
		return err
	}
	variant := build.Patched
	if v.StockKernel {
		series, variant = series.First(0), build.Stock
	}
	config := []string{from.GuestConfig()}
	if v.DebugKernel {
		config, variant = append(config, from.GuestDebugConfig()), build.Debug
	}
	if v.NewerKernel {
		variant = build.Newer + variant // a tree of its own, and its lock
	}
	kernel, err := cache.Kernel(ctx, p.Config.Root, series, config, variant)
	p.Config.Kernel, p.Hang = kernel.Image, kernel.Hang
	return err
}

// Start boots the parts and installs in dom0 what is not on its disk: the
// guest kernel and the programs under test.
func (p Parts) Start(ctx context.Context, dir string) (*Machine, error) {
	m, err := Boot(ctx, p.config(dir))
	if err != nil {
		return nil, err
	}
	if err := p.install(ctx, m.Dom0()); err != nil {
		return nil, fmt.Errorf("install in dom0: %w", joinStop(err, m))
	}
	return m, nil
}

// Resume goes on with a state that a lab in the same folder has saved.
func (p Parts) Resume(ctx context.Context, dir, state string) (*Machine, error) {
	config := p.config(dir)
	config.Resume = state
	return Boot(ctx, config)
}

func (p Parts) config(dir string) Config {
	config := p.Config
	config.Dir = dir
	// The emulator runs inside the root and sees only what is bound there.
	config.Root.Bind = append([]string{dir, filepath.Dir(config.Xen)}, config.Root.Bind...)
	return config
}

func (p Parts) install(ctx context.Context, dom0 *Client) error {
	files := []struct {
		local, remote string
		mode          os.FileMode
	}{
		{p.Config.Kernel, "/boot/guest-kernel", 0o644},
		{p.Hang, "/root/hang.ko", 0o644},
		{p.Product.CLI, "/usr/local/sbin/warmreboot", 0o755},
		{p.Product.Daemon, "/usr/local/sbin/warmrebootd", 0o755},
	}
	for _, file := range files {
		if file.local == "" {
			continue
		}
		if err := dom0.Put(ctx, file.local, file.remote, file.mode); err != nil {
			return err
		}
	}
	return nil
}
