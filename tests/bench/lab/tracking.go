package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
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

// perBoot is how often each operation is measured in each domU: to make one takes
// longer than to measure all of them.
const perBoot = 5

// last is the number of the last measurement of a repetition.
func last(group string, repetition int) int {
	if group == Tracking {
		return perBoot*repetition + perBoot - 1
	}
	return repetition
}

// operation is something whose cost is measured, and what comes before it.
type operation struct {
	name string
	here bool // in dom0
	args []any
}

// operations are made in this order. At the disk's speed the machine waits, and a
// little of that is taken for the domain's processor time: so the cold read is made
// without a limit, too.
func (s Settings) operations() []operation {
	write := func(name string, bytes int64) operation {
		return operation{name: name, args: []any{"write", name, writeRoot, bytes, phy}}
	}
	root := filepath.Dir(filepath.Dir(database))
	cold := []any{"pass", root, 1, phy}
	limit := func(d Disk) operation { return operation{here: true, args: []any{"run", "sh", "-c", limit(d)}} }
	return []operation{
		{args: []any{"run", "rm", "-rf", writeRoot}},
		{args: []any{"evict", root}},
		{name: "cold", args: cold},
		limit(unlimited),
		{args: []any{"evict", root}},
		{name: "fast", args: cold},
		{args: []any{"pass", largeRoot, 3, phy}}, // moves the pages to the active list
		limit(s.Disk),
		{name: "cached", args: []any{"pass", largeRoot, s.Sizes.CachedPasses, phy}},
		write("write", s.Sizes.WriteBytes), write("rewrite", s.Sizes.WriteBytes), write("mmap", s.Sizes.WriteBytes),
		write("fsync", s.Sizes.SyncBytes), write("churn", s.Sizes.ChurnBytes),
		// What goes on beside: it is subtracted, for the time that each took.
		{name: "nothing", args: []any{"sleep", 1000}},
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

// attached asks whether the guest is tracked.
func (b *bench) attached(ctx context.Context) (bool, error) {
	status, err := lab.JSON[struct {
		Attached bool `json:"attached"`
	}](ctx, b.dom0, "warmreboot", "status", "-o", "json", lab.Domain)
	return status.Attached, err
}

// track makes the domU anew, and measures each operation in it, some times.
func (b *bench) track(ctx context.Context, variant string, boot int) ([]*Round, error) {
	d := domain{enable: variant == On, memory: b.Sizes.MemoryMiB}
	switch variant {
	case Stock:
		file, err := b.stock()
		if err == nil {
			err = b.dom0.Put(ctx, file, stockPath, 0o644)
		}
		if err != nil {
			return nil, err
		}
		d.kernel = stockPath
	case Mapped:
		d.words = "xen_blkfront.feature_persistent=0"
	}
	b.warm = false
	if err := b.recreate(ctx, d); err != nil {
		return nil, err
	}
	if attached, err := b.attached(ctx); err != nil || attached != d.enable {
		return nil, fmt.Errorf("the guest is tracked: %t, want %t: %v", attached, d.enable, err)
	}
	domid, err := b.domid(ctx)
	if err != nil {
		return nil, err
	}
	total, err := inHand[float64](ctx, b.domU, "memory")
	if err != nil {
		return nil, err
	}
	var rounds []*Round
	for i := range perBoot {
		r := newRound(Tracking, variant, perBoot*boot+i)
		if err := b.costs(ctx, r, domid); err != nil {
			return nil, err
		}
		r.Values["guest_memory_bytes"] = total
		rounds = append(rounds, r)
	}
	if !d.enable {
		return rounds, nil
	}
	spread, err := inHand[hand.Spread](ctx, b.dom0, "spread", domid)
	v := rounds[perBoot-1].Values
	v["reusable_pages"], v["split_regions"], v["regions"] = float64(spread.Pages), float64(spread.Regions), float64(spread.All)
	return rounds, err
}

// costs measures each operation once.
func (b *bench) costs(ctx context.Context, r *Round, domid int) error {
	var steps []hand.Step
	all := b.operations()
	for _, o := range all {
		one := step(o.name != "", o.args...)
		if o.here {
			one.At = ""
		}
		steps = append(steps, one)
	}
	outcomes, err := b.steps(ctx, domid, steps...)
	if err != nil {
		return err
	}
	idle := outcomes[len(outcomes)-1]
	for i, o := range outcomes {
		if all[i].name == "" {
			continue
		}
		var result hand.Result
		if err := json.Unmarshal(o.Value, &result); err != nil {
			return err
		}
		r.cost(all[i].name, result, o, idle)
	}
	return nil
}

// cost files what an operation took, and of the processor what goes on beside
// would not have taken.
func (r *Round) cost(name string, result hand.Result, o, idle hand.Outcome) {
	v := r.Values
	share := o.Seconds / idle.Seconds
	v[name+"_seconds"] = result.Seconds
	if result.BestSeconds != 0 {
		v[name+"_best_seconds"] = result.BestSeconds
	}
	v[name+"_requests"] = float64(result.DiskRequests + result.DiskWrites)
	v[name+"_dom0_cpu_seconds"] = o.Dom0 - share*idle.Dom0
	v[name+"_domU_cpu_seconds"] = o.DomU - share*idle.DomU
	v[name+"_cpu_seconds"] = v[name+"_dom0_cpu_seconds"] + v[name+"_domU_cpu_seconds"]
	v[name+"_hypercalls"], v[name+"_write_faults"] = o.Counters.Hypercalls, o.Counters.WriteFaults
	v[name+"_registered"], v[name+"_commits"], v[name+"_committed"] = o.Counters.Registered, o.Counters.Commits, o.Counters.Committed
	v[name+"_xen_bytes"] = -o.FreePages * hand.PageSize
}
