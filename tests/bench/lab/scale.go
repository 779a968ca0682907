package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/warmreboot/warmreboot/tests/bench/hand"
	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/agent"
	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// Scale's only variant: each repetition has another number of pages cached.
const pages = "pages"

// part is how much of the files is cached in each repetition.
func (s Settings) part(repetition int) int64 {
	fifths := []int64{1, 5, 3, 2, 4}[repetition%5]
	return (2*s.Sizes.FileBytes + s.Sizes.DatabaseBytes + s.Sizes.WebFiles*s.Sizes.WebBytes) / 5 * fifths
}

// preserve ends the domU and makes it again, with a part of some files cached,
// and little else. The agent is away meanwhile, so that what that costs can be
// told from what judging and restoring cost. It finds afterwards that it has
// missed something, and compares each page with the disk.
//
// File systems are made read-only first, so that the next boot has no journal to
// replay.
func (b *bench) preserve(ctx context.Context, r *Round) error {
	b.warm = false
	_, err := b.domU.Shell(ctx, fmt.Sprintf("sync; echo 3 >/proc/sys/vm/drop_caches; find %s %s %s %s -type f -exec cat {} + | head -c %d >/dev/null; "+
		"echo u >/proc/sysrq-trigger; sleep 1", largeRoot, database, imageRoot, build.WebRoot, b.part(r.Repetition)))
	if err != nil {
		return err
	}
	sequence, err := b.sequence(ctx)
	if err != nil {
		return err
	}
	if err := b.product.StopAgent(ctx, "TERM"); err != nil {
		return err
	}
	here := func(quiet bool, args ...string) hand.Step { return hand.Step{Quiet: quiet, Args: args} }
	made, err := b.steps(ctx, 0,
		here(true, "run", "xl", "destroy", lab.Domain),
		here(true, "run", "xl", "create", "-p", configPath),
		here(true, "run", "sh", "-c", fmt.Sprintf("xl unpause %s; %s await %s:%d 60", lab.Domain, handPath, lab.DomainAddress, agent.Port)))
	if err != nil {
		return err
	}
	init, err := b.domU.Shell(ctx, `dmesg | sed -n 's/^\[ *\([0-9.]*\)\] Run .* as init process$/\1/p'`)
	if err != nil {
		return err
	}
	if err := b.startHand(ctx); err != nil {
		return err
	}
	// Judging, and restoring, take as long as they take; what goes on beside is
	// measured afterwards.
	judged, err := b.steps(ctx, 0,
		here(true, "run", "sh", "-c", "setsid warmrebootd "+noScrubbing+" >>/var/log/warmrebootd.log 2>&1 </dev/null & "+
			fmt.Sprintf("until warmreboot plan >/dev/null 2>&1; do sleep 0.2; done; until warmreboot status -o json %s | grep -q '\"sequence\": *%d\\b'; do sleep 0.2; done; ", lab.Domain, sequence+1)+
			"warmreboot status --wait --timeout 10m "+lab.Domain),
		step(true, "sleep", 1000),
		step(true, "memcpy", 6144))
	if err != nil {
		return err
	}
	reboot, err := b.awaitReboot(ctx, sequence)
	if err != nil {
		return err
	}
	var copied hand.Result
	if err := json.Unmarshal(judged[2].Value, &copied); err != nil {
		return err
	}
	idle := judged[1]
	v := r.Values
	v["pages_preserved"], v["pages_restored"] = float64(reboot.PagesPreserved), float64(reboot.PagesRestored)
	v["destroy_seconds"], v["destroy_dom0_cpu_seconds"] = made[0].Seconds, made[0].Dom0
	v["create_seconds"], v["create_dom0_cpu_seconds"] = made[1].Seconds, made[1].Dom0
	v["boot_seconds"], v["boot_domU_cpu_seconds"] = made[2].Seconds, made[2].DomU
	if v["kernel_seconds"], err = strconv.ParseFloat(init, 64); err != nil {
		return fmt.Errorf("when init was run: %w", err)
	}
	share := judged[0].Seconds / idle.Seconds
	v["judge_dom0_cpu_seconds"] = judged[0].Dom0 - share*idle.Dom0
	v["restore_domU_cpu_seconds"] = judged[0].DomU - share*idle.DomU
	v["memcpy_ns_per_page"] = copied.BestSeconds * 1e9 / 6144
	v["memcpy_new_ns_per_page"] = copied.LookupSeconds * 1e9 / 6144
	if restored := v["pages_restored"]; restored > 0 {
		v["restore_ns_per_page"] = v["restore_domU_cpu_seconds"] * 1e9 / restored
		v["restore_faster"] = v["memcpy_ns_per_page"] / v["restore_ns_per_page"]
	}
	return nil
}
