package scheduler

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/config"
	"github.com/warmreboot/warmreboot/internal/operator"
	"github.com/warmreboot/warmreboot/internal/schedule"
	"github.com/warmreboot/warmreboot/internal/state"
)

// History implements api.Schedules.
func (r *Runner) History(ctx context.Context, q api.HistoryQuery) iter.Seq2[api.HistoryEntry, error] {
	return r.State.History(ctx, q)
}

// Config implements api.Schedules.
func (r *Runner) Config(context.Context) (api.ConfigStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.configStatus(), nil
}

func (r *Runner) configStatus() api.ConfigStatus {
	return api.ConfigStatus{Dir: r.Dir, Files: append([]string{}, r.conf.Files...), Loaded: r.loaded, Error: r.confErr, DryRun: r.DryRun}
}

// Forecast implements api.Schedules.
func (r *Runner) Forecast(ctx context.Context, domain string) (api.Forecast, error) {
	f := api.Forecast{Runs: []api.PlannedRun{}, Locks: []api.LockStatus{}, Halted: []api.HaltedRules{}}
	var uuid fmt.Stringer
	if domain != "" {
		s, err := r.Agent.Status(ctx, domain, false)
		if err != nil {
			return f, err
		}
		uuid = s.UUID
	}
	all, err := r.list(ctx)
	if err != nil {
		return f, err
	}
	in, conf := r.input(all, underWay)
	in.Forecast = true
	r.mu.Lock()
	f.Now, f.Config = in.Now, r.configStatus()
	r.mu.Unlock()
	for _, it := range schedule.Decide(in) {
		s := conf.Schedule(it.Rule.Name)
		if s == nil || uuid != nil && it.UUID.String() != uuid.String() {
			continue
		}
		if it.Start {
			it.Next = f.Now
		}
		kernel := ""
		if s.Update != nil {
			kernel = config.Expand(s.Update.Kernel, it.Domain, it.UUID.String())
		}
		f.Runs = append(f.Runs, api.PlannedRun{Schedule: it.Rule.Name, Domain: it.Domain, UUID: it.UUID, Mode: s.Mode, Kernel: kernel,
			DryRun: s.DryRun || r.DryRun, Running: in.Running[it.UUID] == it.Rule.Name,
			Due: it.Due, Blocked: it.Blocked, Next: it.Next, Why: it.Why})
	}
	now := r.moment()
	locks := r.State.Locks(now)
	if r.State.Lost() != "" { // then all are that are there
		for _, d := range all {
			if l, ok := r.State.LockOf(d.UUID, now); ok && l.Until.IsZero() {
				l.Domain = d.Domain
				locks = append(locks, l)
			}
		}
	}
	for _, l := range locks {
		if uuid == nil || l.UUID.String() == uuid.String() {
			f.Locks = append(f.Locks, lockStatus(l))
		}
	}
	for rule, why := range r.State.Stopped(conf.Names()...) {
		f.Halted = append(f.Halted, api.HaltedRules{Schedule: rule, Why: why})
	}
	slices.SortFunc(f.Halted, func(a, b api.HaltedRules) int { return strings.Compare(a.Schedule, b.Schedule) })
	return f, nil
}

// count counts a run that has ended.
func (r *Runner) count(it schedule.Item, result api.RunResult) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended[api.RunCount{Schedule: it.Rule.Name, Domain: it.Domain, UUID: it.UUID, Result: result}]++
}

// RunCounts returns how the runs since Start have ended.
func (r *Runner) RunCounts() []api.RunCount {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []api.RunCount
	for c, times := range r.ended {
		c.Times = times
		all = append(all, c)
	}
	return all
}

func lockStatus(l state.Lock) api.LockStatus {
	return api.LockStatus{Domain: l.Domain, UUID: l.UUID, Owner: l.Owner, Reason: l.Reason, Made: l.Made, Until: l.Until, Operation: l.Operation}
}

// Lock implements api.Schedules.
func (r *Runner) Lock(ctx context.Context, domain string, q api.LockRequest) (api.LockStatus, error) {
	s, err := r.Agent.Status(ctx, domain, false)
	if err != nil {
		return api.LockStatus{}, err
	}
	if q.TTLSeconds <= 0 || q.TTLSeconds > state.MaxLock.Seconds() || q.Owner == "" || strings.HasPrefix(q.Owner, "schedule ") {
		return api.LockStatus{}, api.Errorf(api.BadRequest, "a lock needs an owner, and a time to live of up to %d days", state.MaxLock/(24*time.Hour))
	}
	l := state.Lock{UUID: s.UUID, Domain: s.Domain, Owner: q.Owner, Reason: q.Reason, TTL: q.TTLSeconds}
	now := r.moment()
	if err := r.State.Lock(l, now); err != nil {
		var held *state.HeldError
		if errors.As(err, &held) {
			e := operator.Held(held.Lock)
			e.Hint = "" // no option takes it from whoever has it
			err = e
		}
		return api.LockStatus{}, err
	}
	l, _ = r.State.LockOf(s.UUID, now)
	r.Log.Info("locked", "op", "lock", "domain", s.Domain, "uuid", s.UUID, "owner", q.Owner, "until", l.Until)
	return lockStatus(l), nil
}

// Unlock implements api.Schedules. What an operation has it keeps until it has ended: it
// does so with the domain to itself, or not at all.
func (r *Runner) Unlock(ctx context.Context, domain string) (api.LockStatus, error) {
	s, err := r.Agent.Status(ctx, domain, false)
	if err != nil {
		return api.LockStatus{}, err
	}
	if held, ok := r.State.LockOf(s.UUID, r.moment()); ok && held.Operation != "" {
		if op, _, ok := r.Operations.Get(held.Operation); ok && !op.Done {
			return api.LockStatus{}, api.Errorf(api.Locked, "domain %s is in operation %s of %s (%s), which has not ended; warmreboot cancel %s ends it, if it still can be left undone",
				s.Domain, op.ID, op.Owner, op.Cause, op.ID)
		}
	}
	l, ok, err := r.State.Unlock(s.UUID, r.moment())
	if err != nil {
		return api.LockStatus{}, err
	}
	if !ok {
		return api.LockStatus{}, api.Errorf(api.BadRequest, "domain %s is not locked", s.Domain)
	}
	r.Log.Info("unlocked", "op", "lock", "domain", s.Domain, "uuid", s.UUID, "owner", l.Owner)
	l.Domain = s.Domain
	return lockStatus(l), nil
}

// Resume implements api.Schedules.
func (r *Runner) Resume(_ context.Context, rule string) (api.HaltedRules, error) {
	why, ok := r.State.Stopped(rule)[rule]
	if !ok {
		return api.HaltedRules{}, api.Errorf(api.BadRequest, "schedule %q is not stopped; warmreboot plan shows those that are", rule)
	}
	if _, err := r.State.Resume(rule); err != nil {
		return api.HaltedRules{}, err
	}
	r.Log.Info("schedule resumed", "op", "schedule", "schedule", rule, "was", why)
	return api.HaltedRules{Schedule: rule, Why: why}, nil
}
