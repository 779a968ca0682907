package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/internal/api"
	"github.com/warmreboot/warmreboot/internal/custody"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/xenctl"
)

func sortCustody(c []api.VBDCustody) {
	slices.SortFunc(c, func(a, b api.VBDCustody) int { return int(int64(a.VBD) - int64(b.VBD)) })
}

// clone copies a summary so that it can be handed out.
func clone(s api.Summary) api.Summary {
	s.Refused = maps.Clone(s.Refused)
	s.VBDs = slices.Clone(s.VBDs)
	return s
}

// attach resolves the disks of the domain that are not resolved yet.
func (k *keeper) attach(ctx context.Context, domid xenctl.Domid) {
	backends, err := disk.Backends(ctx, k.a.Store, domid)
	if err != nil {
		k.log.Warn("backends", "domid", domid, "err", err)
		return
	}
	for _, be := range backends {
		if _, ok := k.disks[be.VBD]; ok {
			continue
		}
		b, err := k.a.Disks.Resolve(be)
		if err != nil {
			if !errors.Is(err, disk.ErrNotReady) && !errors.Is(err, disk.ErrUnsupported) {
				k.log.Warn("disk", "vbd", be.VBD, "err", err)
			}
			continue
		}
		k.disks[be.VBD] = attached{be, b}
	}
}

// readAccounts opens the accounts of disks that have none and enters a reading
// into the others. A breach makes everything known of the disk worthless: it
// is dropped, and the account starts anew.
func (k *keeper) readAccounts(ctx context.Context, d xenctl.DomainInfo) {
	k.attach(ctx, d.Domid)
	opened := false
	for vbd, at := range k.disks {
		r, err := k.a.Disks.Read(at.backing, at.backend)
		if err != nil {
			k.log.Warn("disk counters", "vbd", vbd, "err", err)
			continue
		}
		a := k.rec.Accounts[vbd]
		if a == nil || a.Closed != nil {
			k.openAccount(vbd, at, r)
			opened = true
			continue
		}
		a.Enter(r)
		if a.Breach == "" {
			continue
		}
		n, err := k.a.Xen.WarmcacheDropVBD(d.Domid, vbd)
		k.log.Warn("disk was written to behind the guest's back; its pages are dropped",
			"vbd", vbd, "why", a.Breach, "dropped", n, "err", err)
		if err == nil {
			k.openAccount(vbd, at, r)
			opened = true
		}
	}
	if opened {
		k.save()
	}
}

func (k *keeper) openAccount(vbd cachemap.VBD, at attached, r disk.Reading) {
	a := custody.Open(at.backing.Identity, r)
	if k.rec.Accounts == nil {
		k.rec.Accounts = map[cachemap.VBD]*custody.Account{}
	}
	k.rec.Accounts[vbd] = &a
}

// How long the guest's last writes may take to reach the disk after its death.
const (
	drainWait = 3 * time.Second
	drainTick = 10 * time.Millisecond
)

// closeAccounts takes the last readings of the disks of a domain that has just
// died: at once, and again until all of its writes are accounted for.
func (k *keeper) closeAccounts() {
	open := map[cachemap.VBD]*custody.Account{}
	for vbd, a := range k.rec.Accounts {
		if a.Closed == nil {
			open[vbd] = a
		}
	}
	for deadline := time.Now().Add(drainWait); len(open) > 0; time.Sleep(drainTick) {
		for vbd, a := range open {
			at, ok := k.disks[vbd]
			if !ok {
				delete(open, vbd) // stays open: nobody saw the guest let go
				continue
			}
			r, err := k.a.Disks.Read(at.backing, at.backend)
			if err != nil {
				k.log.Warn("disk counters", "vbd", vbd, "err", err)
				delete(open, vbd)
				continue
			}
			a.Enter(r)
			lost := r.Guest == nil // no more counters to wait for
			if a.Exact || lost || a.Breach != "" || time.Now().After(deadline) {
				a.Close(r)
				delete(open, vbd)
			}
		}
	}
}

// settleFiles goes on reading image files of QEMU's backends, which have no
// counters, until the backend is gone: QEMU may still be writing.
func (k *keeper) settleFiles() {
	for vbd, at := range k.disks {
		a := k.rec.Accounts[vbd]
		if a == nil || a.Closed == nil || at.backend.Kind != "qdisk" {
			continue
		}
		if _, err := k.a.Store.Read(k.a.ctx, at.backend.Path+"/params"); err != nil {
			delete(k.disks, vbd)
		}
		if r, err := k.a.Disks.Read(at.backing, at.backend); err == nil {
			a.Close(r)
			k.save()
		}
	}
}
