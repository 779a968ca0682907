package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/reboot"
	"github.com/warmreboot/warmreboot/xenctl"
)

// Reboot implements api.Service.
func (a *Agent) Reboot(ctx context.Context, domain string, mode api.Trigger) (api.Summary, error) {
	return a.RebootFor(ctx, Asker{By: api.ByOperator}, domain, mode)
}

// RebootFor is Reboot, for somebody else than an operator.
func (a *Agent) RebootFor(ctx context.Context, by Asker, domain string, mode api.Trigger) (api.Summary, error) {
	if mode != api.Graceful && mode != api.Force && mode != api.Cold {
		return api.Summary{}, api.Errorf(api.BadRequest, "mode is %q, must be graceful, force or cold", mode)
	}
	t, err := a.find(ctx, domain)
	if err != nil {
		return api.Summary{}, err
	}
	if err := t.clones(); err != nil {
		return api.Summary{}, err
	}
	k := a.keeper(t.uuid)
	switch joined, err := k.inTheWay(ctx, t, mode); {
	case err != nil:
		return api.Summary{}, err
	case joined != nil:
		return a.await(ctx, k, t, joined.Sequence-1, reboot.Intent{Mode: api.Force, Asker: by}, nil)
	}
	if err := a.owner(t).Recreates(); err != nil {
		return api.Summary{}, api.Errorf(api.Failed, "domain %s was not rebooted: %v", t.name, err)
	}
	if mode != api.Cold {
		if err := a.warmable(t); err != nil {
			return api.Summary{}, err
		}
	}
	intent := &reboot.Intent{Mode: mode, Asker: by, Domid: t.info.Domid, At: time.Now()}
	if k == nil { // an ordinary reboot of a domain that is not kept
		if k, err = a.keep(&Record{State: reboot.State{UUID: t.uuid, Name: t.name, Intent: intent}, Boot: a.Boot}); err != nil {
			return api.Summary{}, err
		}
	}
	var sequence uint64
	joined := false
	if err := k.look(ctx); err != nil {
		return api.Summary{}, err
	}
	err = k.do(ctx, func() error {
		if mode == api.Force && k.goesDown() && k.rec.Reboot.Summary.DomidBefore == t.info.Domid {
			joined, sequence = true, k.rec.Sequence-1
			return nil
		}
		if k.rec.Reboot != nil {
			return comingBack(t, &k.rec.Reboot.Summary)
		}
		k.rec.Intent = intent
		sequence = k.rec.Sequence
		k.save()
		return nil
	})
	if err != nil {
		return api.Summary{}, err
	}
	if joined {
		return a.await(ctx, k, t, sequence, *intent, nil)
	}
	// Not in the keeper's goroutine: a toolstack may wait for the guest, and
	// the keeper has to see it go.
	asked := make(chan error, 1)
	go func() { asked <- a.trigger(a.ctx, k, intent) }() // whoever asked may hang up
	return a.await(ctx, k, t, sequence, *intent, asked)
}

// inTheWay returns why a domain cannot be rebooted now; or the reboot of its own
// that a forced one has nothing to do but to wait for; or neither. It comes before
// it is said that the domain is not enabled, or that its kernel does not track: it
// may only be being built, or booting. There may be no keeper.
func (k *keeper) inTheWay(ctx context.Context, t target, mode api.Trigger) (joined *api.Summary, err error) {
	gone := t.info == nil || t.info.Shutdown
	if gone && (k == nil || mode != api.Force) {
		return nil, down(t)
	}
	if k == nil {
		return nil, nil
	}
	if err := k.look(ctx); err != nil {
		return nil, err
	}
	err = k.do(ctx, func() error {
		b := k.rec.Reboot
		own := gone || b != nil && b.Summary.DomidBefore == t.info.Domid
		switch {
		case mode == api.Force && own && k.goesDown():
			s := reboot.CloneSummary(b.Summary)
			joined = &s
		case mode == api.Force && own:
			return down(t)
		case b != nil:
			return comingBack(t, &b.Summary)
		}
		return nil
	})
	return joined, err
}

// comingBack says that the domain is in a reboot already.
func comingBack(t target, s *api.Summary) error {
	how := progressText(s)
	if s.DomidAfter == 0 { // but there is a domain
		how = "it is being built"
	}
	return api.Errorf(api.Locked, "domain %s is still coming back from its last reboot: %s",
		t.name, how).Try(api.TryWait)
}

// down says that there is nothing to reboot.
func down(t target) error {
	return api.Errorf(api.NotFound, "domain %s %s", t.name, t.away())
}

// away says why a domain is not there, and what to do. One that was suspended may run
// elsewhere, on the same disks.
func (t target) away() string {
	switch {
	case t.gone:
		return "is not here: it was saved, or has moved to another host; xl restore what was saved, or see warmreboot there"
	case t.taken:
		return "is down: nothing to reboot; unless it runs on another host, xl create its configuration to bring it back"
	}
	return "is down: nothing to reboot; xl create its configuration to bring it back"
}

// clones returns why two domains of one UUID are left alone, or nil.
func (t target) clones() error {
	if t.twin == 0 {
		return nil
	}
	return api.Errorf(api.Failed, "domain %s: domid %d and domid %d run under the same UUID %s, and both are left alone: give one of them another (uuid= in its configuration) and xl create it again",
		t.name, t.info.Domid, t.twin, t.uuid)
}

// goesDown reports whether the domain is in a reboot of its own: a forced one
// has nothing to do but to wait for that.
func (k *keeper) goesDown() bool { return k.rec.Reboot.Joinable(time.Now()) }

// trigger has the domain go down.
func (a *Agent) trigger(ctx context.Context, k *keeper, i *reboot.Intent) error {
	k.log.Info("reboot", "domid", i.Domid, "mode", i.Mode)
	switch i.Mode {
	case api.Force:
		return a.Lifecycle.ForceReboot(ctx, i.Domid)
	case api.Cold:
		// What the guest commits until it is down is refused when it is back.
		_, err := a.Xen.WarmcacheDrop(i.Domid)
		if err != nil && !errors.Is(err, xenctl.ErrNotEnabled) && !errors.Is(err, xenctl.ErrNotSupported) {
			k.log.Warn("what is known of the domain cannot be dropped: it is refused when it is back", "op", "drop", "domid", i.Domid, "err", err)
		}
	}
	return a.Lifecycle.Reboot(ctx, i.Domid)
}

// Withdraw takes back a reboot that a guest was asked for and has not taken note of. It
// fails with Locked if it has: then it goes down when it can.
func (a *Agent) Withdraw(ctx context.Context, domain string) error {
	t, err := a.find(ctx, domain)
	if err != nil {
		return err
	}
	k := a.keeper(t.uuid)
	if k == nil {
		return api.Errorf(api.Locked, "domain %s is not being asked to reboot just now: look at it, and ask again", t.name)
	}
	if err := k.look(ctx); err != nil {
		return err
	}
	return k.do(ctx, func() error {
		i := k.rec.Intent
		switch {
		case k.rec.Reboot != nil:
			return api.Errorf(api.Locked, "domain %s is in its reboot already: %s", t.name, progressText(&k.rec.Reboot.Summary)).Try(api.TryWait)
		case i == nil || i.Mode == api.Force:
			return api.Errorf(api.Locked, "domain %s is not being asked to reboot just now: look at it, and ask again", t.name)
		}
		waits, err := a.Store.Swap(a.ctx, fmt.Sprintf("/local/domain/%d/control/shutdown", i.Domid), "reboot", "")
		switch {
		case err != nil:
			return api.Errorf(api.Failed, "domain %s: the request to reboot cannot be taken back: %v", t.name, err)
		case !waits:
			return api.Errorf(api.Locked, "domain %s has taken note of the request to reboot, and goes down when it can", t.name).Try(api.TryForce)
		}
		k.log.Info("the guest is no longer asked to reboot", "domid", i.Domid, "mode", i.Mode)
		k.rec.Intent = nil
		k.save()
		return nil
	})
}

// ackWait is less than what libxl waits for a guest to acknowledge a request:
// an error that comes later is that the guest does not react.
const ackWait = 30 * time.Second

// await waits until the reboot after number sequence has ended.
func (a *Agent) await(ctx context.Context, k *keeper, t target, sequence uint64, want reboot.Intent, asked <-chan error) (api.Summary, error) {
	nothing := api.Summary{Domain: t.name, UUID: t.uuid, Trigger: want.Mode, By: want.By, Schedule: want.Schedule,
		Refused: map[string]uint64{}, VBDs: []api.VBDSummary{}}
	if t.info != nil {
		nothing.DomidBefore = t.info.Domid
	}
	begun := time.Now()
	forget := func() { // what was asked for no longer counts
		_ = k.do(a.ctx, func() error {
			if i := k.rec.Intent; i != nil && i.At.Equal(want.At) {
				k.rec.Intent = nil
				k.save()
			}
			return nil
		})
	}
	for {
		s, changed := k.watch()
		if s.Last != nil && s.Last.Sequence > sequence {
			if want.Mode != api.Cold && s.Last.Outcome != api.OutcomeWarm {
				return *s.Last, api.Errorf(api.CameBackCold, "domain %s came back cold: %s; warmreboot report %s has more", t.name, s.Last.Reason, ident.Word(t.name, t.uuid))
			}
			return *s.Last, nil
		}
		if s.Domid == 0 && s.Current == nil && t.info != nil {
			return nothing, api.Errorf(api.Failed, "domain %s has gone down, and nobody is to create it again: it was switched off, saved or taken away meanwhile; warmreboot status shows which", t.name)
		}
		select {
		case <-changed:
			continue
		case err := <-asked:
			asked = nil
			if err != nil { // it may have gone by itself: look before it is believed
				_ = k.look(ctx)
			}
			s, _ := k.watch()
			if wentDown := s.Current != nil || s.Last != nil && s.Last.Sequence > sequence; err != nil && !wentDown && ctx.Err() == nil {
				forget()
				code := api.Failed
				if time.Since(begun) > ackWait {
					code = api.TimedOut
				}
				return nothing, api.Errorf(code, "domain %s cannot be asked to reboot: %v", t.name, err).Try(api.TryForce)
			}
			continue
		case <-k.ended:
			if s, _ := k.watch(); s.Last != nil && s.Last.Sequence > sequence {
				continue
			}
			return api.Summary{}, api.Errorf(api.Failed, "domain %s: the agent no longer keeps it: somebody has disabled it, or warmrebootd stops; warmreboot status %s", t.name, ident.Word(t.name, t.uuid))
		case <-ctx.Done():
		}
		if s.Current != nil {
			return *s.Current, notYet(t, s.Current)
		}
		// What was asked for still counts: the guest may only be slow.
		return nothing, api.Errorf(api.TimedOut, "domain %s has not gone down: the guest does not react", t.name).Try(api.TryForce)
	}
}
