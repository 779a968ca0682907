package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/warmreboot/warmreboot/tests/bench/hand"
	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// sets are what is cached when the domU is rebooted: nothing, and more and more.
func sets() [][]string {
	return [][]string{nil, {largeRoot}, {largeRoot, "/srv/database", build.WebRoot}}
}

// setNames are the variants of scale.
func setNames() []string {
	var names []string
	for i := range sets() {
		names = append(names, fmt.Sprintf("set-%d", i))
	}
	return names
}

// scale reboots with different numbers of pages.
func (b *bench) scale(ctx context.Context) error {
	if !b.has(Scale) {
		return nil
	}
	for repetition := range b.Repetitions {
		for _, variant := range rotated(setNames(), repetition) {
			err := b.round(Scale, variant, repetition, func(r *Round) error {
				var i int
				if _, err := fmt.Sscanf(variant, "set-%d", &i); err != nil {
					return err
				}
				return b.preserve(ctx, r, sets()[i])
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// preserve reboots with the files below roots cached, and little else. The
// agent is stopped meanwhile, so that what the reboot costs can be told from
// what judging and restoring cost. It finds afterwards that it has missed
// something, and compares each page with the disk.
func (b *bench) preserve(ctx context.Context, r *Round, roots []string) error {
	if _, err := b.domU.Shell(ctx, "sync; echo 3 >/proc/sys/vm/drop_caches"); err != nil {
		return err
	}
	if len(roots) > 0 {
		if _, err := b.domU.Shell(ctx, "find "+strings.Join(roots, " ")+" -type f -exec cat {} + >/dev/null"); err != nil {
			return err
		}
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	sequence, err := b.sequence(ctx)
	if err != nil {
		return err
	}
	before, boot, err := b.rebootUnseen(ctx)
	if err != nil {
		return err
	}
	domid, err := b.domid(ctx)
	if err != nil {
		return err
	}
	if _, err := b.dom0.Shell(ctx, "kill -CONT $(cat /run/warmrebootd.pid)"); err != nil {
		return err
	}
	reboot, err := b.awaitReboot(ctx, sequence)
	if err != nil {
		return err
	}
	end, err := b.used(ctx, domid)
	if err != nil {
		return err
	}
	copied, err := inHand[hand.Result](ctx, b.domU, "memcpy", 4096)
	if err != nil {
		return err
	}
	v := r.Values
	v["pages_preserved"], v["pages_restored"] = float64(reboot.PagesPreserved), float64(reboot.PagesRestored)
	v["boot_dom0_cpu_seconds"], v["boot_domU_cpu_seconds"] = boot.dom0-before.dom0, boot.domU
	v["judge_dom0_cpu_seconds"], v["restore_domU_cpu_seconds"] = end.dom0-boot.dom0, end.domU-boot.domU
	v["memcpy_ns_per_page"] = copied.Seconds * 1e9 / 4096
	return nil
}

// rebootUnseen reboots while the agent is stopped, and leaves it so. It returns
// what was used before the reboot, and when the new domain has booted.
func (b *bench) rebootUnseen(ctx context.Context) (before, booted used, err error) {
	domid, err := b.domid(ctx)
	if err != nil {
		return before, booted, err
	}
	if before, err = b.used(ctx, domid); err != nil {
		return before, booted, err
	}
	if _, err := b.dom0.Shell(ctx, "kill -STOP $(cat /run/warmrebootd.pid); xl reboot "+lab.Domain); err != nil {
		return before, booted, err
	}
	if err := b.product.AwaitNewDomid(ctx, domid); err != nil {
		return before, booted, err
	}
	if err := b.await(ctx); err != nil {
		return before, booted, err
	}
	if domid, err = b.domid(ctx); err != nil {
		return before, booted, err
	}
	booted, err = b.used(ctx, domid)
	return before, booted, err
}
