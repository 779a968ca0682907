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
	"time"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/tests/faults"
	"github.com/warmreboot/warmreboot/tests/faults/hand"
	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/build"
	"github.com/warmreboot/warmreboot/tests/lab/demo"
)

// Served are the folders of the domU that are read and never written; WorkRoot
// is what is written.
const (
	Served   = build.WebRoot + "/00," + build.WebRoot + "/01," + build.WebRoot + "/02"
	WorkRoot = "/srv/work"
	seenRoot = build.WebRoot + "/01" // of these, the guest compares its view with the disk
)

// Where the bench keeps things in the machines: in memory, out of the faults'
// reach through the disk.
const (
	pristinePath = "/tmp/pristine"
	inodesPath   = "/tmp/inodes.json"
	modulePath   = "/tmp/faults.ko"
	// A smaller domU than the lab's, of which the page cache is a larger part.
	configPath = "/tmp/domU.cfg"
)

// state is the name of the snapshot that every run begins with.
const state = "ready"

// Tools are what is put into the machines.
type Tools struct{ Hand, Module string }

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
	series, err := checkout.GuestKernel()
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
	saved saved
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
	if b.saved, err = readSaved(b.Dir); err == nil && b.saved.Key == key {
		return b, nil
	}
	machine, err := parts.Start(ctx, b.Dir)
	if err != nil {
		return nil, err
	}
	b.Machine, b.Product, b.saved = machine, demo.Product{Dom0: machine.Dom0()}, saved{Key: key}
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the lab: %w", err), machine.Stop())
	}
	return b, nil
}

func (b *Bench) prepare(ctx context.Context) error {
	dom0 := b.Product.Dom0
	if err := os.Remove(filepath.Join(b.Dir, savedName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	pristine, err := sums(b.parts.Config.Guest.Disk)
	if err != nil {
		return err
	}
	if err := dom0.PutBytes(ctx, pristine, pristinePath); err != nil {
		return err
	}
	if err := b.StartAgent(ctx); err != nil {
		return err
	}
	// Without the comparison in dom0, which would hide what gets past Xen.
	for _, line := range []string{"sed -e 's/^memory.*/memory = 256/' -e 's|^disk.*|disk = [ \"phy:/dev/vdb,xvda,w\" ]|' /etc/xen/" +
		lab.Domain + ".cfg >" + configPath, "xl create -p " + configPath,
		"warmreboot enable --content none " + lab.Domain, "xl unpause " + lab.Domain} {
		if _, err := dom0.Shell(ctx, line); err != nil {
			return err
		}
	}
	if b.saved.Domid, err = dom0.Shell(ctx, "xl domid "+lab.Domain); err != nil {
		return err
	}
	if err := b.prepareDomU(ctx); err != nil {
		return err
	}
	if err := b.Save(ctx, state); err != nil {
		return err
	}
	if err := b.Quit(ctx); err != nil {
		return err
	}
	return b.saved.write(b.Dir)
}

func (b *Bench) prepareDomU(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := b.DomU().Await(ctx); err != nil {
		return err
	}
	if err := b.DomU().Put(ctx, b.tools.Hand, hand.Program, 0o755); err != nil {
		return err
	}
	if err := b.DomU().Put(ctx, b.tools.Module, modulePath, 0o644); err != nil {
		return err
	}
	symbol, err := b.DomU().Shell(ctx, "grep ' kallsyms_lookup_name$' /proc/kallsyms")
	if err != nil {
		return err
	}
	b.saved.Lookup, _, _ = strings.Cut(symbol, " ")
	prepared, err := lab.JSON[hand.Prepared](ctx, b.DomU(), hand.Program, "prepare", Served, WorkRoot)
	if err != nil {
		return err
	}
	inodes, err := json.Marshal(prepared.Inodes)
	if err != nil {
		return err
	}
	if err := b.Product.Dom0.PutBytes(ctx, inodes, inodesPath); err != nil {
		return err
	}
	status, err := b.Status(ctx)
	if err == nil && status.Last != nil {
		b.saved.Before = status.Last.Sequence
	}
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
	return b.Product.Dom0.Put(ctx, b.tools.Hand, hand.Program, 0o755)
}
