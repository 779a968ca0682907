package campaign

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/tests/faults"
	"github.com/warmreboot/warmreboot/tests/faults/guest"
	"github.com/warmreboot/warmreboot/tests/faults/hand"
	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/build"
	"github.com/warmreboot/warmreboot/tests/lab/demo"
)

// order is the same for all runs. What is served are some 30 MB of small and
// middle-sized files.
var order = guest.Order{
	Domain: lab.Domain,
	Served: build.WebRoot + "/00," + build.WebRoot + "/03," + build.WebRoot + "/07",
	Work:   "/srv/work",
	Seen:   build.WebRoot + "/03",
}

// What the domU's disk is attached with: Debian's script, which starts sixty
// processes to see what can go wrong, is most of what the emulator would do in
// a reboot.
const (
	blockScript     = "/etc/xen/scripts/block-lab"
	blockScriptText = `#!/bin/sh
[ "$1" = add ] || exit 0
exec xenstore-write "$XENBUS_PATH/physical-device" DEVICE "$XENBUS_PATH/hotplug-status" connected
`
)

// config is the campaign's domU: smaller than the lab's, so that its page cache
// is a larger part of it; with one process and one vCPU, since two that share the
// emulator's processor wait for each other most of the time; with nothing on the
// console but faults and what comes of them; and without a second of waiting, in
// which the processor is busy, when it panics. What the kernel writes late, it
// writes after a fifth of the usual time, so that ten seconds of work hold what
// fifty would.
const (
	configPath = "/tmp/domU.cfg"
	config     = `name = "` + lab.Domain + `"
uuid = "5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b01"
type = "pvh"
kernel = "/boot/guest-kernel"
cmdline = "root=/dev/xvda rootfstype=ext4 rootflags=commit=1 rw console=hvc0 panic=-1 oops=panic loglevel=5 mitigations=off sysctl.vm.dirty_expire_centisecs=600 sysctl.vm.dirty_writeback_centisecs=100 init=` + guest.Program + `"
memory = 160
vcpus = 1
tsc_mode = "native"
disk = [ "format=raw,vdev=xvda,access=rw,backendtype=phy,script=block-lab,target=/dev/vdb" ]
on_poweroff = "destroy"
on_reboot = "restart"
on_crash = "restart"
`
)

// state is the name of the snapshot that every run begins with.
const state = "ready"

// Tools are what is put into the machines.
type Tools struct{ Hand, Guest, Module string }

// BuildTools builds them, or finds them in the cache.
func BuildTools(ctx context.Context, cache *build.Cache, checkout build.Checkout) (Tools, error) {
	var t Tools
	root, err := cache.Tools(ctx)
	if err != nil {
		return t, err
	}
	if t.Hand, err = cache.Program(ctx, root, checkout, "./tests/faults/cmd/faulthand"); err != nil {
		return t, err
	}
	if t.Guest, err = cache.Program(ctx, root, checkout, "./tests/faults/cmd/faultguest"); err != nil {
		return t, err
	}
	series, err := checkout.GuestKernel(ctx, cache)
	if err != nil {
		return t, err
	}
	source, err := fs.Sub(faults.Injector, "injector")
	if err != nil {
		return t, err
	}
	t.Module, err = cache.Module(ctx, root, series, checkout.GuestConfig(), "faults", source)
	return t, err
}

// Bench is a lab in which runs are made. Each begins with the same state of
// the whole machine: the domU is up, its cache is full, its disk is as it was.
type Bench struct {
	*lab.Machine
	demo.Product
	parts lab.Parts
	mode  Mode
	tools Tools
	logs  string // folder
}

// Open brings the lab of a mode to the state in which runs begin: it boots it,
// unless an earlier call with the same parts has left that state. Logs of the
// runs go to the folder logs.
func Open(ctx context.Context, cache *build.Cache, checkout build.Checkout, mode Mode, name, logs string) (*Bench, error) {
	// Faults don't depend on how slow the disk is.
	parts, err := lab.Prepare(ctx, cache, checkout, lab.Variant{TrustingXen: mode == Trusting, Unthrottled: true, Saveable: true})
	if err != nil {
		return nil, err
	}
	tools, err := BuildTools(ctx, cache, checkout)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, err
	}
	b := &Bench{Machine: &lab.Machine{Dir: filepath.Join(cache.Dir, "labs", name+"-"+string(mode))}, parts: parts, mode: mode,
		tools: tools, logs: logs}
	key, err := b.key()
	if err != nil {
		return nil, err
	}
	if readKey(b.Dir) == key {
		return b, nil
	}
	if err := b.plainKernel(ctx); err != nil {
		return nil, err
	}
	machine, err := b.parts.Start(ctx, b.Dir)
	if err != nil {
		return nil, err
	}
	b.Machine, b.Product = machine, demo.Product{Dom0: machine.Dom0()}
	if err := b.prepare(ctx, key); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the lab: %w", err), machine.Stop())
	}
	return b, nil
}

// Beside returns another lab with the same state, in a folder of its own.
func (b *Bench) Beside(name string) (*Bench, error) {
	other := *b
	other.Machine = &lab.Machine{Dir: filepath.Join(filepath.Dir(b.Dir), name+"-"+string(b.mode))}
	return &other, copyState(b.Dir, other.Dir)
}

func (b *Bench) prepare(ctx context.Context, key string) error {
	if err := forgetKey(b.Dir); err != nil {
		return err
	}
	dom0 := b.Product.Dom0
	if err := b.install(ctx); err != nil {
		return err
	}
	// Without the comparisons in dom0, in the background and at the reboot, which
	// would hide what gets past Xen.
	if err := b.StartAgent(ctx, "--scrub-rate 0"); err != nil {
		return err
	}
	text, err := json.Marshal(order)
	if err != nil {
		return err
	}
	for _, line := range []string{"xl create -p " + configPath, "warmreboot enable --content none " + lab.Domain, "xl unpause " + lab.Domain,
		hand.Program + " prepare '" + string(text) + "'"} {
		if _, err := dom0.Shell(ctx, line); err != nil {
			return err
		}
	}
	if err := b.Save(ctx, state); err != nil {
		return err
	}
	if err := b.Quit(ctx); err != nil {
		return err
	}
	return writeKey(b.Dir, key)
}

// plainKernel has the domU boot a kernel that need not be decompressed.
func (b *Bench) plainKernel(ctx context.Context) error {
	if err := os.MkdirAll(b.Dir, 0o755); err != nil {
		return err
	}
	plain := filepath.Join(b.Dir, "vmlinux")
	config := &b.parts.Config
	if err := build.PlainKernel(ctx, config.Root, config.Kernel, plain); err != nil {
		return err
	}
	config.Kernel = plain
	return nil
}

// install puts what runs need into dom0, and onto the domU's disk.
func (b *Bench) install(ctx context.Context) error {
	dom0 := b.Product.Dom0
	pristine, err := sums(b.parts.Config.Guest.Disk)
	if err != nil {
		return err
	}
	const module, program = "/tmp/faults.ko", "/tmp/faultguest"
	if err := errors.Join(dom0.PutBytes(ctx, pristine, hand.Pristine), dom0.PutBytes(ctx, []byte(config), configPath),
		dom0.PutBytes(ctx, []byte(blockScriptText), blockScript), dom0.Put(ctx, b.tools.Module, module, 0o644),
		dom0.Put(ctx, b.tools.Guest, program, 0o755), dom0.Put(ctx, b.tools.Hand, hand.Program, 0o755)); err != nil {
		return err
	}
	_, err = dom0.Shell(ctx, strings.Join([]string{"chmod +x " + blockScript, "sed -i s/DEVICE/$(stat -c %t:%T /dev/vdb)/ " + blockScript, "mount /dev/vdb /mnt",
		"cp " + program + " /mnt" + guest.Program, "cp " + module + " /mnt" + guest.Module, "umount /mnt"}, " && "))
	return err
}

// sums returns the hand.Sum of each block of a disk image.
func sums(image string) ([]byte, error) {
	file, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var all []byte
	for block := make([]byte, cachemap.PageSize); ; {
		if _, err := io.ReadFull(file, block); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = binary.LittleEndian.AppendUint64(all, hand.Sum(block))
	}
}

// load brings the machine to the state in which runs begin.
func (b *Bench) load(ctx context.Context) error {
	machine, err := b.parts.Resume(ctx, b.Dir, state)
	if err != nil {
		return err
	}
	b.Machine, b.Product = machine, demo.Product{Dom0: machine.Dom0()}
	return nil
}
