package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/custody"
	"github.com/warmreboot/warmreboot/internal/scrub"
	"github.com/warmreboot/warmreboot/xenctl"
)

// How often a keeper looks even if nothing wakes it: Xen has no event for what
// a guest reports, and the disks' counters have none at all.
const (
	idleTick = 500 * time.Millisecond
	busyTick = 250 * time.Millisecond
	// attachTick is while all is ready for the verdict as soon as the kernel has
	// attached, which is a moment before it asks for it.
	attachTick = 50 * time.Millisecond
)

// keeper keeps the warm cache of one UUID over its reboots. One goroutine does
// all that changes anything; what others see is a copy.
type keeper struct {
	a   *Agent
	log *slog.Logger

	rec *Record // of the goroutine only
	// disks are the resolved disks of the current domain, by vbd.
	disks map[ident.VBD]*usedDisk
	// unresolved is why what is behind a backend that is there is not in disks. It is
	// asked for once, in attach, so that all who need the answer have the same.
	unresolved map[ident.VBD]error
	// next are the accounts of the new domain's disks while the last ones are
	// still being judged.
	next map[ident.VBD]*custody.Account
	// before is what Xen last said of the domain, or nothing.
	before    xenctl.WarmcacheStatus
	gone      bool      // the goroutine is to end
	newDisks  bool      // there may be backends that are not in disks
	lookAgain time.Time // when to look for them even without an event
	// drainFast is until when the disks of a dead domain are looked at each
	// drainTick, and not just as often as all else.
	drainFast time.Time
	// paused: the new domain has not been seen to run.
	paused bool
	// held is what the new domain holds, counted once: mapping the table takes
	// its time, and the toolstack should have the machine.
	held []cachemap.Stats
	// judged is what was found of the new domain's vbds, while it is waited for the
	// kernel to attach.
	judged []*verdict

	// beat is when the goroutine last got on with its work, as nanoseconds since
	// the agent was made.
	beat atomic.Int64

	wake     chan struct{}
	commands chan func(context.Context)
	ended    chan struct{} // closed when there may be another keeper of the domain

	mu      sync.Mutex
	shown   api.DomainStatus
	inUse   []scrub.Disk  // what may be scrubbed
	changed chan struct{} // closed and replaced whenever shown is
}

func newKeeper(a *Agent, r *Record) *keeper {
	k := &keeper{a: a, rec: r, log: a.Log.With("uuid", r.UUID.String(), "domain", r.Name),
		disks: map[ident.VBD]*usedDisk{}, newDisks: true,
		wake: make(chan struct{}, 1), commands: make(chan func(context.Context)), ended: make(chan struct{}),
		changed: make(chan struct{})}
	k.gotOn()
	k.publish()
	return k
}

// gotOn notes that the goroutine does its work. Whatever takes long calls it
// now and then.
func (k *keeper) gotOn() { k.beat.Store(int64(time.Since(k.a.made))) }

func (k *keeper) wakeUp() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run looks after the domain until ctx ends or the keeper is no longer needed.
func (k *keeper) run(ctx context.Context) {
	// Traces are left on: an agent that is started again finds them.
	defer func() {
		for _, d := range k.disks {
			if d.watch != nil {
				_ = d.watch.Close()
			}
			d.releaseAccess()
		}
	}()
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		k.gotOn()
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
			k.newDisks = true
		case <-tick.C:
		case f := <-k.commands:
			f(ctx)
		case <-k.draining():
			if k.drain() {
				k.save()
			}
			continue
		}
		k.gotOn()
		if !k.gone {
			k.step(ctx)
		}
		k.publish()
		if k.gone {
			if err := k.a.Journal.Remove(k.rec.UUID); err != nil {
				k.log.Error("what is known of the domain cannot be written down", "op", "journal", "err", err, "next", "make room in the state directory")
			}
			for _, d := range k.disks {
				d.release()
			}
			return
		}
		if k.judged != nil {
			tick.Reset(attachTick)
		} else if k.rec.Reboot != nil || k.rec.Intent != nil {
			tick.Reset(busyTick)
		} else {
			tick.Reset(idleTick)
		}
	}
}

// do runs f in the keeper's goroutine. f must be quick: once it has been begun,
// it is waited for whatever becomes of ctx, so that whoever asks knows whether it
// was done.
func (k *keeper) do(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	select {
	case k.commands <- func(context.Context) { done <- f() }:
		// It is run, even if it is the last thing that the keeper does.
		select {
		case err := <-done:
			return err
		case <-k.ended:
		}
		select {
		case err := <-done:
			return err
		default:
			return k.stopping()
		}
	case <-ctx.Done():
		return ctx.Err()
	case <-k.ended:
		return k.stopping()
	}
}

// look has the keeper look at its domain, as an event would, and waits until it
// has: what has happened may not have been seen yet. The keeper looks with its own
// context, and to the end, which may be long after ctx, the caller's.
func (k *keeper) look(ctx context.Context) error {
	seen := make(chan struct{})
	f := func(own context.Context) {
		defer close(seen)
		if !k.gone {
			k.step(own)
		}
		k.publish()
	}
	select {
	case k.commands <- f:
	case <-ctx.Done():
		return ctx.Err()
	case <-k.ended:
		return k.stopping()
	}
	select {
	case <-seen:
		return nil
	case <-k.ended:
		return k.stopping()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stopping says why the keeper could not be asked.
func (k *keeper) stopping() error {
	if k.a.ctx.Err() == nil {
		return api.Errorf(api.Failed, "domain %s: warmrebootd has just ceased to look after it, as it was disabled or its reboot has ended; ask again", k.status().Domain)
	}
	return api.Errorf(api.Failed, "domain %s: warmrebootd is stopping; ask again when it runs: systemctl status warmrebootd", k.status().Domain)
}

// status returns what the keeper knows, and what it was told.
func (k *keeper) status() api.DomainStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.shown
}

// watch returns the status, and a channel that is closed when it changes.
func (k *keeper) watch() (api.DomainStatus, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.shown, k.changed
}

func (k *keeper) publish() {
	r := k.rec
	s := api.DomainStatus{Domain: r.Name, UUID: r.UUID, Managed: r.Enabled, State: "down"}
	if r.Enabled {
		p := r.Policy
		s.Policy = &p
	}
	for v, a := range r.Accounts {
		c := api.VBDCustody{VBD: v, Name: v.Name(), Backing: a.Identity.Name, State: "certain"}
		switch {
		case a.Stale != "":
			c.State, c.Reason = "broken", a.Stale
		case a.Breach != "":
			c.State, c.Reason = "broken", a.Breach
		case a.Doubt != "":
			c.State, c.Reason = "uncertain", a.Doubt
		}
		s.Custody = append(s.Custody, c)
	}
	sortCustody(s.Custody)
	for _, v := range slices.Sorted(maps.Keys(r.Refusals)) {
		s.Refusals = append(s.Refusals, api.VBDRefusals{VBD: v, Name: v.Name(), Refusals: slices.Clone(*r.Refusals[v])})
	}
	s.Domid, s.Resumed = r.Domid, r.Resumed
	switch {
	case r.Gone:
		s.State, s.Message = "gone", "it was saved, or has moved to another host"
	case len(r.Clones) > 0:
		s.Message = fmt.Sprintf("domid %d runs under the same UUID: both are left alone until one has a UUID of its own (uuid= in its configuration)", r.Clones[0])
	}
	if r.Reboot != nil {
		if r.Domid != 0 || r.Reboot.awaited(time.Now()) {
			c := clone(r.Reboot.Summary)
			s.Current = &c
		}
		if r.Domid == 0 && r.Reboot.Lost != "" {
			s.Message = r.Reboot.Lost
		}
		if f := r.Reboot.Fuse; f != nil {
			s.Message = f.String()
		}
	} else if f := r.Fuse; f != nil {
		s.Message = fmt.Sprintf("the next boot restores nothing, as the restore after reboot %d did not end well: %s", f.Sequence, f.Why)
	}
	if r.Last != nil {
		c := clone(*r.Last)
		s.Last = &c
	}
	used := k.used()
	k.mu.Lock()
	k.shown, k.inUse = s, used
	close(k.changed)
	k.changed = make(chan struct{})
	k.mu.Unlock()
}

// save journals the record. A failure costs at most the warmth of a reboot
// after the agent is killed.
func (k *keeper) save() {
	if err := k.a.Journal.Save(k.rec); err != nil {
		k.log.Error("what is known of the domain cannot be written down", "op", "journal", "err", err, "next", "make room in the state directory")
	}
}

// step looks at the domain and does what is to be done next.
func (k *keeper) step(ctx context.Context) {
	infos, err := k.a.Xen.Domains()
	if err != nil {
		k.log.Error("Xen does not list its domains", "op", "domains", "err", err, "next", "xl list; warmreboot doctor")
		return
	}
	cur := k.current(ctx, infos)
	if k.suspended(cur) {
		return
	}
	if k.rec.Domid != 0 && (cur == nil || cur.Domid != k.rec.Domid || cur.Shutdown) {
		k.down(ctx, cur)
	}
	if cur == nil || cur.Shutdown || cur.Domid != k.rec.Domid && !k.a.built(ctx, *cur) {
		k.absent(ctx)
		if cur == nil {
			k.watchImage()
			k.seePreserved(infos)
		}
		return
	}
	if cur.Domid != k.rec.Domid {
		k.appeared(ctx, *cur)
	} else if name := k.a.name(ctx, cur.Domid); name != "" && name != k.rec.Name {
		k.renamed(name)
		k.save()
	}
	if k.rec.Reboot != nil {
		k.comingBack(ctx, *cur)
	} else {
		k.alive(ctx, *cur)
	}
}

// current returns the domain that is to be looked at, nil if there is none: the one
// that is known, as long as it runs, else the one that was created last. Others that
// run under its UUID beside it are no reboots of it, and are left alone for good.
func (k *keeper) current(ctx context.Context, infos []xenctl.DomainInfo) *xenctl.DomainInfo {
	r := k.rec
	var own, last *xenctl.DomainInfo
	var others []ident.Domid // that run
	clones := r.Clones[:0:0]
	for i := range infos {
		d := &infos[i]
		switch {
		case d.UUID != r.UUID || d.Dying:
		case slices.Contains(r.Clones, d.Domid):
			clones = append(clones, d.Domid)
		case d.Domid == r.Domid:
			own = d
		default:
			last = d
			if d.Alive() && k.a.built(ctx, *d) {
				others = append(others, d.Domid)
			}
		}
	}
	switch {
	case own != nil && own.Alive():
		clones = append(clones, others...)
		last = own
	case own != nil && own.Reason == xenctl.ShutdownSuspend:
		last = own // until it has gone: the other may be what it is migrated to
	case len(others) > 1:
		clones, last = append(clones, others...), own // nobody knows which is meant
	case last == nil:
		last = own
	}
	if !slices.Equal(clones, r.Clones) {
		r.Clones = clones
		if len(clones) > 0 {
			k.log.Warn("another domain runs under the same UUID: it is left alone", "domid", clones[len(clones)-1], "next", "give it a UUID of its own (uuid= in its configuration)")
		}
		k.save()
	}
	return last
}

// suspended sees to a domain that was suspended, to be saved or migrated: that is no
// reboot. It reports whether there is nothing else to see to. It may go on here, as
// after a checkpoint or a failed migration. Once it has gone, it may be anywhere, and
// what is known of its disks ends.
func (k *keeper) suspended(cur *xenctl.DomainInfo) bool {
	r := k.rec
	own := cur != nil && cur.Domid == r.Domid
	switch {
	case r.Domid == 0:
	case own && cur.Shutdown && cur.Reason == xenctl.ShutdownSuspend:
		if !r.Away {
			r.Away = true
			k.log.Info("domain was suspended", "domid", r.Domid)
			k.save()
		}
		return true
	case own && r.Away:
		r.Away = false
		k.log.Info("domain goes on", "domid", r.Domid)
		k.save()
	case r.Away:
		k.left()
	}
	return false
}

// left is called once when a suspended domain has gone.
func (k *keeper) left() {
	r := k.rec
	k.log.Info("domain has left: it was saved, or is elsewhere", "domid", r.Domid)
	if b := r.Reboot; b != nil {
		s := b.Summary
		s.Outcome, s.Reason = "cold", "the domain was suspended before its restore had ended"
		if s.PagesApproved > 0 && s.PagesRestored > 0 {
			s.Outcome, s.Reason = "warm", ""
		}
		k.finish(s)
	}
	for _, d := range k.disks {
		d.release()
	}
	k.disks, k.next, k.held, k.judged = map[ident.VBD]*usedDisk{}, nil, nil, nil
	r.Domid, r.Accounts, r.Intent, r.Resumed = 0, nil, nil, false
	r.Away, r.Gone = false, true
	k.save()
}

// seePreserved sees whether the toolstack has kept the domain that went down, under
// another name and UUID: then its pages are still in use.
func (k *keeper) seePreserved(infos []xenctl.DomainInfo) {
	b := k.rec.Reboot
	if b == nil || b.Lost != "" || b.Summary.DomidBefore == 0 {
		return
	}
	for _, d := range infos {
		if d.Domid == b.Summary.DomidBefore && !d.Dying && d.UUID != k.rec.UUID {
			b.Lost = fmt.Sprintf("the toolstack has kept the old domain as domid %d (on_reboot or on_crash is rename-restart or preserve), with its memory and its disks: xl destroy %d when it is no longer needed", d.Domid, d.Domid)
			k.log.Warn("the old domain is preserved: nothing comes back of it", "domid", d.Domid, "why", b.Lost)
			k.save()
		}
	}
}

// renamed enters the domain's new name.
func (k *keeper) renamed(name string) {
	k.log.Info("domain renamed", "was", k.rec.Name, "domain", name)
	k.rec.Name = name
	k.log = k.a.Log.With("uuid", k.rec.UUID.String(), "domain", name)
	if b := k.rec.Reboot; b != nil {
		b.Summary.Domain = name
	}
}

// built reports whether a domain has its memory. Before, it must be left alone:
// Xen puts preserved pages into it while it is being built, and would not into
// one whose warm cache has been enabled as new.
func (a *Agent) built(ctx context.Context, d xenctl.DomainInfo) bool {
	if !d.Paused {
		return true
	}
	ok, err := a.Store.Introduced(ctx, uint16(d.Domid))
	if err != nil {
		a.Log.Warn("whether the domain is built cannot be told", "op", "introduced", "uuid", d.UUID, "domid", d.Domid, "err", err)
	}
	return ok
}

// down is called once when the domain has gone: it has shut down (then cur is
// it), or is no longer there. It must be quick: the toolstack is about to take
// the backends away, and their counters with them.
func (k *keeper) down(ctx context.Context, cur *xenctl.DomainInfo) {
	now := time.Now()
	r := k.rec
	if gone := cur == nil || cur.Domid != r.Domid; gone && k.paused && r.Reboot != nil && !r.Reboot.Attempted {
		k.neverRan()
		return
	}
	if cur != nil && cur.Domid == r.Domid {
		if st, err := k.a.Xen.WarmcacheStatus(r.Domid); err == nil {
			k.before = st
		}
	}
	k.closeAccounts()
	s := api.Summary{Domain: r.Name, UUID: r.UUID, DomidBefore: r.Domid, Started: now,
		PagesBefore: k.before.Committed, Trigger: api.Unknown, By: api.ByGuest, Refused: map[string]uint64{}, VBDs: []api.VBDSummary{}}
	off := false
	if cur != nil && cur.Domid == r.Domid {
		off = cur.Reason == xenctl.ShutdownPoweroff
		switch cur.Reason {
		case xenctl.ShutdownCrash, xenctl.ShutdownWatchdog:
			s.Trigger = api.Crash
		case xenctl.ShutdownReboot:
			s.Trigger = api.Guest
		}
	}
	if r.Intent != nil && r.Intent.Domid == r.Domid && !r.Intent.over(now) && s.Trigger != api.Crash {
		s.Trigger, s.By, s.Schedule = r.Intent.Mode, r.Intent.By, r.Intent.Schedule
	}
	k.log.Info("domain went down", "domid", r.Domid, "trigger", s.Trigger, "pages", s.PagesBefore)
	if r.Reboot != nil { // the end of its restore was not seen
		k.wentDownAgain()
	}
	r.Sequence++
	s.Sequence = r.Sequence
	r.Reboot = &Reboot{Summary: s, Off: off, Untracked: k.before.Enabled && !k.before.Attached, Fuse: r.Fuse}
	if r.Fuse != nil {
		k.log.Warn("nothing will be restored when the domain is back", "sequence", s.Sequence, "why", r.Fuse.Why)
		r.Fuse = nil
	}
	r.Domid = 0
	r.Intent = nil
	k.save()
}

// neverRan is called once when the new domain of a reboot was taken away before it
// ran: its creation has failed, and may be tried again. The reboot goes on.
func (k *keeper) neverRan() {
	r := k.rec
	k.log.Warn("the new domain was taken away before it ran", "domid", r.Domid)
	for _, d := range k.disks {
		d.release()
	}
	for _, a := range r.Accounts {
		if a.Identity.File != nil { // the counters of the others tell
			a.Question("nobody watched %s after a domain that was to use it could not be created", a.Identity.Name)
		}
	}
	k.disks, k.next, k.held, k.judged = map[ident.VBD]*usedDisk{}, nil, nil, nil
	b := r.Reboot
	k.paused, b.Decided = false, false
	b.Summary.DomidAfter, b.Seen = 0, time.Time{}
	if b.Lost == "" {
		b.Lost = fmt.Sprintf("domain %d, which had taken the pages that Xen kept, was taken away before it ran: its creation has failed (/var/log/xen says why)", r.Domid)
	}
	r.Domid = 0
	k.save()
}

// wentDownAgain ends the reboot under way of a domain that has just gone down.
func (k *keeper) wentDownAgain() {
	b := k.rec.Reboot
	s := b.Summary
	s.PagesRestored, s.Refused = k.before.Report.Restored, k.before.Report.Refused
	if s.Refused == nil {
		s.Refused = map[string]uint64{}
	}
	if b.Attempted && k.before.Report.Done && s.PagesRestored > 0 { // between two looks
		s.Done, s.Outcome, s.Reason = true, "warm", ""
		k.finish(s)
		return
	}
	s.Outcome, s.Reason = "cold", "the domain went down again before its restore had ended"
	if b.Attempted && !k.before.Report.Done {
		k.blow(s.Reason)
	}
	k.finish(s)
}

// blow notes that the restore under way did not end well: the next boot restores
// nothing. What it has kept until then it may restore after that.
func (k *keeper) blow(why string) {
	k.rec.Fuse = &Fuse{Sequence: k.rec.Reboot.Summary.Sequence, Why: why}
}

// absent is called while there is no domain.
func (k *keeper) absent(ctx context.Context) {
	if k.drain() {
		k.save()
	}
	k.settleFiles(ctx)
	if k.rec.Intent != nil && k.rec.Domid == 0 && k.rec.Reboot == nil {
		k.rec.Intent = nil
		k.save()
	}
	if !k.rec.Enabled && k.rec.Reboot == nil {
		k.gone = true
	}
}

// watchImage sees whether Xen still keeps the pages of a domain that is not
// there. A domain that has just been created may have taken them: then it holds
// them, and what is noted here is not used.
func (k *keeper) watchImage() {
	b := k.rec.Reboot
	if b == nil || b.Lost != "" {
		return
	}
	img, err := k.a.Xen.Image(k.rec.UUID)
	switch {
	case err == nil && b.ImagePages == 0:
		b.ImagePages = img.Pages
		k.save()
	case errors.Is(err, xenctl.ErrNoImage) && b.ImagePages > 0:
		b.Lost = fmt.Sprintf("Xen gave up the %d pages that it had kept: their time was over, or a new domain needed the memory, or somebody dropped them (xl dmesg says which)", b.ImagePages)
		k.log.Warn("image gone: the domain comes back cold", "pages", b.ImagePages, "why", b.Lost)
		k.save()
	}
}

// appeared is called once when a domain is seen for the first time: it is being
// built, or the agent has just started.
func (k *keeper) appeared(ctx context.Context, d xenctl.DomainInfo) {
	r := k.rec
	if name := k.a.name(ctx, d.Domid); name != "" && name != r.Name {
		k.renamed(name)
	}
	k.log.Info("domain appeared", "domid", d.Domid, "paused", d.Paused)
	if r.Enabled {
		k.enableInXen(d)
	}
	k.dropUnadopted()
	if r.Reboot == nil {
		// First sight. If it holds pages of a boot that the agent did not see
		// end, nobody can vouch for them without looking at each.
		if st, err := k.a.Xen.WarmcacheStatus(d.Domid); err == nil && st.Held > 0 && !st.Report.Done {
			r.Sequence++
			r.Reboot = &Reboot{Summary: api.Summary{Domain: r.Name, UUID: r.UUID, Sequence: r.Sequence,
				Trigger: api.Unknown, By: api.ByGuest, Started: time.Now(), Refused: map[string]uint64{}, VBDs: []api.VBDSummary{}}}
		}
	}
	if r.Reboot != nil {
		r.Reboot.Summary.Domain = r.Name
		r.Reboot.Summary.DomidAfter = d.Domid
		r.Reboot.Seen = time.Now()
	} else {
		r.Accounts = nil
	}
	r.Domid, r.Resumed, r.Gone = d.Domid, r.Gone, false
	if d.Paused { // what the disks are like before it writes
		k.drain()
	}
	for vbd, u := range k.disks {
		k.askWatch(vbd, u)
	}
	k.disks, k.unresolved, k.next, k.newDisks = map[ident.VBD]*usedDisk{}, nil, nil, true
	k.before = xenctl.WarmcacheStatus{}
	k.held, k.judged = nil, nil
	k.save()
}

// dropUnadopted gives up what Xen still keeps when the domain has been built: it
// could not take it. The one after it could, and would get what this one has
// written over, of which its accounts tell nothing.
func (k *keeper) dropUnadopted() {
	img, err := k.a.Xen.Image(k.rec.UUID)
	if err != nil {
		return
	}
	n, err := k.a.Xen.DropImage(k.rec.UUID)
	k.log.Warn("the new domain did not adopt what was kept of the last one: dropped", "pages", img.Pages, "dropped", n, "err", err)
}

// enableInXen makes sure that Xen tracks the domain and keeps its image.
func (k *keeper) enableInXen(d xenctl.DomainInfo) {
	x := k.a.Xen
	ttl := time.Duration(k.rec.Policy.TTLSeconds) * time.Second
	if err := x.WarmcacheEnable(d.Domid, ttl); err != nil && !errors.Is(err, xenctl.ErrExists) {
		k.log.Error("Xen cannot enable the warm cache: the next reboot is cold", "op", "enable", "domid", d.Domid, "err", err, "next", "warmreboot doctor")
		return
	}
	if err := x.WarmcacheArm(d.Domid, ttl); err != nil {
		k.log.Error("Xen cannot arm the warm cache: the next reboot is cold", "op", "arm", "domid", d.Domid, "err", err, "next", "warmreboot doctor")
	}
}

// alive is called while the domain lives and no reboot is under way.
func (k *keeper) alive(ctx context.Context, d xenctl.DomainInfo) {
	if i := k.rec.Intent; i != nil && i.over(time.Now()) {
		k.rec.Intent = nil
		k.save()
	}
	if !k.rec.Enabled {
		if k.rec.Intent == nil {
			k.gone = true
		}
		return
	}
	if st, err := k.a.Xen.WarmcacheStatus(d.Domid); err == nil {
		k.before = st
	}
	k.readAccounts(ctx, d)
}

// comingBack is called while the new domain of a reboot has not ended its
// restore.
func (k *keeper) comingBack(ctx context.Context, d xenctl.DomainInfo) {
	b := k.rec.Reboot
	k.paused = d.Paused && b.Ran.IsZero()
	if b.Ran.IsZero() && !d.Paused {
		b.Ran = time.Now()
		if b.Summary.DomidBefore != 0 {
			b.Summary.DownSeconds = b.Ran.Sub(b.Summary.Started).Seconds()
		}
	}
	if !k.rec.Enabled {
		// A normal reboot of a domain that is not kept: done once it runs.
		if !b.Ran.IsZero() {
			b.Summary.Outcome, b.Summary.Reason = "cold", "the warm cache is not enabled for this domain"
			b.Summary.Done = true
			k.finish(b.Summary)
		}
		return
	}
	if !b.Decided {
		if !k.decide(ctx, d) {
			return
		}
		b.Decided = true
		k.rec.Accounts, k.next = k.next, nil
		k.save()
	}
	k.readAccounts(ctx, d)
	st, err := k.a.Xen.WarmcacheStatus(d.Domid)
	if err != nil {
		if errors.Is(err, xenctl.ErrNoDomain) {
			return // seen to be down in the next step
		}
		b.Summary.Outcome, b.Summary.Reason = "cold", plain(err)
		b.Summary.Done = !b.Ran.IsZero()
		if b.Summary.Done {
			k.finish(b.Summary)
		}
		return
	}
	k.before = st
	k.progress(d, st)
}

// attachWait is how long after its start a guest may take to say that it
// tracks before it is taken for one that does not; attachAgainWait, if the last one
// did not either, and there is nothing to restore. It may still: the warm cache may
// have been enabled while that ran, or another kernel been installed.
const (
	attachWait      = 3 * time.Minute
	attachAgainWait = 30 * time.Second
)

// progress enters how far the guest says it is, and ends the reboot when it
// has finished.
func (k *keeper) progress(d xenctl.DomainInfo, st xenctl.WarmcacheStatus) {
	b := k.rec.Reboot
	s := &b.Summary
	s.PagesPreserved, s.PagesAdopted = st.Preserved, st.Adopted
	s.PagesRestored = st.Report.Restored
	s.Refused = st.Report.Refused
	if b.Ran.IsZero() {
		return
	}
	wait := attachWait
	if b.Untracked && st.Adopted == 0 {
		wait = attachAgainWait
	}
	switch {
	case st.Report.Done:
	case st.Attached && st.Adopted == 0:
		// Nothing was adopted: there is nothing to restore, nor to report.
	case !st.Attached && time.Since(b.Ran) > wait:
		s.Reason = "the guest kernel does not track its page cache, or not with this version of the interface"
	default:
		return
	}
	s.Done = true
	s.Outcome = "cold"
	if s.PagesApproved > 0 && s.PagesRestored > 0 {
		s.Outcome, s.Reason = "warm", ""
	} else if s.Reason == "" {
		s.Reason = coldReason(s)
		switch {
		case s.Trigger == api.Cold:
		case s.PagesAdopted > 0 && b.Fuse != nil:
			s.Reason = b.Fuse.String()
		case s.PagesAdopted == 0 && b.Lost != "":
			s.Reason = b.Lost
		}
	}
	if b.Attempted && !st.Report.Done && st.Adopted > 0 {
		k.blow("its pages were approved, and nothing was heard of it any more")
	}
	if s.DomidBefore != 0 {
		s.RestoredSeconds = time.Since(s.Started).Seconds()
	}
	k.finish(*s)
}

// coldReason says why nothing came back.
func coldReason(s *api.Summary) string {
	switch {
	case s.Trigger == api.Cold:
		return "a normal reboot was asked for"
	case s.PagesBefore == 0 && s.PagesPreserved == 0:
		return "the domain had no reusable pages"
	case s.PagesPreserved == 0:
		return "Xen preserved none of the pages"
	case s.PagesAdopted == 0:
		return "no preserved page found its place in the new domain, which has other memory, or gets it on demand (memory below maxmem)"
	case s.PagesApproved == 0:
		for _, v := range s.VBDs {
			if v.Reason != "" {
				return v.Name + ": " + v.Reason
			}
		}
		return "no page was approved"
	}
	return "the guest took no page back"
}

// finish ends a reboot.
func (k *keeper) finish(s api.Summary) {
	k.log.Info("reboot ended", "sequence", s.Sequence, "outcome", s.Outcome, "reason", s.Reason,
		"preserved", s.PagesPreserved, "approved", s.PagesApproved, "restored", s.PagesRestored)
	k.rec.Last = &s
	k.rec.Reboot = nil
	if _, err := k.a.History.Add(api.HistoryEntry{Summary: s}); err != nil {
		k.log.Error("the reboot cannot be entered into the history", "op", "history", "err", err, "next", "make room in the state directory")
	}
	k.save()
}
