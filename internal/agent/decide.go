package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/custody"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/reboot"
	"github.com/warmreboot/warmreboot/internal/validate"
	"github.com/warmreboot/warmreboot/xenctl"
)

// verdict is what was found of a claim.
type verdict struct {
	claim          reboot.Claim
	api.VBDSummary // its account
	approve        bool
	why            api.Reason
	disk           *usedDisk
	doubt          string // of the disk's new account when it was judged
	later          bool   // nothing was compared, as all will be
	booting        bool   // the kernel had not attached
}

// lost is the number of pages that a refusal of the claim costs: those that the
// domain held when it came back, but for those that are counted singly. By the
// time of the verdict Xen may know of few of them, as the guest reads its disk
// meanwhile and gives pages back when it has waited for too long.
func (v *verdict) lost() uint64 {
	n := v.Held
	for _, r := range v.Refusals {
		n -= min(n, r.Pages)
	}
	return n
}

func (v *verdict) refuse(why api.Reason, format string, args ...any) {
	if v.Reason == "" {
		v.why, v.Reason = why, fmt.Sprintf(format, args...)
	}
	v.approve = false
}

// skewed reports whether an error is that Xen and this program do not speak the
// same version of the interface.
func skewed(err error) bool { return errors.Is(err, xenctl.ErrVersion) }

// decide gives its verdict on every claim by which the new domain holds pages, and
// reports whether it is done; if not, something is still to come. It may be
// repeated from the start at any time: an approval that is found wrong later is
// taken back by a refusal, which also drops the pages.
func (k *keeper) decide(ctx context.Context, d xenctl.DomainInfo) bool {
	b := k.rec.Reboot
	s := &b.Summary
	st, err := k.a.Xen.WarmcacheStatus(d.Domid)
	if err != nil {
		k.log.Error("Xen does not say how the domain is", "op", "status", "domid", d.Domid, "err", err, "next", "warmreboot doctor")
		return errors.Is(err, xenctl.ErrNotEnabled) || errors.Is(err, xenctl.ErrNotSupported) || skewed(err)
	}
	s.PagesPreserved, s.PagesAdopted = st.Preserved, st.Adopted
	if st.Held == 0 {
		return true
	}
	if k.judged == nil {
		if ready, err := k.judgeAll(ctx, d, st); err != nil || !ready {
			return false
		}
	}
	// What is approved here is as it was when the kernel attached, or has been
	// dropped since: before, nobody announces what is written.
	if !st.Attached && slices.ContainsFunc(k.judged, func(v *verdict) bool { return v.approve }) {
		k.seeEarlyWrites()
		return !b.Ran.IsZero() && time.Since(b.Ran) > reboot.AttachWait
	}
	judged := k.judged
	k.judged = nil // should this be begun again, then from the start
	for _, v := range judged {
		if v.approve {
			v.approve = k.confirm(ctx, d, v, st.EarlyIO)
		}
		if ctx.Err() != nil {
			return false
		}
	}
	// The comparisons took their time: nobody may have come in meanwhile.
	users := k.users()
	for _, v := range judged {
		v.approve = v.approve && k.unused(v, users) && k.unchanged(v)
	}

	s.VBDs, s.PagesApproved = []api.VBDSummary{}, 0
	now := time.Now()
	for _, v := range judged {
		if v.approve && !b.Attempted {
			// First, so that it is known whatever comes of it, and of this agent.
			b.Attempted = true
			if err := k.write(); err != nil {
				k.log.Error("that a restore begins cannot be written down: there is none", "op", "journal", "err", err, "next", "make room in the state directory")
				b.Attempted = false
				v.refuse(api.Failure, "that a restore begins cannot be written down: %v", err)
			}
		}
		what := xenctl.Refused
		v.Verdict = "refused"
		if v.approve {
			what, v.Verdict = xenctl.Approved, "approved"
		}
		n, err := k.tell(d.Domid, v.claim, what)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EBUSY) {
			// Nothing is held any more, or it was refused before the agent was
			// restarted.
			v.refuse(api.TooLate, "Xen no longer takes a verdict: %v", err)
			n, err, v.Verdict = 0, nil, "refused"
		}
		if err != nil {
			k.log.Error("Xen does not take the verdict", "op", "verdict", "domid", d.Domid, "vbd", v.VBD, "verdict", what, "err", err, "next", "xl dmesg")
			return false
		}
		if v.approve {
			s.PagesApproved += n
			v.Held = n
		} else {
			v.Refusals.Add(now, v.why, v.lost(), v.Reason)
		}
		k.log.Info("verdict", "domid", d.Domid, "vbd", v.VBD, "verdict", v.Verdict, "why", v.why, "reason", v.Reason,
			"custody", v.Custody, "note", v.Note, "held", v.Held, "checked", v.Checked, "mismatches", v.Mismatches)
		s.VBDs = append(s.VBDs, v.VBDSummary)
		k.wakeGuest(ctx, d.Domid, s.VBDs)
		k.publish()
	}
	// Only now: a decision that is begun again counts once.
	for _, v := range s.VBDs {
		for _, r := range v.Refusals {
			k.refused(v.VBD, r.Reason, r.Pages, r.Example)
		}
	}
	k.doubtUnseen()
	return true
}

// tell gives Xen the verdict on a claim, and returns how many pages it was about.
func (k *keeper) tell(domid ident.Domid, c reboot.Claim, what xenctl.Verdict) (pages uint64, err error) {
	if c.Kind != reboot.Cached {
		return 0, fmt.Errorf("there is no verdict on a claim of kind %q", c.Kind)
	}
	return k.a.Xen.WarmcacheVerdict(domid, c.VBD, what)
}

// judgeAll judges all claims by which the new domain holds pages, and reports whether it
// could; if not, something is still to come. It may well be before the guest runs, so
// what it takes a long time to compare does not keep the guest waiting.
func (k *keeper) judgeAll(ctx context.Context, d xenctl.DomainInfo, st xenctl.WarmcacheStatus) (ready bool, err error) {
	b := k.rec.Reboot
	if k.held == nil {
		if k.held, err = k.heldClaims(d.Domid); err != nil {
			k.log.Error("the held pages cannot be read", "op", "held", "domid", d.Domid, "err", err, "next", "warmreboot doctor")
			return false, err
		}
	}
	k.attach(ctx, d.Domid)
	k.openNext(d.Domid)
	for _, h := range k.held {
		if h.Kind == reboot.Cached && k.disks[h.VBD] == nil && b.Summary.Trigger != api.Cold && b.Fuse == nil && !k.late() && !k.hopeless(h.VBD) {
			return false, nil
		}
	}
	faults := k.faults
	if faults == nil {
		faults = k.checkStructure(d.Domid)
		if faults.err == nil { // not at each look, while something is waited for
			k.faults = faults
		}
	}
	users := k.users()
	for _, h := range k.held {
		// The last guest's own loop device goes when the kernel comes to it, which may be
		// after the next guest was given another. A mount of the file looks the same, so
		// it is waited for as long as for a disk.
		if h.Kind == reboot.Cached && users[h.VBD].Leaving && b.Summary.Trigger != api.Cold && b.Fuse == nil && !k.late() {
			return false, nil
		}
	}
	judged := []*verdict{}
	for _, h := range k.held {
		v := &verdict{claim: h.Claim, VBDSummary: api.VBDSummary{VBD: h.VBD, Name: h.VBD.Name(), Held: h.pages, Refusals: api.Refusals{}}}
		k.judge(ctx, d, v, faults, users, st.EarlyIO)
		v.booting = !st.Attached
		if err := ctx.Err(); err != nil {
			return false, err
		}
		judged = append(judged, v)
	}
	k.judged = judged
	return true, nil
}

// doubtUnseen enters into the new accounts that the guest may have read from a
// disk before that was watched, while it is not certain that nobody else wrote.
func (k *keeper) doubtUnseen() {
	for vbd, u := range k.disks {
		next := k.next[vbd]
		if next == nil || !u.ran {
			continue
		}
		judgement, why := custody.Uncertain, "it was not being watched before"
		if a := k.rec.Accounts[vbd]; a != nil {
			judgement, why = a.Judge(u.backing.Identity, u.opening, u.ran)
		}
		if judgement != custody.Certain {
			next.Question("pages may have been read before %s was watched: %s", u.backing.Name, why)
		}
	}
}

// late reports whether it is no use to wait for disks any longer.
func (k *keeper) late() bool {
	ran := k.rec.Reboot.Ran
	return !ran.IsZero() && time.Since(ran) > k.a.DiskWait
}

// held is how many pages a domain holds by a claim.
type held struct {
	reboot.Claim
	pages uint64
}

// heldClaims counts the pages that the new domain holds. Xen's table has one kind.
func (k *keeper) heldClaims(domid ident.Domid) ([]held, error) {
	v, closeView, err := validate.MapView(k.a.Xen, domid, true)
	if err != nil {
		return nil, err
	}
	defer closeView()
	all := []held{}
	for _, s := range v.ByVBD() {
		all = append(all, held{reboot.Claim{Kind: reboot.Cached, VBD: s.VBD}, s.Pages})
	}
	return all, nil
}

// hopeless reports whether waiting for a vbd's disk is in vain: its backend is
// there, but what is behind it cannot be used.
func (k *keeper) hopeless(vbd ident.VBD) bool {
	return errors.Is(k.unresolved[vbd], disk.ErrUnsupported)
}

// structure is what is wrong with the held pages' entries; an error refuses them all.
type structure struct {
	faults map[ident.VBD][]validate.Fault
	err    error
}

// checkStructure drops the held pages whose entries cannot be right, and returns what
// was found.
func (k *keeper) checkStructure(domid ident.Domid) *structure {
	st, err := k.a.Xen.WarmcacheStatus(domid)
	if err != nil {
		return &structure{err: err}
	}
	v, closeView, err := validate.MapView(k.a.Xen, domid, true)
	if err != nil {
		return &structure{err: err}
	}
	found := validate.CheckStructure(v, ident.PFN(st.MaxPFN), func(vbd ident.VBD) (cachemap.Sector, bool) {
		u := k.disks[vbd]
		if u == nil {
			return 0, false
		}
		return cachemap.Sector(u.backing.Size / cachemap.SectorSize), true
	})
	closeView()
	if len(found.Drop) > 0 {
		n, err := k.a.Xen.WarmcacheDropPFNs(domid, found.Drop)
		k.log.Warn("pages with impossible entries dropped", "domid", domid, "pages", len(found.Drop), "dropped", n, "err", err)
		if err != nil {
			return &structure{err: err}
		}
	}
	return &structure{faults: found.Faults}
}

// judge comes to a verdict on one claim, which is to be confirmed if it is in favour.
// If all pages will be compared then, none is now. What nobody vouches for is refused.
func (k *keeper) judge(ctx context.Context, d xenctl.DomainInfo, v *verdict, faults *structure, users map[ident.VBD]disk.Use, later bool) {
	r := k.rec
	if account := r.Accounts[v.VBD]; v.claim.Kind == reboot.Cached && account != nil {
		v.Backing = account.Identity.Name
	}
	switch f := r.Reboot.Fuse; {
	case r.Reboot.Summary.Trigger == api.Cold:
		v.refuse(api.ColdAsked, "a normal reboot was asked for")
	case f != nil:
		v.refuse(api.RestoreFailed, "%s", f)
	case v.claim.Kind == reboot.Cached:
		k.judgeCached(ctx, d, v, faults, users, later)
	default:
		v.refuse(api.Failure, "nobody vouches for a claim of kind %q", v.claim.Kind)
	}
}

// judgeCached is judge for what is cached of a disk.
func (k *keeper) judgeCached(ctx context.Context, d xenctl.DomainInfo, v *verdict, faults *structure, users map[ident.VBD]disk.Use, later bool) {
	r := k.rec
	account := r.Accounts[v.VBD]
	if faults.err != nil {
		v.refuse(api.Failure, "the table cannot be checked: %v", faults.err)
		return
	}
	found := faults.faults[v.VBD]
	for _, f := range found {
		v.Refusals.Add(time.Now(), api.Structure, f.Pages, f.String())
	}
	if len(found) > 0 {
		v.Note = found[0].String() + " (dropped)"
	}
	v.disk = k.disks[v.VBD]
	if v.disk == nil {
		_, err := disk.FindBackend(ctx, k.a.Store, d.Domid, v.VBD)
		switch why := k.unresolved[v.VBD]; {
		case errors.Is(err, disk.ErrNoBackend):
			v.refuse(api.NoDisk, "the domain no longer has this vbd")
		case err == nil && (why == nil || errors.Is(why, disk.ErrNotReady)):
			v.refuse(api.NoDisk, "what is behind it was not there in time to be checked")
		default:
			v.refuse(api.NoDisk, "what is behind it cannot be checked: %v", errors.Join(why, err))
		}
		return
	}
	v.Backing = v.disk.backing.Name
	if account != nil {
		if why := account.Identity.Differs(v.disk.backing.Identity); why != "" {
			v.Custody = string(custody.Broken)
			v.refuse(api.Identity, "%s", why)
			return
		}
	}
	next := k.next[v.VBD]
	if next == nil {
		v.refuse(api.NoDisk, "its counters cannot be read")
		return
	}
	if !k.unused(v, users) {
		return
	}
	judgement, why := k.custody(v, account)
	if judgement == custody.Certain && next.Doubt != "" {
		judgement, why = custody.Uncertain, next.Doubt
	}
	doubt := next.Doubt
	v.Custody = string(judgement)
	pages, err := contentPages(r.Policy.Content)
	switch {
	case err != nil:
		v.refuse(api.Failure, "%v", err)
		return
	case judgement == custody.Broken && account.Stale != "":
		v.refuse(api.Content, "%s", why)
		return
	case judgement == custody.Broken:
		v.refuse(api.Written, "%s", why)
		return
	case judgement != custody.Certain && r.Policy.Uncertain == "refuse":
		v.refuse(api.Uncertain, "custody is not certain: %s", why)
		return
	case judgement != custody.Certain:
		pages = allPages
		v.Note = strings.TrimPrefix(v.Note+"; every page was compared, because custody is not certain: "+why, "; ")
	}
	if v.later = later; later {
		pages = 0
	}
	if k.compare(ctx, d, v, pages, 0) {
		v.doubt, v.approve = doubt, true
	}
}

// earlyPages is how many pages may differ for the reason that a boot loader wrote to
// the disk: it notes what it has booted, or that it has, in a block or two. More is
// somebody else's doing, and then the disk is not to be believed.
const earlyPages = 256

// confirm looks once more at a claim that was judged, now that the kernel has attached:
// from here on Xen is told of each write of the guest's before it takes place. There is
// one kind that judge may have been in favour of. It reports whether the pages are
// still equal to the disk; if not, they are refused.
//
// Before that, a boot loader or the firmware may have written. Xen has seen that
// somebody read a page of the guest's then (early), or the disk's own account has a
// doubt that it had not, or has counted writes. Then every page is compared. One that
// differs is dropped, for it is the block that was written; the others are equal, and
// stay, unless it is also uncertain for another reason who has written to the disk.
func (k *keeper) confirm(ctx context.Context, d xenctl.DomainInfo, v *verdict, early bool) bool {
	next := k.next[v.VBD]
	if next == nil || k.disks[v.VBD] != v.disk {
		v.refuse(api.Swapped, "it was given another disk while it was being checked")
		return false
	}
	if err := k.enter(next, v.disk); err != nil {
		v.refuse(api.NoDisk, "%v", err)
		return false
	}
	why := ""
	switch {
	case early || v.later || v.disk.early || v.booting && wrote(next):
		why = "before its kernel attached, somebody wrote to a disk: a boot loader or firmware"
	case next.Doubt != v.doubt:
		why = next.Doubt
	}
	if why != "" && next.Breach == "" {
		if k.rec.Policy.Uncertain == "refuse" {
			v.Custody = string(custody.Uncertain)
			v.refuse(api.Uncertain, "custody is not certain: %s", why)
			return false
		}
		tolerate := earlyPages
		if v.Custody != string(custody.Certain) || next.Doubt != "" {
			tolerate = 0
		}
		v.Custody = string(custody.Uncertain)
		v.Note = strings.TrimPrefix(v.Note+"; every page was compared: "+why, "; ")
		if v.doubt = next.Doubt; !k.compare(ctx, d, v, allPages, tolerate) {
			return false
		}
	}
	return true
}

// unchanged reports whether nobody has written to the disk since it was confirmed. If
// somebody has, the pages are refused.
func (k *keeper) unchanged(v *verdict) bool {
	next := k.next[v.VBD]
	if err := k.enter(next, v.disk); err != nil {
		v.refuse(api.NoDisk, "%v", err)
		return false
	}
	switch {
	case next.Breach != "":
		v.refuse(api.Written, "while it was being checked: %s", next.Breach)
		return false
	case next.Doubt != v.doubt:
		v.refuse(api.Uncertain, "while it was being checked: %s", next.Doubt)
		return false
	}
	return true
}

// seeEarlyWrites enters readings of the new domain's disks while no kernel has
// attached: its boot loader may have a connection of its own, and end it.
func (k *keeper) seeEarlyWrites() {
	for vbd, u := range k.disks {
		next := k.next[vbd]
		if next == nil {
			continue
		}
		if err := k.enter(next, u); err != nil {
			k.log.Warn("the counters of the disk cannot be read: its pages come back cold", "op", "counters", "vbd", vbd, "err", err)
		}
		u.early = u.early || wrote(next)
	}
}

// wrote reports whether the guest has written to the disk through the connection that
// it had at the last reading.
func wrote(a *custody.Account) bool { return a.Last.Guest != nil && a.Last.Guest.Written > 0 }

// users asks once who uses the domain's disks in dom0.
func (k *keeper) users() map[ident.VBD]disk.Use {
	vbds := slices.Sorted(maps.Keys(k.disks))
	backings := make([]disk.Backing, len(vbds))
	for i, vbd := range vbds {
		backings[i] = k.disks[vbd].backing
	}
	users := map[ident.VBD]disk.Use{}
	for i, u := range k.a.Disks.InUse(backings) {
		users[vbds[i]] = u
	}
	return users
}

// unused reports whether nobody uses a disk in dom0. If somebody does, its pages are
// refused.
func (k *keeper) unused(v *verdict, users map[ident.VBD]disk.Use) bool {
	switch u := users[v.VBD]; {
	case u.Err != nil:
		v.refuse(api.Failure, "who uses %s in dom0 cannot be told: %v", v.Backing, u.Err)
	case u.By != "":
		v.Custody = string(custody.Broken)
		v.refuse(api.InUse, "%s is in use in dom0: %s", v.Backing, u.By)
	default:
		return true
	}
	return false
}

// settleWait is how long a new guest that is writing already is waited for to
// pause, before its disk is taken for one that nobody can tell about.
const settleWait = 300 * time.Millisecond

// openNext opens the accounts of the new domain's disks. The last accounts are
// judged by the readings that the new ones begin with, so that no write falls
// in between.
func (k *keeper) openNext(domid ident.Domid) {
	for vbd, u := range k.disks {
		if k.next[vbd] != nil {
			continue
		}
		if err := k.patiently("flush", func() error { return k.a.Disks.Flush(u.backing) }); err != nil {
			k.log.Warn("what dom0 has of the disk cannot be written out: its pages come back cold", "op", "flush", "vbd", vbd, "err", err, "next", "look at that disk, and at dmesg")
			continue
		}
		a, err := k.open(u)
		if last := k.rec.Accounts[vbd]; last != nil && err == nil {
			// Somebody else's writes could hide among the new guest's.
			for end := time.Now().Add(settleWait); !last.Settled(a.Last) && err == nil && time.Now().Before(end); {
				time.Sleep(drainTick)
				a, err = k.open(u)
			}
		}
		if err != nil {
			k.log.Warn("the counters of the disk cannot be read: its pages come back cold", "op", "counters", "vbd", vbd, "err", err)
			continue
		}
		if k.next == nil {
			k.next = map[ident.VBD]*custody.Account{}
		}
		k.next[vbd] = a
		u.opening, u.booting = a.Last, true
		u.ran = k.hasRun(domid)
	}
}

// hasRun reports whether the new domain may have run; if in doubt, it has.
func (k *keeper) hasRun(domid ident.Domid) bool {
	if !k.rec.Reboot.Ran.IsZero() {
		return true
	}
	infos, err := k.a.Xen.Domains()
	if err != nil {
		return true
	}
	for _, d := range infos {
		if d.Domid == domid {
			return !d.Paused
		}
	}
	return true
}

// custody judges whether the disk is as the last guest left it.
func (k *keeper) custody(v *verdict, account *custody.Account) (custody.Judgement, string) {
	if account == nil {
		return custody.Uncertain, fmt.Sprintf("%s was not being watched before", v.Backing)
	}
	return account.Judge(v.disk.backing.Identity, v.disk.opening, v.disk.ran)
}

// compareChunk is the number of pages that are collected, sorted by sector and
// compared at a time.
const compareChunk = 1 << 18

// compare compares n held pages of a vbd, picked at random, and all of its metadata, or
// all of them, with the disk. Up to tolerate that differ are dropped. It reports whether nothing else was
// found, and refuses otherwise.
func (k *keeper) compare(ctx context.Context, d xenctl.DomainInfo, v *verdict, n, tolerate int) bool {
	if n == 0 {
		return true
	}
	r, err := k.a.Disks.Open(v.disk.backing)
	if err != nil {
		v.refuse(api.Unreadable, "%v", err)
		return false
	}
	defer r.Close()
	check := validate.ContentCheck{Memory: k.a.Xen, Domid: d.Domid, Disk: r, Held: true, Name: tolerate + 1,
		Progress: func(int) { k.gotOn() }}
	metadata := n != allPages // is yet to come
	for from, more := ident.PFN(0), true; more; {
		var pages []validate.Page
		view, closeView, err := validate.MapView(k.a.Xen, d.Domid, true)
		if err != nil {
			v.refuse(api.Failure, "%v", err)
			return false
		}
		switch {
		case n == allPages:
			pages, from, more = validate.Collect(view, v.VBD, from, compareChunk)
		case metadata:
			pages, from, metadata = validate.CollectMetadata(view, v.VBD, from, compareChunk)
		default:
			pages, more = validate.SampleView(view, v.VBD, n), false
			pages = slices.DeleteFunc(pages, func(p validate.Page) bool { return validate.Metadata(p.Entry) })
		}
		closeView()
		out, err := check.Run(ctx, pages)
		v.Checked += out.Checked()
		if differ := int(out.Mismatches); differ > 0 && differ <= tolerate {
			tolerate -= differ
			check.Name = tolerate + 1
			if k.dropEarly(d, v, out.Examples) {
				out.Mismatches = 0
			}
		}
		v.Mismatches += out.Mismatches
		switch {
		case out.Mismatches > 0:
			e := out.Examples[0]
			v.refuse(api.Content, "%d of %d pages compared differ from the disk, e.g. PFN %#x, %v", v.Mismatches, v.Checked, uint64(e.PFN), e.Entry)
		case err != nil:
			v.refuse(api.Unreadable, "the comparison with the disk failed: %v", err)
		case out.Unreadable > 0:
			v.refuse(api.Unreadable, "%d pages could not be compared with the disk: %v", out.Unreadable, out.FirstError)
		}
		if v.Reason != "" {
			return false
		}
	}
	return true
}

// dropEarly drops pages that a boot loader's write has made differ.
func (k *keeper) dropEarly(d xenctl.DomainInfo, v *verdict, pages []validate.Page) bool {
	pfns := make([]ident.PFN, len(pages))
	for i, p := range pages {
		pfns[i] = p.PFN
	}
	n, err := k.a.Xen.WarmcacheDropPFNs(d.Domid, pfns)
	k.log.Warn("pages of blocks that were written before the kernel attached are dropped", "domid", d.Domid, "vbd", v.VBD, "pages", len(pfns), "dropped", n, "err", err)
	if err != nil {
		return false
	}
	v.Refusals.Add(time.Now(), api.EarlyIO, uint64(len(pages)), fmt.Sprintf("PFN %#x, %v", uint64(pages[0].PFN), pages[0].Entry))
	return true
}

// wakeGuest tells the guest that there are verdicts. The authority is Xen's
// answer: the node only saves the guest the polling.
func (k *keeper) wakeGuest(ctx context.Context, domid ident.Domid, vbds []api.VBDSummary) {
	var words []string
	for _, v := range vbds {
		words = append(words, fmt.Sprintf("%d:%s", v.VBD, v.Verdict))
	}
	path := fmt.Sprintf("/local/domain/%d/control/warmcache", domid)
	if err := k.a.Store.Write(ctx, path, strings.Join(words, " ")); err != nil {
		k.log.Warn("the guest cannot be woken; it asks by itself, later", "op", "wake", "domid", domid, "err", err)
	}
}
