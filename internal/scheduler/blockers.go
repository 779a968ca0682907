package scheduler

import (
	"context"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/schedule"
)

// blockers are what the configuration has against an operation, whoever asks for it.
// That a schedule does not begin one is decided by package schedule, by the same rules;
// but there is time between a decision and what it leads to.
func (r *Runner) blockers() []operation.Blocker {
	return []operation.Blocker{operation.BlockerFunc(r.outsideWindows), operation.BlockerFunc(r.hasCompanion), operation.BlockerFunc(r.hostIsFull)}
}

// outsideWindows: a schedule obeys its own windows, an operator those of any schedule
// of the domain that has some.
func (r *Runner) outsideWindows(_ context.Context, t operation.Target) error {
	r.mu.Lock()
	conf := r.conf
	r.mu.Unlock()
	now := r.Now()
	if t.Schedule != "" && conf.Schedule(t.Schedule) == nil {
		return api.Errorf(api.Locked, "schedule %s is no more", t.Schedule)
	}
	var next time.Time
	var of string
	for _, c := range conf.Schedules {
		if t.Schedule != "" && c.Name != t.Schedule || t.Schedule == "" && !c.Match.Of(t.Domain, t.UUID) || len(c.Windows) == 0 {
			continue
		}
		opens, _ := schedule.Open(c.Windows, now, c.Location)
		if !opens.After(now) {
			return nil
		}
		if next.IsZero() || opens.Before(next) {
			next, of = opens, c.Name
		}
	}
	if next.IsZero() {
		return nil
	}
	return api.Errorf(api.Locked, "domain %s is outside its windows; the next, of schedule %s, opens at %s",
		t.Domain, of, next.Format("2006-01-02 15:04 MST")).Try(api.TryOverride)
}

// hasCompanion: another domain of its groups is down, or in a reboot, or was just now.
func (r *Runner) hasCompanion(ctx context.Context, t operation.Target) error {
	in, _, err := r.beside(ctx, t)
	if err != nil {
		return err
	}
	if why := schedule.Companion(in.Groups, in.Domains, t.Domain, t.UUID, nil); why != "" {
		return api.Errorf(api.Locked, "domain %s has to wait: %s", t.Domain, why).Try(api.TryOverride)
	}
	return nil
}

// hostIsFull: as many domains are in a reboot as may be.
func (r *Runner) hostIsFull(ctx context.Context, t operation.Target) error {
	in, limited, err := r.beside(ctx, t)
	if err != nil || t.Schedule == "" && !limited {
		return err
	}
	busy := 0
	for _, d := range in.Domains {
		if d.UUID != t.UUID && d.Busy != "" {
			busy++
		}
	}
	if why := in.Limits.Full(busy); why != "" {
		return api.Errorf(api.Locked, "domain %s has to wait: %s", t.Domain, why).Try(api.TryOverride)
	}
	return nil
}

// beside is what is known of all domains while an operation is admitted: those that
// were admitted before it are busy. limited: somebody has written down how many may be.
func (r *Runner) beside(ctx context.Context, t operation.Target) (in schedule.Input, limited bool, err error) {
	all, err := r.list(ctx)
	if err != nil {
		return in, false, err
	}
	in, conf := r.input(all, func(o operation.Operation) bool { return o.ID != t.Operation && o.Admitted() })
	return in, conf.Limited, nil
}
