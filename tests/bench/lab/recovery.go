package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/warmreboot/warmreboot/tests/bench/hand"
	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// Recovery is the group of rounds in which the domU is rebooted, and the same
// files are read before and after.
const Recovery = "recovery"

// The variants of a reboot.
const (
	Normal   = "normal"
	Prefetch = "prefetch" // a normal reboot, then all files are read at once
	Graceful = "graceful" // warm
	Crash    = "crash"    // warm
)

var reboots = []string{Normal, Prefetch, Graceful, Crash}

// passes are the workloads that read; each is made before the reboot, and some
// times after it.
func (b *bench) passes() []pass {
	tree := func(root, disk string) func(context.Context) (hand.Result, error) {
		return func(ctx context.Context) (hand.Result, error) {
			return inHand[hand.Result](ctx, b.domU, "pass", root, disk)
		}
	}
	return []pass{
		{Read, "large", 3, tree(largeRoot, phy)},
		{Read, "image", 3, tree(imageRoot, image)},
		{Small, "small", 2, tree(smallRoot, phy)},
		{Random, "random", 3, func(ctx context.Context) (hand.Result, error) {
			return inHand[hand.Result](ctx, b.domU, "random", database, b.Sizes.RandomReads, 1, phy)
		}},
		{SQLite, "sqlite", 3, func(ctx context.Context) (hand.Result, error) {
			return inHand[hand.Result](ctx, b.domU, "query", sqlitePath, b.Sizes.Rows, b.Sizes.Queries, 1, phy)
		}},
	}
}

type pass struct {
	workload string
	name     string
	after    int // how often it is made after a reboot
	make     func(context.Context) (hand.Result, error)
}

// selected are those that are run.
func (b *bench) selected() []pass {
	return slices.DeleteFunc(b.passes(), func(p pass) bool { return !b.has(p.workload) })
}

// warmUp has the files cached as after a reboot: the first round is to be like
// the others.
func (b *bench) warmUp(ctx context.Context) error {
	for _, p := range b.selected() {
		for range 2 {
			if _, err := p.make(ctx); err != nil {
				return err
			}
		}
	}
	b.warm = true
	if !b.has(Neighbour) {
		return nil
	}
	return b.startNeighbour(ctx)
}

// recover is one round: read, reboot, read.
func (b *bench) recover(ctx context.Context, r *Round) error {
	passes := b.selected()
	if err := b.settle(ctx); err != nil {
		return err
	}
	for _, p := range passes {
		result, err := p.make(ctx)
		if err != nil {
			return err
		}
		r.take(p.name+"_before", result)
	}
	if b.has(Neighbour) {
		if _, err := inHand[hand.Result](ctx, b.domU, "pass", besideRoot, image); err != nil {
			return err
		}
	}
	before, err := b.used(ctx, "")
	if err != nil {
		return err
	}
	if err := b.reboot(ctx, r, b.client()); err != nil {
		return err
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	domid, err := b.domid(ctx)
	if err != nil {
		return err
	}
	after, err := b.used(ctx, domid)
	if err != nil {
		return err
	}
	// With the web's client, but for that the same in all variants.
	r.Values["reboot_dom0_cpu_seconds"], r.Values["reboot_domU_cpu_seconds"] = after.dom0-before.dom0, after.domU
	// The hand itself has to come from the disk first.
	if _, err := inHand[hand.Result](ctx, b.domU, "pass", "/etc/nginx", phy); err != nil {
		return err
	}
	for _, p := range passes {
		for i := range p.after {
			result, err := p.make(ctx)
			if err != nil {
				return err
			}
			name := fmt.Sprintf("%s_%d", p.name, i+1)
			r.take(name, result)
			if i == 0 {
				r.Values[p.name+"_recovered"] = r.Values[p.name+"_before_seconds"] / result.Seconds
			}
		}
	}
	if !b.has(Neighbour) {
		return nil
	}
	return b.share(ctx, r)
}

// client asks the web server for the workload's time, or no longer than it takes
// to see that the service is back.
func (b *bench) client() hand.Drive {
	d := hand.Drive{Address: lab.DomainAddress, Files: b.Sizes.WebFiles, Think: b.Sizes.Think}
	if b.has(Web) {
		d.Before, d.After = b.Sizes.Before, b.Sizes.After
	}
	return d
}

// minute looks at the web server alone, and for longer: its client asks less
// often, for the emulator takes some ten times as long.
func (b *bench) minute(ctx context.Context, r *Round) error {
	// All files are in the page cache before.
	if _, err := inHand[hand.Result](ctx, b.domU, "pass", build.WebRoot, phy); err != nil {
		return err
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	return b.reboot(ctx, r, hand.Drive{Address: lab.DomainAddress, Files: b.Sizes.WebFiles, Think: b.Sizes.MinuteThink,
		Before: b.Sizes.MinuteBefore, After: b.Sizes.MinuteAfter})
}

// reboot reboots the domU in the round's way, while a client asks its web
// server.
func (b *bench) reboot(ctx context.Context, r *Round, drive hand.Drive) error {
	sequence, err := b.sequence(ctx)
	if err != nil {
		return err
	}
	command := []string{"warmreboot", "--timeout", "10m"}
	switch r.Variant {
	case Normal, Prefetch:
		drive.Command = append(command, "--cold", lab.Domain)
	case Graceful:
		drive.Command = append(command, lab.Domain)
	case Crash:
		if _, err := b.domU.Shell(ctx, "sync"); err != nil {
			return err
		}
		drive.Kill = "echo c >/proc/sysrq-trigger"
	}
	if r.Variant == Prefetch {
		drive.Prefetch = []string{"sh", "-c", fmt.Sprintf("find %s %s %s %s %s %s %s -type f -exec cat {} + >/dev/null",
			build.WebRoot, largeRoot, imageRoot, besideRoot, database, sqlitePath, smallRoot)}
	}
	text, err := json.Marshal(drive)
	if err != nil {
		return err
	}
	timeline, err := inHand[hand.Timeline](ctx, b.dom0, "drive", string(text))
	if err != nil {
		return err
	}
	reboot, err := b.awaitReboot(ctx, sequence)
	if err != nil {
		return err
	}
	if warm := r.Variant == Graceful || r.Variant == Crash; warm && reboot.Outcome != "warm" {
		return fmt.Errorf("the reboot was not a warm one: %s", reboot.Reason)
	}
	if drive.After > 0 {
		r.Timeline = &timeline
		r.Values["web_before_per_second"] = timeline.Rate
		r.Values["web_after_per_second"] = timeline.AfterRate
		r.Values["web_recovered"] = timeline.AfterRate / timeline.Rate
		r.Values["web_lost"] = (timeline.Rate - timeline.AfterRate) * (timeline.End - timeline.Service)
		r.Values["web_99_percent_after_seconds"] = timeline.Recovered
	}
	if r.Variant == Prefetch {
		r.Values["prefetch_seconds"] = timeline.PrefetchSeconds
	}
	r.Values["service_seconds"] = timeline.Service - timeline.Command
	r.Values["silent_seconds"] = timeline.Service - timeline.Down
	r.Values["pages_preserved"] = float64(reboot.PagesPreserved)
	r.Values["pages_restored"] = float64(reboot.PagesRestored)
	return b.await(ctx)
}
