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
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/custody"
	"github.com/warmreboot/warmreboot/internal/reboot"
	"github.com/warmreboot/warmreboot/internal/scrub"
	"github.com/warmreboot/warmreboot/internal/toolstack"
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
	// ends are what is to become of the domain endsOf.
	ends      toolstack.Ends
	endsOf    ident.Domid
	gone      bool      // the goroutine is to end
	newDisks  bool      // there may be backends that are not in disks
	lookAgain time.Time // when to look for them even without an event
	// drainFast is until when the disks of a dead domain are looked at each
	// drainTick, and not just as often as all else.
	drainFast time.Time
	// held is what the new domain holds, counted once: mapping the table takes
	// its time, and the toolstack should have the machine.
	held []held
	// faults are what is wrong with their entries, once that was looked for.
	faults *structure
	// judged is what was found of the claims that it holds them by, while it is waited for the
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

// patiently does what waits for a disk, and with it for as long as a disk that is busy
// or away takes. The goroutine is not stuck meanwhile: an agent that is started anew
// would have to wait for the same, and those of the other domains would begin again.
func (k *keeper) patiently(doing string, do func() error) error {
	over := make(chan struct{})
	defer close(over)
	begun, log := time.Now(), k.log
	go func() {
		tick := time.NewTicker(patientTick)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
				k.gotOn()
				log.Warn("a disk takes long", "op", doing, "seconds", time.Since(begun).Round(time.Second).Seconds(),
					"next", "if it does not end: dmesg says which disk; the domain comes back cold at worst")
			}
		}
	}()
	return do()
}

// patientTick is well below the limit of Alive.
const patientTick = 20 * time.Second

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
	phase := r.Phase(time.Now())
	s.Domid, s.Resumed, s.Phase = r.Domid, r.Resumed || r.Woken, string(phase)
	s.Unwitnessed = r.Domid == 0 && !r.Witnessed
	switch {
	case phase == reboot.Gone:
		s.State, s.Message = "gone", "it was saved, or has moved to another host"
	case len(r.Clones) > 0:
		s.Message = fmt.Sprintf("domid %d runs under the same UUID: both are left alone until one has a UUID of its own (uuid= in its configuration)", r.Clones[0])
	}
	if r.Reboot != nil {
		if phase.UnderWay() {
			c := reboot.CloneSummary(r.Reboot.Summary)
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
		c := reboot.CloneSummary(*r.Last)
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
	if err := k.write(); err != nil {
		k.log.Error("what is known of the domain cannot be written down", "op", "journal", "err", err, "next", "make room in the state directory")
	}
}

func (k *keeper) write() error {
	return k.patiently("journal", func() error { return k.a.Journal.Save(k.rec) })
}

// step looks at the domain and does what is to be done next.
func (k *keeper) step(ctx context.Context) {
	o, err := k.see(ctx)
	if err != nil {
		k.log.Error("Xen does not list its domains", "op", "domains", "err", err, "next", "xl list; warmreboot doctor")
		return
	}
	k.advance(ctx, o)
}

// see looks at the domain.
func (k *keeper) see(ctx context.Context) (reboot.Observation, error) {
	r, x := k.rec, k.a.Xen
	infos, err := x.Domains()
	if err != nil {
		return reboot.Observation{}, err
	}
	o := reboot.Observation{}
	for _, d := range infos {
		switch {
		case d.Dying:
		case d.UUID == r.UUID:
			seen := reboot.Domain{DomainInfo: d, Built: d.Domid == r.Domid || k.a.built(ctx, d)}
			seen.Status, seen.Err = x.WarmcacheStatus(d.Domid)
			seen.End = k.end(d)
			if seen.Built && d.Alive() {
				seen.Name = k.a.name(ctx, d.Domid)
			}
			o.Domains = append(o.Domains, seen)
			if b := r.Reboot; b != nil && d.Shutdown && d.Domid == b.Summary.DomidBefore {
				name := k.a.name(ctx, d.Domid)
				o.Preserved = name != "" && !ident.SameName(name, r.Name)
			}
		}
	}
	if len(o.Domains) == 0 && r.Reboot != nil {
		o.Image, o.ImageErr = x.Image(r.UUID)
	}
	return o, nil
}

// end is what the toolstack does with a domain that has shut down, "" if that is not
// known. It is read while the domain runs: the toolstack forgets it when it takes the
// domain away.
func (k *keeper) end(d xenctl.DomainInfo) string {
	if k.a.Owners == nil {
		return ""
	}
	if k.endsOf != d.Domid {
		ends, err := k.a.Owners.Ends(d.Domid, d.UUID)
		if err != nil {
			k.log.Warn("what is to become of the domain when it ends cannot be told", "op", "toolstack", "domid", d.Domid, "err", err)
		}
		if ends == (toolstack.Ends{}) {
			return "" // not yet, or nobody's
		}
		k.ends, k.endsOf = ends, d.Domid
	}
	if !d.Shutdown {
		return ""
	}
	switch d.Reason {
	case xenctl.ShutdownPoweroff:
		return k.ends.Poweroff
	case xenctl.ShutdownReboot:
		return k.ends.Reboot
	case xenctl.ShutdownCrash:
		return k.ends.Crash
	case xenctl.ShutdownWatchdog:
		return k.ends.Watchdog
	}
	return ""
}

// advance asks what is next after what was seen, and does it.
func (k *keeper) advance(ctx context.Context, o reboot.Observation) {
	state, effects := reboot.Next(k.rec.State, o, time.Now())
	if state.Name != k.rec.Name {
		k.log = k.a.Log.With("uuid", state.UUID.String(), "domain", state.Name)
	}
	k.rec.State = state
	for _, e := range effects {
		switch e.Kind {
		case reboot.Log:
			k.log.Log(ctx, e.Level, e.Message, e.Args...)
		case reboot.Save:
			k.save()
		case reboot.Enter:
			if err := k.patiently("history", func() error {
				_, err := k.a.History.Add(api.HistoryEntry{Summary: *e.Summary})
				return err
			}); err != nil {
				k.log.Error("the reboot cannot be entered into the history", "op", "history", "err", err, "next", "make room in the state directory")
			}
		case reboot.Close:
			k.closeAccounts()
		case reboot.Watch:
			if k.drain() {
				k.save()
			}
			k.settleFiles(ctx)
		case reboot.Begin:
			k.begin(e.Domain.DomainInfo, e.Fresh)
		case reboot.Read:
			k.readAccounts(ctx, e.Domain.DomainInfo)
		case reboot.Forget:
			k.forgetDisks()
			k.rec.Accounts = nil
		case reboot.Undo:
			k.forgetDisks()
			for _, a := range k.rec.Accounts {
				if a.Identity.File != nil { // the counters of the others tell
					a.Question("nobody watched %s after a domain that was to use it could not be created", a.Identity.Name)
				}
			}
		case reboot.Retire:
			k.gone = true
		case reboot.Judge:
			if !k.decide(ctx, e.Domain.DomainInfo) {
				continue
			}
			k.rec.Accounts, k.next = k.next, nil
			if again, err := k.see(ctx); err == nil { // it took its time
				o = again
			}
			o.Judged = true
			k.advance(ctx, o)
			return
		}
	}
}

// begin takes up a new domain. If no reboot has led to it, nothing is known of its
// disks.
func (k *keeper) begin(d xenctl.DomainInfo, fresh bool) {
	if k.rec.Enabled {
		k.enableInXen(d)
	}
	k.dropUnadopted()
	if fresh {
		k.rec.Accounts = nil
	}
	if d.Paused { // what the disks are like before it writes
		k.drain()
	}
	for vbd, u := range k.disks {
		k.askWatch(vbd, u)
	}
	k.disks, k.unresolved, k.next, k.newDisks = map[ident.VBD]*usedDisk{}, nil, nil, true
	k.held, k.faults, k.judged = nil, nil, nil
}

// forgetDisks ends all that watches over disks.
func (k *keeper) forgetDisks() {
	for _, d := range k.disks {
		d.release()
	}
	k.disks, k.unresolved, k.next = map[ident.VBD]*usedDisk{}, nil, nil
	k.held, k.faults, k.judged = nil, nil, nil
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
