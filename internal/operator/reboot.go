package operator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/agent"
	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/state"
)

// Agent is what operations need of the agent.
type Agent interface {
	Status(ctx context.Context, domain string, wait bool) (api.DomainStatus, error)
	List(ctx context.Context) ([]api.DomainStatus, error)
	Plan(ctx context.Context, domain string, mode api.Trigger) (api.Plan, error)
	RebootFor(ctx context.Context, by agent.Asker, domain string, mode api.Trigger) (api.Summary, error)
	// Withdraw takes back what RebootFor has asked of a guest, if the guest has not taken
	// note of it.
	Withdraw(ctx context.Context, domain string) error
}

// Rebooter has the steps of a reboot.
type Rebooter struct {
	Agent Agent
	State *state.Store
	// History is where entries are made; State if it is nil.
	History agent.History
	Moment  func() state.Moment
	// Poll is how often it is looked for what became of a reboot that an earlier daemon
	// has asked for, Patience how long a domain may take then to go down; 0 is the
	// default.
	Poll, Patience time.Duration
}

// Wanted is a reboot that is wanted.
type Wanted struct {
	agent.Asker
	Mode api.Trigger
	// Timeout is how long its end is waited for.
	Timeout time.Duration
	// Longest is how long after the operation was begun it may still be asked for, if
	// the daemon was stopped meanwhile.
	Longest  time.Duration
	Override bool // in spite of blockers
	// Absent is for how long there may be no domain until its end is no longer waited for,
	// 0: for as long as it takes.
	Absent time.Duration
	// Final: it cannot be cancelled, whatever the guest has taken note of.
	Final bool
}

// Reboot has an operation reboot its domain, at most once: a daemon that finds that it
// was asked for looks what became of that. With an error, the summary says how far it
// got; its Trigger is "" if it was not even asked for. An operation can be cancelled up
// to here, and while the guest has not taken note of what it is asked.
func (b *Rebooter) Reboot(ctx context.Context, run *operation.Run, w Wanted) (api.Summary, error) {
	domain := run.Operation().UUID.String()
	was, err := operation.Do(ctx, run, "before "+string(w.Mode), operation.Again, func(ctx context.Context) (ident.Domid, error) {
		if err := b.late(ctx, run, w); err != nil {
			return 0, err
		}
		s, err := b.Agent.Status(ctx, domain, false)
		if s.Domid == 0 && s.Current != nil { // it is in a reboot of its own already, which this may join
			return s.Current.DomidBefore, err
		}
		return s.Domid, err
	})
	if err != nil {
		return api.Summary{}, err
	}
	begun := run.Begun()
	back := func() error { return b.Agent.Withdraw(ctx, domain) }
	if w.Mode == api.Force || w.Final {
		back = nil
	}
	if err := run.Commit(back); err != nil {
		return api.Summary{}, err
	}
	defer run.Settled()
	return operation.Do(ctx, run, string(w.Mode), operation.Again, func(ctx context.Context) (api.Summary, error) {
		if begun {
			return b.became(ctx, run, w, was)
		}
		return b.ask(ctx, run, w)
	})
}

// late says why an operation that was taken up does not go on to its reboot: it is too
// late, or what would have kept it from being admitted is so now.
func (b *Rebooter) late(ctx context.Context, run *operation.Run, w Wanted) error {
	o := run.Operation()
	if o.Taken == 0 {
		return nil
	}
	const stopped = "warmrebootd was stopped before the reboot, and "
	now := b.Moment()
	if o.Boot != now.Boot || now.Up-time.Duration(o.Up*float64(time.Second)) > w.Longest {
		return api.Errorf(api.TimedOut, stopped+"its time is over")
	}
	if w.Override {
		return nil
	}
	if err := run.Blocked(ctx); err != nil {
		e := *api.AsError(err)
		e.Message = stopped + "now " + e.Message
		return &e
	}
	return nil
}

// ask asks the agent for a reboot and waits for its end.
func (b *Rebooter) ask(ctx context.Context, run *operation.Run, w Wanted) (api.Summary, error) {
	type result struct {
		sum api.Summary
		err error
	}
	done := make(chan result, 1)
	domain := run.Operation().UUID.String()
	// If the daemon stops, the agent is to remember what was asked of it: it would
	// forget that if it were told that nobody waits any more.
	waits, hangUp := context.WithTimeout(context.WithoutCancel(ctx), w.Timeout)
	go func() {
		defer hangUp()
		sum, err := b.Agent.RebootFor(waits, w.Asker, domain, w.Mode)
		done <- result{sum, err}
	}()
	if w.Absent > 0 {
		looking, stop := context.WithCancel(waits)
		var looks sync.WaitGroup
		looks.Go(func() { b.absent(looking, domain, w.Absent, hangUp) })
		defer func() { stop(); looks.Wait() }()
	}
	wanted, end := run.Unless(ctx)
	defer end()
	select {
	case r := <-done:
		return r.sum, r.err
	case <-wanted.Done():
		if ctx.Err() != nil {
			return api.Summary{}, ctx.Err()
		}
		hangUp() // it has been withdrawn
		return api.Summary{}, context.Cause(wanted)
	}
}

// absent calls then once there has been no domain for some time.
func (b *Rebooter) absent(ctx context.Context, domain string, limit time.Duration, then func()) {
	t := time.NewTicker(b.poll())
	defer t.Stop()
	seen := b.Moment().Up
	for {
		s, err := b.Agent.Status(ctx, domain, false)
		switch now := b.Moment().Up; {
		case err != nil || s.Domid != 0:
			seen = now
		case now-seen > limit:
			then()
			return
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func (b *Rebooter) poll() time.Duration {
	if b.Poll == 0 {
		return time.Second
	}
	return b.Poll
}

// became waits for what became of a reboot that an earlier daemon has asked for, or
// was about to: of the domain of that number.
func (b *Rebooter) became(ctx context.Context, run *operation.Run, w Wanted, was ident.Domid) (api.Summary, error) {
	o := run.Operation()
	patience := b.Patience
	if patience == 0 {
		patience = 2 * time.Minute
	}
	wanted, end := run.Unless(ctx)
	defer end()
	limited, cancel := context.WithTimeout(wanted, w.Timeout)
	defer cancel()
	t := time.NewTicker(b.poll())
	defer t.Stop()
	for idle := time.Duration(0); idle < patience; {
		s, err := b.Agent.Status(ctx, o.UUID.String(), false)
		last := s.Last
		if last == nil || last.DomidBefore != was {
			// The agent does not keep it, or it is not the last one: it has crashed since.
			e, ok := b.State.Latest(o.UUID, func(e *api.HistoryEntry) bool {
				return e.DomidBefore == was && e.Sequence != 0 && !e.Started.Before(o.Made)
			})
			if last = nil; ok {
				last = &e.Summary
			}
		}
		switch {
		// As long as it is that domain, a reboot of that number was one before the host's
		// last boot.
		case err == nil && last != nil && s.Domid != was && s.Current == nil:
			if w.Mode != api.Cold && last.Outcome != api.OutcomeWarm {
				return *last, api.Errorf(api.CameBackCold, "domain %s came back cold: %s", o.Domain, last.Reason)
			}
			return *last, nil
		case err != nil || s.Current == nil:
			idle += b.poll()
		}
		select {
		case <-t.C:
		case <-limited.Done():
			if ctx.Err() != nil {
				return api.Summary{}, ctx.Err()
			}
			if wanted.Err() != nil {
				return api.Summary{}, context.Cause(wanted)
			}
			sum := api.Summary{}
			if s.Current != nil {
				sum = *s.Current
			}
			return sum, api.Errorf(api.TimedOut, "domain %s: its reboot has not ended in time; warmrebootd was stopped when it asked for it", o.Domain).Try(api.TryWait)
		}
	}
	return api.Summary{}, api.Errorf(api.TimedOut, "warmrebootd was stopped when it asked for the reboot, and the domain has not gone down since; it is not asked again")
}

// Nodes are what is read of xenstore.
type Nodes interface {
	Read(ctx context.Context, path string) (string, error)
}

// Said returns what reads what a domain's guest, as it runs then, has written in
// xenstore at a path below the domain's own.
func (b *Rebooter) Said(uuid ident.UUID, nodes Nodes) func(context.Context, string) (string, error) {
	return func(ctx context.Context, path string) (string, error) {
		s, err := b.Agent.Status(ctx, uuid.String(), false)
		if err != nil {
			return "", err
		}
		if s.Domid == 0 {
			return "", errors.New("it is down")
		}
		return nodes.Read(ctx, fmt.Sprintf("/local/domain/%d/%s", s.Domid, path))
	}
}

// Record enters a reboot into the history that did not take place, once, however often
// it is entered for an operation.
func (b *Rebooter) Record(o operation.Operation, mode api.Trigger, why error, change func(*api.HistoryEntry)) error {
	e := api.HistoryEntry{At: b.Moment().Wall, Error: why.Error(), Operation: o.ID, Summary: api.Summary{Domain: o.Domain, UUID: o.UUID, Trigger: mode, By: o.By,
		Schedule: o.Schedule, Outcome: api.OutcomeFailed, Refused: map[string]uint64{}, VBDs: []api.VBDSummary{}}}
	if IsCancelled(why) {
		e.Outcome = api.OutcomeCancelled
	}
	if change != nil {
		change(&e)
	}
	var h agent.History = b.State
	if b.History != nil {
		h = b.History
	}
	_, err := h.Add(e)
	return err
}

// IsCancelled reports whether an operation ended because somebody has cancelled it.
func IsCancelled(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == api.Cancelled
}
