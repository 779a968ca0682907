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

// usedDisk is a disk in use, with the backend through which the guest uses it
// and what watches over it.
type usedDisk struct {
	backend disk.Backend
	backing disk.Backing
	trace   Tracer      // while a guest uses it; nil if there is none
	watch   FileWatcher // of an image file, while no guest uses it
	// opening is the reading with which the account was opened after a reboot,
	// ran whether the new guest may have run before it was taken.
	opening disk.Reading
	ran     bool
}

// release ends what watches over the disk.
func (d *usedDisk) release() {
	if d.trace != nil {
		_ = d.trace.Close()
		d.trace = nil
	}
	if d.watch != nil {
		_ = d.watch.Close()
		d.watch = nil
	}
}

func sortCustody(c []api.VBDCustody) {
	slices.SortFunc(c, func(a, b api.VBDCustody) int { return int(int64(a.VBD) - int64(b.VBD)) })
}

// clone copies a summary so that it can be handed out.
func clone(s api.Summary) api.Summary {
	s.Refused = maps.Clone(s.Refused)
	s.VBDs = slices.Clone(s.VBDs)
	return s
}

// lookAgainAfter is how often disks that are not there yet are looked for
// without an event; there should be one.
const lookAgainAfter = time.Second

// attach resolves the disks of the domain that are not resolved yet.
func (k *keeper) attach(ctx context.Context, domid xenctl.Domid) {
	if now := time.Now(); !k.newDisks && (k.lookAgain.IsZero() || now.Before(k.lookAgain)) {
		return
	}
	k.newDisks, k.lookAgain = false, time.Time{}
	backends, err := disk.Backends(ctx, k.a.Store, domid)
	if err != nil {
		k.log.Warn("backends", "domid", domid, "err", err)
		return
	}
	if len(backends) == 0 {
		k.lookAgain = time.Now().Add(lookAgainAfter)
	}
	for _, be := range backends {
		if k.disks[be.VBD] != nil {
			continue
		}
		b, err := k.a.Disks.Resolve(be)
		if err != nil {
			if !errors.Is(err, disk.ErrUnsupported) {
				k.lookAgain = time.Now().Add(lookAgainAfter)
			}
			if !errors.Is(err, disk.ErrNotReady) && !errors.Is(err, disk.ErrUnsupported) {
				k.log.Warn("disk", "vbd", be.VBD, "err", err)
			}
			continue
		}
		d := &usedDisk{backend: be, backing: b}
		// Before the first reading, so that nothing falls in between.
		if d.trace, err = k.a.Disks.Trace(b, be); err != nil {
			d.trace = nil
			k.log.Warn("writes by others to this disk cannot be traced; the counters have to do", "vbd", be.VBD, "err", err)
		}
		if a := k.rec.Accounts[be.VBD]; a != nil && a.Closed == nil && (d.trace == nil || d.trace.Fresh()) {
			a.Traced = false // the agent was started anew, the trace is not the one it was
		}
		k.disks[be.VBD] = d
	}
}

// open starts the account of a disk.
func (k *keeper) open(d *usedDisk) (*custody.Account, error) {
	r, err := k.a.Disks.Read(d.backing, d.backend)
	if err != nil {
		return nil, err
	}
	a := custody.Open(d.backing.Identity, r)
	a.Traced = d.trace != nil
	return &a, nil
}

// enter enters a new reading of a disk into its account.
func (k *keeper) enter(a *custody.Account, d *usedDisk) error {
	r, err := k.a.Disks.Read(d.backing, d.backend)
	if err != nil {
		return err
	}
	a.Enter(r)
	k.ask(a, d)
	return nil
}

// ask asks the trace. A reading that is to be believed was taken before.
func (k *keeper) ask(a *custody.Account, d *usedDisk) {
	if d.trace == nil {
		return
	}
	breach, err := d.trace.Breach()
	if err != nil {
		k.log.Warn("trace", "vbd", d.backend.VBD, "err", err)
		a.Traced = false
	}
	if breach != "" {
		a.Blame("%s was %s", a.Identity.Name, breach)
	}
}

// readAccounts opens the accounts of disks that have none and enters a reading
// into the others. A breach makes everything known of the disk worthless: it
// is dropped, and the account starts anew.
func (k *keeper) readAccounts(ctx context.Context, dom xenctl.DomainInfo) {
	k.attach(ctx, dom.Domid)
	changed := false
	for vbd, d := range k.disks {
		a := k.rec.Accounts[vbd]
		if a != nil && a.Closed == nil {
			if err := k.enter(a, d); err != nil {
				k.log.Warn("disk counters", "vbd", vbd, "err", err)
				continue
			}
			if a.Breach == "" {
				continue
			}
			n, err := k.a.Xen.WarmcacheDropVBD(dom.Domid, vbd)
			k.log.Warn("disk was written to behind the guest's back; its pages are dropped",
				"vbd", vbd, "why", a.Breach, "dropped", n, "err", err)
			if err != nil {
				continue
			}
			if d.trace != nil { // it would go on telling the same
				_ = d.trace.Close()
				if d.trace, err = k.a.Disks.Trace(d.backing, d.backend); err != nil {
					d.trace = nil
				}
			}
		}
		a, err := k.open(d)
		if err != nil {
			k.log.Warn("disk counters", "vbd", vbd, "err", err)
			continue
		}
		if k.rec.Accounts == nil {
			k.rec.Accounts = map[cachemap.VBD]*custody.Account{}
		}
		k.rec.Accounts[vbd] = a
		changed = true
	}
	if changed {
		k.save()
	}
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
		if a.Closed == nil && k.disks[vbd] != nil { // else nobody saw the guest let go
			open[vbd] = a
		}
	}
	for deadline := time.Now().Add(drainWait); len(open) > 0; time.Sleep(drainTick) {
		for vbd, a := range open {
			d := k.disks[vbd]
			r, err := k.a.Disks.Read(d.backing, d.backend)
			if err != nil {
				k.log.Warn("disk counters", "vbd", vbd, "err", err)
				delete(open, vbd)
				continue
			}
			a.Enter(r)
			gone := r.Guest == nil // no more counters to wait for
			if a.Exact || gone || a.Breach != "" || time.Now().After(deadline) {
				a.Close(r)
				k.ask(a, d)
				delete(open, vbd)
				k.guard(d)
			}
		}
	}
}

// guard changes from watching over a disk that a guest uses to one that nobody
// may use.
func (k *keeper) guard(d *usedDisk) {
	if d.trace != nil {
		_ = d.trace.Close()
		d.trace = nil
	}
	if d.backing.File == nil || d.backend.Kind == "qdisk" {
		return // the counters tell; or QEMU may still be writing
	}
	var err error
	if d.watch, err = k.a.Disks.WatchFile(d.backing); err != nil {
		d.watch = nil
		k.log.Warn("watch", "err", err)
	}
}

// askWatch enters what a file watch has seen, and ends it.
func (k *keeper) askWatch(vbd cachemap.VBD, d *usedDisk) {
	if a := k.rec.Accounts[vbd]; a != nil && d.watch != nil {
		if b := d.watch.Breach(); b != "" {
			a.Blame("%s", b)
		}
	}
	d.release()
}

// settleFiles goes on reading image files of QEMU's backends, which have no
// counters, until the backend is gone: QEMU may still be writing.
func (k *keeper) settleFiles(ctx context.Context) {
	for vbd, d := range k.disks {
		a := k.rec.Accounts[vbd]
		if a == nil || a.Closed == nil || d.backend.Kind != "qdisk" {
			continue
		}
		if r, err := k.a.Disks.Read(d.backing, d.backend); err == nil {
			a.Close(r)
			k.save()
		}
		if _, err := k.a.Store.Read(ctx, d.backend.Path+"/params"); err != nil {
			delete(k.disks, vbd)
		}
	}
}
