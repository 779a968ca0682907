package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/custody"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/xenctl"
)

// usedDisk is a disk in use, with the backend through which the guest uses it
// and what watches over it.
type usedDisk struct {
	backend disk.Backend
	backing disk.Backing
	trace   Tracer        // while a guest uses it; nil if there is none
	access  AccessWatcher // of an image file, while a guest uses it
	watch   FileWatcher   // of an image file, while no guest uses it
	// unwatched is why nobody sees who opens the image file, "" if somebody
	// does, or if there is none.
	unwatched string
	// draining: the guest is dead, and its backend still there.
	draining bool
	// swapped: the guest was given it instead of another one.
	swapped bool
	// opening is the reading with which the account was opened after a reboot,
	// ran whether the new guest may have run before it was taken.
	opening disk.Reading
	ran     bool
	// early: it was written to before the kernel attached. booting: its account began
	// before that.
	early, booting bool
}

// release ends what watches over the disk.
func (d *usedDisk) release() {
	if d.trace != nil {
		_ = d.trace.Close()
		d.trace = nil
	}
	d.releaseAccess()
	if d.watch != nil {
		_ = d.watch.Close()
		d.watch = nil
	}
}

func (d *usedDisk) releaseAccess() {
	if d.access != nil {
		_ = d.access.Close()
		d.access = nil
	}
}

func sortCustody(c []api.VBDCustody) {
	slices.SortFunc(c, func(a, b api.VBDCustody) int { return int(int64(a.VBD) - int64(b.VBD)) })
}

// lookAgainAfter is how often disks that are not there yet are looked for
// without an event; there should be one.
const lookAgainAfter = time.Second

// attach resolves the disks of the domain that are not resolved yet.
func (k *keeper) attach(ctx context.Context, domid ident.Domid) {
	if now := time.Now(); !k.newDisks && (k.lookAgain.IsZero() || now.Before(k.lookAgain)) {
		return
	}
	k.newDisks, k.lookAgain = false, time.Time{}
	backends, err := disk.Backends(ctx, k.a.Store, domid)
	if err != nil {
		k.log.Warn("its disks cannot be found: nobody watches them until they are", "op", "backends", "domid", domid, "err", err, "next", "it is tried again; xenstore-ls /local/domain/0/backend")
	}
	if len(backends) == 0 {
		k.lookAgain = time.Now().Add(lookAgainAfter)
	}
	if err == nil {
		k.unresolved = map[ident.VBD]error{}
	}
	for _, be := range backends {
		b, err := k.a.Disks.Resolve(be)
		if err != nil {
			k.unresolved[be.VBD] = err
			if !errors.Is(err, disk.ErrUnsupported) {
				k.lookAgain = time.Now().Add(lookAgainAfter)
			}
			if !errors.Is(err, disk.ErrNotReady) && !errors.Is(err, disk.ErrUnsupported) {
				k.log.Warn("what is behind the disk cannot be told: its pages come back cold", "op", "resolve", "vbd", be.VBD, "err", err, "next", "it is tried again; is the disk there?")
			}
			continue
		}
		old := k.disks[be.VBD]
		if old != nil && old.backing.Differs(b.Identity) == "" && old.backing.Returned(b.Identity) == "" && old.backend == be {
			continue
		}
		if old != nil {
			// The toolstack may be taking it away, node by node.
			if again, err := disk.FindBackend(ctx, k.a.Store, domid, be.VBD); err != nil || again != be {
				k.lookAgain = time.Now().Add(lookAgainAfter)
				continue
			}
		}
		d := &usedDisk{backend: be, backing: b}
		a := k.rec.Accounts[be.VBD]
		if old != nil {
			old.release()
			delete(k.next, be.VBD)
			if a != nil && a.Closed == nil {
				if why := old.backing.Differs(b.Identity); why != "" {
					d.swapped = true
					a.Blame("while the guest ran: %s", why)
				} else if why := old.backing.Returned(b.Identity); why != "" {
					a.Question("while the guest ran: %s", why)
				}
			}
		}
		// Before the first reading, so that nothing falls in between.
		k.observe(d)
		if a != nil && a.Closed == nil && old == nil { // the agent was started anew
			a.Resume()
			if d.trace == nil || d.trace.Fresh() {
				a.Traced = false // it is not the trace that it was
			}
			if b.File != nil && be.Kind == "vbd" {
				a.Question("the agent was away while the guest used %s: nobody saw who opened it", b.Name)
			}
		}
		k.disks[be.VBD] = d
	}
}

// observe starts what watches over a disk while a guest uses it.
func (k *keeper) observe(d *usedDisk) {
	vbd := d.backend.VBD
	var err error
	if d.trace, err = k.a.Disks.Trace(d.backing, d.backend); err != nil {
		d.trace = nil
		k.log.Warn("writes by others to this disk cannot be traced; the counters have to do", "vbd", vbd, "err", err)
	}
	d.unwatched = ""
	if d.access, err = k.a.Disks.WatchAccess(d.backing); err != nil {
		d.access = nil
		if !errors.Is(err, disk.ErrUnsupported) {
			d.unwatched = err.Error()
			k.log.Warn("who opens this file cannot be seen: its custody is not certain", "vbd", vbd, "err", err)
		}
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
	if d.unwatched != "" {
		a.Question("who opens %s cannot be seen: %s", a.Identity.Name, d.unwatched)
	}
	return &a, nil
}

// enter enters a new reading of a disk into its account.
func (k *keeper) enter(a *custody.Account, d *usedDisk) error {
	r, err := k.a.Disks.Read(d.backing, d.backend)
	if err != nil {
		return err
	}
	if g := a.Last.Guest; g != nil && (r.Guest == nil || r.Guest.Written < g.Written) {
		k.trust(a, d) // only the trace knows what was written meanwhile
	}
	a.Enter(r)
	k.ask(a, d)
	return nil
}

// trust makes sure that the trace is what the account takes it for.
func (k *keeper) trust(a *custody.Account, d *usedDisk) {
	if !a.Traced {
		return
	}
	if d.trace == nil {
		a.Traced = false
	} else if err := d.trace.Holds(); err != nil {
		k.log.Warn("the trace of writes by others cannot be read; the counters have to do", "op", "trace", "vbd", d.backend.VBD, "err", err)
		a.Traced = false
	}
}

// askAccess enters who has opened the image file.
func (d *usedDisk) askAccess(a *custody.Account) {
	if d.access == nil {
		return
	}
	doubt, breach, err := d.access.Ask()
	if err != nil {
		a.Question("who opened %s can no longer be seen: %v", a.Identity.Name, err)
	}
	if doubt != "" {
		a.Question("%s", doubt)
	}
	if breach != "" {
		a.Blame("%s", breach)
	}
}

// ask asks what watches over the disk. A reading that is to be believed was
// taken before.
func (k *keeper) ask(a *custody.Account, d *usedDisk) {
	d.askAccess(a)
	if d.trace == nil {
		return
	}
	doubt, breach, err := d.trace.Ask()
	if err != nil {
		k.log.Warn("the trace of writes by others cannot be read; the counters have to do", "op", "trace", "vbd", d.backend.VBD, "err", err)
		a.Traced = false
	}
	if doubt != "" { // the counters tell who it was, as far as they can
		a.Question("%s was %s", a.Identity.Name, doubt)
		a.Traced = false
	}
	if breach != "" {
		a.Blame("%s was %s", a.Identity.Name, breach)
	}
}

// readAccounts opens the accounts of disks that have none and enters a reading
// into the others. A breach makes everything known of the disk worthless.
func (k *keeper) readAccounts(ctx context.Context, dom xenctl.DomainInfo) {
	k.attach(ctx, dom.Domid)
	changed := false
	for vbd, d := range k.disks {
		a := k.rec.Accounts[vbd]
		if a != nil && a.Closed == nil {
			doubt := a.Doubt
			if err := k.enter(a, d); err != nil {
				k.log.Warn("the counters of the disk cannot be read: at the next reboot every page is compared, or comes back cold", "op", "counters", "vbd", vbd, "err", err)
				if !d.swapped {
					continue
				}
			}
			if a.Doubt != doubt {
				k.log.Warn("custody of a disk is not certain any more: every page will be compared", "vbd", vbd, "why", a.Doubt)
				changed = true
			}
			if a.Breach == "" {
				if d.booting {
					_, d.booting = k.known(dom.Domid)
				}
				continue
			}
			if err := k.startOver(dom, d, a.Breach); err != nil {
				k.log.Warn("disk was written to behind the guest's back, and its pages cannot be dropped: they are refused when it comes back", "vbd", vbd, "why", a.Breach, "err", err, "next", "find out who writes to it")
				continue
			}
			changed = true
			continue
		}
		a, err := k.open(d)
		if err != nil {
			k.log.Warn("the counters of the disk cannot be read: at the next reboot every page is compared, or comes back cold", "op", "counters", "vbd", vbd, "err", err)
			continue
		}
		var pages bool
		if pages, d.booting = k.known(dom.Domid); pages {
			a.Question("pages had been read before %s was watched", a.Identity.Name)
		}
		k.enterAccount(vbd, a)
		changed = true
	}
	if changed {
		k.save()
	}
}

func (k *keeper) enterAccount(vbd ident.VBD, a *custody.Account) {
	if k.rec.Accounts == nil {
		k.rec.Accounts = map[ident.VBD]*custody.Account{}
	}
	k.rec.Accounts[vbd] = a
}

// known reports whether Xen may know pages of the domain, if in doubt, it does, and
// whether its kernel has not attached yet.
func (k *keeper) known(domid ident.Domid) (pages, booting bool) {
	st, err := k.a.Xen.WarmcacheStatus(domid)
	return err != nil || st.Committed+st.Pending > 0, err == nil && !st.Attached
}

// startOver drops what is known of a disk that a guest uses, and opens a new
// account. That is opened first: of what is written before its reading, nothing
// is known once the pages are dropped; of what is written after it, it tells.
func (k *keeper) startOver(dom xenctl.DomainInfo, d *usedDisk, why string) error {
	vbd := d.backend.VBD
	// They would go on telling the same.
	if d.trace != nil {
		_ = d.trace.Close()
	}
	d.releaseAccess()
	k.observe(d)
	a, err := k.open(d)
	if err != nil {
		return err
	}
	n, err := k.a.Xen.WarmcacheDropVBD(dom.Domid, vbd)
	if err != nil {
		return err
	}
	// Xen has not dropped what the guest is just reading, which may be from
	// before the write.
	st, err := k.a.Xen.WarmcacheStatus(dom.Domid)
	if err != nil || st.Pending > 0 {
		a.Question("the guest was reading when somebody else wrote to %s", a.Identity.Name)
	}
	next := "find out who writes to it past the guest"
	if d.booting && st.EarlyIO {
		// It had a connection of its own, whose count ended with it.
		next = "nothing, if its boot loader writes to the disk, as GRUB's save_env: Xen has seen one at work before the kernel attached. Else " + next
	}
	d.booting = !st.Attached
	if last := k.rec.Accounts[vbd]; last != nil {
		a.Stale = last.Stale
	}
	reason := api.Written
	if d.swapped {
		reason, d.swapped = api.Swapped, false
	}
	k.log.Warn("disk was changed behind the guest's back; its pages are dropped", "vbd", vbd, "reason", reason, "why", why, "dropped", n, "next", next)
	k.refused(vbd, reason, n, why)
	k.enterAccount(vbd, a)
	return nil
}

// refused counts pages of a vbd that do not come back.
func (k *keeper) refused(vbd ident.VBD, reason api.Reason, pages uint64, example string) {
	if k.rec.Refusals == nil {
		k.rec.Refusals = map[ident.VBD]*api.Refusals{}
	}
	r := k.rec.Refusals[vbd]
	if r == nil {
		r = new(api.Refusals)
		k.rec.Refusals[vbd] = r
	}
	now := time.Now()
	r.Add(now, reason, pages, example)
	// A reboot that is not over yet shows what was taken back after its verdict.
	if b := k.rec.Reboot; b != nil && b.Decided {
		for i := range b.Summary.VBDs {
			if v := &b.Summary.VBDs[i]; v.VBD == vbd {
				v.Refusals.Add(now, reason, pages, example)
			}
		}
	}
}

// drainTick is how often the disks of a domain that has died are looked at,
// for drainWait. After that they are looked at as often as the domain.
const (
	drainTick = 20 * time.Millisecond
	drainWait = 3 * time.Second
)

// closeAccounts begins to close the accounts of a domain that has just died.
func (k *keeper) closeAccounts() {
	for vbd, d := range k.disks {
		// Else nobody saw the guest let go.
		a := k.rec.Accounts[vbd]
		d.draining = a != nil && a.Closed == nil
	}
	k.drainFast = time.Now().Add(drainWait)
	k.drain()
}

// drain takes readings of the disks of a domain that has died until its
// backends are gone, and with them all that it had under way. It reports
// whether that has just come to its end.
func (k *keeper) drain() (over bool) {
	var done []*usedDisk
	for vbd, d := range k.disks {
		if !d.draining {
			continue
		}
		over = true
		a := k.rec.Accounts[vbd]
		if a == nil { // nobody will ask
			d.draining = false
			continue
		}
		r, err := k.a.Disks.Read(d.backing, d.backend)
		if err != nil {
			k.log.Warn("the counters of the disk cannot be read: at the next reboot every page is compared, or comes back cold", "op", "counters", "vbd", vbd, "err", err)
			d.draining = false
			continue
		}
		if r.Guest == nil {
			k.trust(a, d)
		}
		last := a.Drain(r)
		k.ask(a, d)
		if last || a.Breach != "" {
			d.draining = false
			k.guard(d)
			done = append(done, d)
		}
	}
	// This takes its time: all counters were read before.
	for _, d := range done {
		k.settle(d)
	}
	return over && !k.isDraining()
}

func (k *keeper) isDraining() bool {
	for _, d := range k.disks {
		if d.draining {
			return true
		}
	}
	return false
}

// draining fires when drain is to be called again; nil if there is no need to,
// or the next step will do.
func (k *keeper) draining() <-chan time.Time {
	if k.isDraining() && time.Now().Before(k.drainFast) {
		return time.After(drainTick)
	}
	return nil
}

// guard changes from watching over a disk that a guest uses to one that nobody
// may use.
func (k *keeper) guard(d *usedDisk) {
	if d.trace != nil {
		_ = d.trace.Close()
		d.trace = nil
	}
	d.releaseAccess()
	if d.backing.File == nil || d.backend.Kind == "qdisk" {
		return // the counters tell; or QEMU may still be writing
	}
	var err error
	if d.watch, err = k.a.Disks.WatchFile(d.backing); err != nil {
		d.watch = nil
		k.log.Warn("the image file cannot be watched while no guest uses it; its times have to do", "op", "watch", "vbd", d.backend.VBD, "err", err)
	}
}

// settle writes out what dom0 has of an image file that the domain let go of.
func (k *keeper) settle(d *usedDisk) {
	if d.backend.Kind == "qdisk" {
		return
	}
	if err := k.patiently("flush", func() error { return k.a.Disks.Settle(d.backing) }); err != nil {
		if a := k.rec.Accounts[d.backend.VBD]; a != nil {
			a.Question("%s cannot be written out: %v", a.Identity.Name, err)
		}
	}
}

// askWatch enters what has been seen of an image file while no guest used it, and
// ends the watch: that of before, if the backend was not seen to go.
func (k *keeper) askWatch(vbd ident.VBD, d *usedDisk) {
	if a := k.rec.Accounts[vbd]; a != nil {
		d.askAccess(a)
		if d.watch != nil {
			if b := d.watch.Breach(); b != "" {
				a.Blame("%s", b)
			}
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
