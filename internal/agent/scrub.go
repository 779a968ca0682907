package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/scrub"
)

// Scrubbed are the disks of the domains that run, for a scrub.Scrubber.
func (a *Agent) Scrubbed() scrub.Source { return scrubbed{a} }

type scrubbed struct{ a *Agent }

// Disks implements scrub.Source.
func (s scrubbed) Disks() []scrub.Disk {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	var all []scrub.Disk
	for _, k := range s.a.keepers {
		k.mu.Lock()
		all = append(all, k.inUse...)
		k.mu.Unlock()
	}
	return all
}

// Stale implements scrub.Source.
func (s scrubbed) Stale(ctx context.Context, d scrub.Disk, why string) error {
	k := s.a.keeper(d.UUID)
	if k == nil {
		return nil
	}
	return k.do(ctx, func() error { return k.foundStale(d, why) })
}

// used returns the disks whose pages may be compared now: the domain runs, and is in
// no reboot.
func (k *keeper) used() []scrub.Disk {
	if !k.rec.Enabled || k.rec.Domid == 0 || k.rec.Reboot != nil {
		return nil
	}
	var all []scrub.Disk
	for vbd, u := range k.disks {
		a := k.rec.Accounts[vbd]
		if a == nil || a.Closed != nil || a.Stale != "" {
			continue
		}
		b := u.backing
		all = append(all, scrub.Disk{ID: scrub.ID{UUID: k.rec.UUID, VBD: vbd}, Name: k.rec.Name, Domid: k.rec.Domid,
			Open:     func() (scrub.Reader, error) { return k.a.Disks.Open(b) },
			BusyTime: func() (time.Duration, error) { return b.BusyTime() }})
	}
	return all
}

// foundStale drops what is known of a disk of which a page differs though it should
// not, and has the next boot be cold as far as that disk is concerned: nobody knows
// why it differs, so nobody knows of the pages that will be read from now on.
func (k *keeper) foundStale(d scrub.Disk, why string) error {
	a := k.rec.Accounts[d.VBD]
	if k.rec.Domid != d.Domid || k.rec.Reboot != nil || a == nil || a.Stale != "" {
		return nil // of a domain that has gone, or known
	}
	a.Stale = fmt.Sprintf("a page of %s that was compared while the guest ran was not what the disk has, for a reason that nobody knows: %s", a.Identity.Name, why)
	k.save() // what comes next can be repeated, but this not be found again
	n, err := k.a.Xen.WarmcacheDropVBD(d.Domid, d.VBD)
	if err != nil {
		return fmt.Errorf("the pages of domain %d vbd %d cannot be dropped: %w", d.Domid, d.VBD, err)
	}
	k.log.Error("what was known of a disk is dropped, and comes back from the disk after the next reboot", "vbd", d.VBD, "reason", api.Content, "why", a.Stale, "dropped", n,
		"next", "find out who writes to the disk past the guest; if nobody does, warmreboot disable the domain, and report it")
	k.refused(d.VBD, api.Content, n, a.Stale)
	k.save()
	return nil
}
