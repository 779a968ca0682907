package main

import (
	"context"
	"fmt"
	"time"

	"github.com/warmreboot/warmreboot/tests/bench/hand"
	"github.com/warmreboot/warmreboot/tests/lab"
)

// The variants of being tracked.
const (
	On    = "on"    // the domain is enabled
	Off   = "off"   // it is not, with the same kernel
	Stock = "stock" // nor is its kernel patched
	// Mapped is off, and each I/O's pages are mapped by dom0 anew, as they have to
	// be where they are tracked. Otherwise data are copied to pages that stay
	// mapped (blkfront's persistent grants).
	Mapped = "off-mapped"
)

// stockPath is the kernel without the patches, in dom0.
const stockPath = "/boot/guest-kernel-stock"

// operation is something whose cost is measured.
type operation struct {
	name string
	make func(context.Context) (hand.Result, error)
}

func (b *bench) operations() []operation {
	write := func(name string, bytes int64) operation {
		return operation{name, func(ctx context.Context) (hand.Result, error) {
			return inHand[hand.Result](ctx, b.domU, "write", name, writeRoot, bytes, phy)
		}}
	}
	read := func(ctx context.Context) (hand.Result, error) {
		return inHand[hand.Result](ctx, b.domU, "pass", largeRoot, phy)
	}
	return []operation{
		// What it costs to start the hand, and to ask Xen: it is subtracted.
		{"nothing", func(ctx context.Context) (hand.Result, error) {
			return inHand[hand.Result](ctx, b.domU, "pass", "/etc/nginx", phy)
		}},
		{"cold", read},
		{"cached", read}, // the second read moves the pages to the active list
		{"cached", read},
		write("write", b.Sizes.WriteBytes), write("rewrite", b.Sizes.WriteBytes), write("mmap", b.Sizes.WriteBytes),
		write("fsync", b.Sizes.SyncBytes), write("churn", b.Sizes.ChurnBytes),
	}
}

// recreate ends the domU, forgets it, and makes it anew.
func (b *bench) recreate(ctx context.Context, d domain) error {
	// Disabled without an error, too, if it was not enabled.
	script := fmt.Sprintf("warmreboot disable %[1]s >/dev/null 2>&1; xl destroy %[1]s 2>/dev/null; while xl domid %[1]s >/dev/null 2>&1; do sleep 0.1; done", lab.Domain)
	syncing, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, _ = b.domU.Shell(syncing, "sync") // it may be down, after a failure
	if _, err := b.dom0.Shell(ctx, script); err != nil {
		return err
	}
	return b.create(ctx, d)
}

// counters are those of the warm cache, as `warmreboot status` has them.
type counters struct {
	Attached    bool    `json:"attached"`
	Hypercalls  float64 `json:"hypercalls"`
	WriteFaults float64 `json:"write_faults"`
	Registered  float64 `json:"registered"`
	Commits     float64 `json:"commits"`
	Committed   float64 `json:"committed"` // pages, now
}

func (b *bench) counters(ctx context.Context) (counters, error) {
	return lab.JSON[counters](ctx, b.dom0, "warmreboot", "status", "-o", "json", lab.Domain)
}

// track makes the domU anew, and measures each operation in it.
func (b *bench) track(ctx context.Context, r *Round) error {
	d := domain{enable: r.Variant == On, memory: b.Sizes.MemoryMiB}
	switch r.Variant {
	case Stock:
		d.kernel = stockPath
	case Mapped:
		d.words = "xen_blkfront.feature_persistent=0"
	}
	b.warm = false
	if err := b.recreate(ctx, d); err != nil {
		return err
	}
	if _, err := b.domU.Shell(ctx, "rm -rf "+writeRoot+"; sync"); err != nil {
		return err
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	// Brings in the hand, and has Go's files and the libraries cached.
	for range 2 {
		if _, err := b.operations()[0].make(ctx); err != nil {
			return err
		}
	}
	domid, err := b.domid(ctx)
	if err != nil {
		return err
	}
	c, err := b.counters(ctx)
	if err != nil {
		return err
	}
	if c.Attached != d.enable {
		return fmt.Errorf("the guest is tracked: %t, want %t", c.Attached, d.enable)
	}
	was, err := b.sample(ctx, domid)
	if err != nil {
		return err
	}
	for _, o := range b.operations() {
		if was, err = b.cost(ctx, r, domid, was, o); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	total, err := inHand[float64](ctx, b.domU, "memory")
	if err != nil {
		return err
	}
	r.Values["guest_memory_bytes"] = total
	if !d.enable {
		return nil
	}
	spread, err := inHand[hand.Spread](ctx, b.dom0, "spread", domid)
	r.Values["reusable_pages"], r.Values["split_regions"], r.Values["regions"] = float64(spread.Pages), float64(spread.Regions), float64(spread.All)
	return err
}

// sample is what has been used and counted so far.
type sample struct {
	counters
	used
}

func (b *bench) sample(ctx context.Context, domid string) (sample, error) {
	c, err := b.counters(ctx)
	if err != nil {
		return sample{}, err
	}
	u, err := b.used(ctx, domid)
	return sample{c, u}, err
}

// cost measures one operation, and returns the sample after it. In what is used
// between two samples one of them is included.
func (b *bench) cost(ctx context.Context, r *Round, domid string, was sample, o operation) (sample, error) {
	result, err := o.make(ctx)
	if err != nil {
		return was, err
	}
	is, err := b.sample(ctx, domid)
	if err != nil {
		return was, err
	}
	spent := is.since(was.used)
	v := r.Values
	v[o.name+"_seconds"] = result.Seconds
	v[o.name+"_requests"] = float64(result.DiskRequests + result.DiskWrites)
	v[o.name+"_dom0_cpu_seconds"] = spent.dom0
	v[o.name+"_domU_cpu_seconds"] = spent.domU
	v[o.name+"_cpu_seconds"] = spent.dom0 + spent.domU - v["nothing_dom0_cpu_seconds"] - v["nothing_domU_cpu_seconds"]
	v[o.name+"_hypercalls"] = is.Hypercalls - was.Hypercalls
	v[o.name+"_write_faults"] = is.WriteFaults - was.WriteFaults
	v[o.name+"_registered"] = is.Registered - was.Registered
	v[o.name+"_commits"], v[o.name+"_committed"] = is.Commits-was.Commits, is.Committed
	if o.name == "cold" {
		v["cold_xen_bytes"] = -spent.free * hand.PageSize
	}
	return is, nil
}
