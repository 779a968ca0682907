package main

import (
	"context"
	"fmt"

	"github.com/warmreboot/warmreboot/tests/bench/hand"
	"github.com/warmreboot/warmreboot/tests/lab"
)

// Scale's only variant: each repetition has another number of pages cached.
const pages = "pages"

// part is how much of the files is cached in each repetition. However few there
// are, they are far apart.
func (s Settings) part(repetition int) int64 {
	quarters := []int64{0, 4, 2, 1, 3}[repetition%5]
	return (s.Sizes.FileBytes + s.Sizes.DatabaseBytes) / 4 * quarters
}

// preserve reboots with a part of some files cached, and little else. The agent
// is away meanwhile, so that what the reboot costs can be told from what judging
// and restoring cost. It finds afterwards that it has missed something, and
// compares each page with the disk.
func (b *bench) preserve(ctx context.Context, r *Round) error {
	b.warm = false
	_, err := b.domU.Shell(ctx, fmt.Sprintf("sync; echo 3 >/proc/sys/vm/drop_caches; cat %s/000/00 %s | head -c %d >/dev/null", largeRoot, database, b.part(r.Repetition)))
	if err != nil {
		return err
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
	if err := b.product.StartAgent(ctx); err != nil {
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

// rebootUnseen ends the agent, and reboots. It returns
// what was used before the reboot, and when the new domain has booted.
func (b *bench) rebootUnseen(ctx context.Context) (before, booted used, err error) {
	domid, err := b.domid(ctx)
	if err != nil {
		return before, booted, err
	}
	if err := b.product.StopAgent(ctx, "TERM"); err != nil {
		return before, booted, err
	}
	if before, err = b.used(ctx, domid); err != nil {
		return before, booted, err
	}
	if _, err := b.dom0.Shell(ctx, "xl reboot "+lab.Domain); err != nil {
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
