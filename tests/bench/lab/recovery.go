package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

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

// pass is a workload that reads. It is made before the reboot, when all has been
// read so often that nothing moves any more, and some times after it.
type pass struct {
	workload string
	name     string
	after    int
	// root, if it is to be shown what the first reads cost where nothing is
	// cached, and the second ones: before the reboot as after it.
	root string
	args []any
}

// passes are those of a variant. Those of many small files take long: unless it is
// asked for, there is time for them after graceful reboots only.
func (s Settings) passes(variant string) []pass {
	all := []pass{
		{Read, "large", 3, largeRoot, []any{"pass", largeRoot, 1, phy}},
		{Read, "image", 3, imageRoot, []any{"pass", imageRoot, 1, image}},
		{Random, "random", 2, "", []any{"random", database, s.Sizes.RandomReads, 1, phy}},
		{SQLite, "sqlite", 2, "", []any{"query", sqlitePath, s.Sizes.Rows, s.Sizes.Queries, 1, phy}},
		{Small, "small", 2, "", []any{"pass", smallRoot, 1, phy}},
	}
	return slices.DeleteFunc(all, func(p pass) bool {
		return !s.has(p.workload) || p.workload == Small && variant != Graceful && !s.SmallAlways
	})
}

func isWarm(variant string) bool { return variant == Graceful || variant == Crash }

// thorough are the variants after which the neighbour is looked at, and before
// which the first reads of the large files are, too.
func thorough(variant string) bool { return variant == Normal || variant == Graceful }

// script is a list of steps in the domU, some of them with a name under which
// what they took is filed.
type script struct {
	steps []hand.Step
	names []string
}

func (s *script) add(name string, quiet bool, args ...any) {
	s.steps, s.names = append(s.steps, step(quiet, args...)), append(s.names, name)
}

func (b *bench) perform(ctx context.Context, r *Round, s script) error {
	outcomes, err := b.steps(ctx, 0, s.steps...)
	if err != nil {
		return err
	}
	for i, o := range outcomes {
		if s.names[i] == "" {
			continue
		}
		var result hand.Result
		if err := json.Unmarshal(o.Value, &result); err != nil {
			return err
		}
		r.take(s.names[i], result, o)
	}
	return nil
}

// warmUp has the files cached as after a reboot: the first round is to be like
// the others.
func (b *bench) warmUp(ctx context.Context) error {
	b.say("read all files")
	var s script
	for _, p := range b.passes(Graceful) {
		if p.workload != Small { // see fill
			s.add("", false, p.args...)
			s.add("", false, p.args...)
		}
	}
	s.add("", false, "pass", build.WebRoot, 2, phy)
	if err := b.perform(ctx, nil, s); err != nil {
		return err
	}
	b.warm, b.filled = true, false
	if !b.has(Neighbour) {
		return nil
	}
	return b.startNeighbour(ctx)
}

// fill has the small files cached, without waiting for the disk.
func (b *bench) fill(ctx context.Context) error {
	if err := b.throttle(ctx, unlimited); err != nil {
		return err
	}
	var s script
	s.add("", false, "fill", smallRoot)
	s.add("", false, "pass", smallRoot, 1, phy)
	if err := b.perform(ctx, nil, s); err != nil {
		return err
	}
	b.filled = true
	return b.throttle(ctx, b.Disk)
}

// recover is one round: read, reboot, read.
func (b *bench) recover(ctx context.Context, r *Round) error {
	passes := b.passes(r.Variant)
	small := slices.ContainsFunc(passes, func(p pass) bool { return p.workload == Small })
	if small && !b.filled {
		if err := b.fill(ctx); err != nil {
			return err
		}
	}
	var before, after script
	for _, p := range passes {
		if p.root != "" && thorough(r.Variant) {
			before.add("", true, "evict", p.root)
			before.add(p.name+"_before_1", true, p.args...)
			before.add(p.name+"_before_2", true, p.args...)
		}
		before.add(p.name+"_before", true, p.args...)
		if p.workload == Small && b.StatFirst {
			after.add("stat", true, "stat", smallRoot, phy)
		}
		for i := range p.after {
			after.add(fmt.Sprintf("%s_%d", p.name, i+1), true, p.args...)
		}
	}
	neighbour := b.has(Neighbour) && thorough(r.Variant)
	if neighbour {
		before.add("", false, "pass", besideRoot, 1, image)
	}
	if err := b.perform(ctx, r, before); err != nil {
		return err
	}
	if err := b.reboot(ctx, r); err != nil {
		return err
	}
	b.filled = b.filled && (isWarm(r.Variant) || small) // else nobody has read them since
	if err := b.perform(ctx, r, after); err != nil {
		return err
	}
	for _, p := range passes {
		r.Values[p.name+"_recovered"] = r.Values[p.name+"_before_seconds"] / r.Values[p.name+"_1_seconds"]
	}
	if !neighbour {
		return nil
	}
	return b.share(ctx, r)
}

// reboot reboots the domU in the round's way, while a client asks its web
// server: for the workload's time, or no longer than it takes to see that the
// service is back.
func (b *bench) reboot(ctx context.Context, r *Round) error {
	drive := hand.Drive{Address: lab.DomainAddress, Files: b.Sizes.WebFiles, Think: b.Sizes.Think}
	if b.has(Web) {
		drive.Before, drive.After = b.Sizes.Before, b.Sizes.AfterOthers
		if r.Variant == Graceful {
			drive.After = b.Sizes.After
		}
	}
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
		roots := []string{build.WebRoot, largeRoot, imageRoot, besideRoot, database, sqlitePath}
		if b.SmallAlways {
			roots = append(roots, smallRoot)
		}
		drive.Prefetch = []string{"sh", "-c", "find " + strings.Join(roots, " ") + " -type f -exec cat {} + >/dev/null"}
	}
	text, err := json.Marshal(drive)
	if err != nil {
		return err
	}
	outcomes, err := b.steps(ctx, 0, hand.Step{Args: []string{"drive", string(text)}, Quiet: true})
	if err != nil {
		return err
	}
	var t hand.Timeline
	if err := json.Unmarshal(outcomes[0].Value, &t); err != nil {
		return err
	}
	reboot, err := b.awaitReboot(ctx, sequence)
	if err != nil {
		return err
	}
	if isWarm(r.Variant) && reboot.Outcome != "warm" {
		return fmt.Errorf("the reboot was not a warm one: %s", reboot.Reason)
	}
	v := r.Values
	if b.has(Web) {
		r.Timeline = &t
		v["web_before_per_second"], v["web_after_per_second"] = t.Rate, t.AfterRate
		v["web_recovered"] = t.AfterRate / t.Rate
		v["web_lost"] = (t.Rate - t.AfterRate) * (t.End - t.Service)
		v["web_99_percent_after_seconds"] = t.Recovered
	}
	if r.Variant == Prefetch {
		v["prefetch_seconds"] = t.PrefetchSeconds
	}
	// With the web's client, but for that the same in all variants.
	v["reboot_dom0_cpu_seconds"], v["reboot_domU_cpu_seconds"] = outcomes[0].Dom0, outcomes[0].DomU
	v["service_seconds"] = t.Service - t.Command
	for name, used := range t.Used {
		v["service_"+name] = used
	}
	v["down_seconds"], v["restored_seconds"] = reboot.DownSeconds, reboot.RestoredSeconds
	v["silent_seconds"] = t.Service - t.Down
	v["pages_preserved"], v["pages_restored"] = float64(reboot.PagesPreserved), float64(reboot.PagesRestored)
	if err := b.await(ctx); err != nil {
		return err
	}
	return b.startHand(ctx)
}
