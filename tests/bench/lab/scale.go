package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/warmreboot/warmreboot/tests/bench/hand"
	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// sets are what is cached when the domU is rebooted: nothing, and more and more.
func sets() [][]string {
	return [][]string{nil, {build.WebRoot + "/000"}, {build.WebRoot}, {build.WebRoot, largeRoot, "/srv/database"}}
}

// setNames are the variants of scale.
func setNames() []string {
	var names []string
	for i := range sets() {
		names = append(names, fmt.Sprintf("set-%d", i))
	}
	return names
}

// scale reboots with different numbers of pages, gracefully.
func (b *bench) scale(ctx context.Context) error {
	if !b.has(Scale) {
		return nil
	}
	if err := b.recreate(ctx, domain{enable: true, memory: b.Sizes.MemoryMiB}); err != nil {
		return err
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

// preserve reboots with the files below roots cached, and little else.
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
	domid, err := b.domid(ctx)
	if err != nil {
		return err
	}
	before, _, err := b.processor(ctx, domid)
	if err != nil {
		return err
	}
	reboot, err := b.product.Reboot(ctx)
	if err != nil {
		return err
	}
	if err := b.await(ctx); err != nil {
		return err
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	if domid, err = b.domid(ctx); err != nil {
		return err
	}
	after, domU, err := b.processor(ctx, domid)
	if err != nil {
		return err
	}
	copied, err := inHand[hand.Result](ctx, b.domU, "memcpy", 4096)
	if err != nil {
		return err
	}
	v := r.Values
	v["pages_preserved"], v["pages_restored"] = float64(reboot.PagesPreserved), float64(reboot.PagesRestored)
	v["down_seconds"] = reboot.DownSeconds
	v["dom0_cpu_seconds"] = after - before
	v["domU_cpu_seconds"] = domU
	v["memcpy_ns_per_page"] = copied.Seconds * 1e9 / 4096
	return nil
}
