package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/agent"
	"github.com/warmreboot/warmreboot/internal/config"
	"github.com/warmreboot/warmreboot/internal/schedule"
	"github.com/warmreboot/warmreboot/internal/state"
)

// run is one reboot by a schedule.
type run struct {
	r   *Runner
	s   *config.Schedule
	it  schedule.Item
	log *slog.Logger

	mode     api.Trigger // of the first reboot
	hooks    []api.StepResult
	health   *api.StepResult
	followed []string
	summary  api.Summary
	err      error // why the reboot did not end well
}

func newRun(r *Runner, s *config.Schedule, it schedule.Item, log *slog.Logger) *run {
	return &run{r: r, s: s, it: it, log: log, mode: s.Mode}
}

// do does all of it; failed means that it has to be tried again some time. If
// ctx ends meanwhile, the rest is left to the next daemon, which finds the lock.
func (n *run) do(ctx context.Context) (failed bool) {
	// Checks come before locks.
	if err := n.check(ctx); err != nil {
		if ctx.Err() == nil {
			n.fail(ctx, err)
		}
		return true
	}
	lock := state.Lock{UUID: n.it.UUID, Domain: n.it.Domain, Owner: runOwner(n.s.Name), Reason: n.it.Why,
		TTL: n.s.Longest().Seconds(), Run: true, Schedule: n.s.Name}
	if err := n.r.State.Lock(lock, n.r.moment()); err != nil {
		n.fail(ctx, err)
		return true
	}
	failed = n.locked(ctx)
	if ctx.Err() != nil {
		return true
	}
	if _, _, err := n.r.State.Unlock(n.it.UUID, lock.Owner, n.r.moment()); err != nil {
		n.log.Error("lock", "err", err)
	}
	return failed
}

// check asks whether the domain would come back warm; one that would not, but is
// to be rebooted all the same, is rebooted cold.
func (n *run) check(ctx context.Context) error {
	if n.s.Mode == api.Cold {
		return nil
	}
	plan, err := n.r.Agent.Plan(ctx, n.it.UUID.String(), n.s.Mode)
	var e *api.Error
	switch {
	case err == nil && plan.Joins != "":
		return api.Errorf(api.Locked, "domain %s is going down by itself", plan.Domain)
	case err == nil && plan.NotWarm == "":
		return nil
	case err != nil && (!errors.As(err, &e) || e.Code == api.NotFound || e.Code == api.Locked):
		return err
	case err == nil:
		err = errors.New(plan.NotWarm)
	}
	if !n.s.ColdToo {
		return fmt.Errorf("it would come back cold, and if_cold says skip: %w", err)
	}
	n.log.Info("it will come back cold", "why", err)
	n.mode = api.Cold
	return nil
}

// locked is what is done with the lock held.
func (n *run) locked(ctx context.Context) (failed bool) {
	if err := n.before(ctx); err != nil {
		if ctx.Err() == nil {
			n.err = err
			n.after(ctx)
			n.fail(ctx, err)
		}
		return true
	}
	n.reboot(ctx)
	if ctx.Err() != nil {
		return true
	}
	if n.err == nil {
		n.wellAgain(ctx)
	}
	n.after(ctx)
	if ctx.Err() != nil {
		return true
	}
	if n.err != nil && n.summary.Sequence == 0 {
		n.fail(ctx, n.err)
		return true
	}
	n.annotate()
	if n.err != nil {
		n.alert(ctx, "the reboot did not end well: "+n.err.Error())
	}
	n.log.Info("ended", "outcome", n.summary.Outcome, "reason", n.summary.Reason, "err", n.err, "health", n.healthWord(), "followed", strings.Join(n.followed, "; "))
	return n.err != nil
}

// fail records a reboot that did not take place.
func (n *run) fail(ctx context.Context, err error) {
	n.log.Error("reboot did not take place", "err", err, "next", "warmreboot plan "+n.it.Domain)
	e := failedEntry(n.it.Domain, n.it.UUID, n.s.Name, n.s.Mode, err)
	e.Hooks = n.hooks
	n.r.record(e)
	n.alert(ctx, "the reboot did not take place: "+err.Error())
}

func (n *run) reboot(ctx context.Context) {
	n.summary, n.err = n.once(ctx, n.mode)
	var e *api.Error
	if errors.As(n.err, &e) && e.Code == api.CameBackCold {
		n.log.Warn("came back cold", "reason", n.summary.Reason)
		n.err = nil // it was rebooted, which is what was wanted
	}
}

func (n *run) once(ctx context.Context, mode api.Trigger) (api.Summary, error) {
	type result struct {
		sum api.Summary
		err error
	}
	done := make(chan result, 1)
	go func() {
		// If the daemon stops, the agent is to remember what was asked of it: it
		// would forget that if it were told that nobody waits any more.
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.s.Timeout)
		defer cancel()
		sum, err := n.r.Agent.RebootFor(limited, agent.Asker{By: api.BySchedule, Schedule: n.s.Name}, n.it.UUID.String(), mode)
		done <- result{sum, err}
	}()
	select {
	case r := <-done:
		return r.sum, r.err
	case <-ctx.Done():
		return api.Summary{}, ctx.Err()
	}
}

// wellAgain makes the health check, and what follows if it fails.
func (n *run) wellAgain(ctx context.Context) {
	h := n.s.Health
	if h == nil || n.checkHealth(ctx) || ctx.Err() != nil {
		return
	}
	for _, a := range h.OnFailure {
		switch a {
		case config.Alert:
			n.alert(ctx, "the health check after the reboot failed: "+n.health.Detail)
			n.followed = append(n.followed, "alert")
		case config.ColdReboot:
			n.log.Warn("cold reboot, as the health check failed")
			n.annotate() // the entry so far is that of the first reboot
			n.followed = append(n.followed, n.coldReboot(ctx))
			if ctx.Err() != nil || n.health.OK {
				return
			}
		case config.Stop:
			why := fmt.Sprintf("the health check of %s failed: %s", n.it.Domain, n.health.Detail)
			if err := n.r.State.Stop(n.s.Name, why); err != nil {
				n.log.Error("stop", "err", err)
			}
			n.log.Error("schedule is stopped", "why", why, "next", "warmreboot resume "+n.s.Name)
			n.followed = append(n.followed, "schedule stopped")
		}
	}
}

// coldReboot reboots without the page cache, once, and checks again. It says
// what came of it.
func (n *run) coldReboot(ctx context.Context) string {
	sum, err := n.once(ctx, api.Cold)
	if err != nil && sum.Sequence == 0 && ctx.Err() == nil {
		// The guest does not react. Without what is known of its pages, a forced
		// reboot is a cold one, too.
		n.log.Warn("the guest does not react: forced cold reboot", "err", err)
		if _, err = n.r.Agent.Drop(ctx, n.it.UUID.String()); err == nil {
			sum, err = n.once(ctx, api.Force)
			var e *api.Error
			if errors.As(err, &e) && e.Code == api.CameBackCold {
				err = nil
			}
		}
	}
	if err != nil {
		return "cold reboot failed: " + err.Error()
	}
	n.summary = sum
	if n.checkHealth(ctx) {
		return "well after a cold reboot"
	}
	return "not well after a cold reboot, either"
}

func (n *run) checkHealth(ctx context.Context) bool {
	begun := time.Now()
	h := n.s.Health
	err := healthy(ctx, h, n.expand, n.env())
	what := h.HTTP + h.TCP
	if what == "" {
		what = strings.Join(h.Args, " ")
	}
	n.health = &api.StepResult{Name: "health", What: n.expand(what), Started: begun, Seconds: time.Since(begun).Seconds(), OK: err == nil}
	if err != nil {
		n.health.Detail = err.Error()
		n.log.Error("health check failed", "err", err)
	}
	return err == nil
}

// before runs the hooks before the reboot; an error is that of one which counts.
func (n *run) before(ctx context.Context) error {
	for _, h := range n.s.Before {
		if res := n.hook(ctx, "before", h.Command); !res.OK && !h.GoOn {
			return fmt.Errorf("hook %s failed: %s", res.What, res.Detail)
		}
	}
	return nil
}

// after runs the hooks after the reboot, all if the domain is well, else those
// that always run.
func (n *run) after(ctx context.Context) {
	well := n.err == nil && (n.health == nil || n.health.OK)
	for _, h := range n.s.After {
		if ctx.Err() != nil || !well && !h.Always {
			continue
		}
		if res := n.hook(ctx, "after", h.Command); !res.OK && !h.GoOn {
			n.alert(ctx, fmt.Sprintf("hook %s failed: %s", res.What, res.Detail))
			break
		}
	}
}

func (n *run) hook(ctx context.Context, name string, c config.Command) api.StepResult {
	args := expandAll(c.Args, n.expand)
	res := api.StepResult{Name: name, What: strings.Join(args, " "), Started: time.Now()}
	_, output, err := command(ctx, args, n.env(), c.Timeout)
	res.Seconds, res.OK, res.Detail = time.Since(res.Started).Seconds(), err == nil, output
	if err != nil {
		res.Detail = strings.TrimSpace(err.Error() + "\n" + output)
		n.log.Error("hook failed", "hook", name, "command", res.What, "err", err, "output", output)
	} else {
		n.log.Info("hook", "hook", name, "command", res.What, "seconds", res.Seconds)
	}
	n.hooks = append(n.hooks, res)
	return res
}

// alert tells the operator.
func (n *run) alert(ctx context.Context, message string) {
	n.log.Error("alert", "message", message)
	if n.s.Alert == nil || ctx.Err() != nil {
		return
	}
	_, output, err := command(ctx, expandAll(n.s.Alert.Args, n.expand), append(n.env(), "WARMREBOOT_ALERT="+message), n.s.Alert.Timeout)
	if err != nil {
		n.log.Error("alert command failed", "err", err, "output", output)
	}
}

// annotate enters into the history what was done around the reboot that is its
// last one.
func (n *run) annotate() {
	last, ok := n.r.State.Last(n.it.UUID)
	if !ok || last.Sequence != n.summary.Sequence {
		// It has not ended: the agent records it when it does.
		e := failedEntry(n.it.Domain, n.it.UUID, n.s.Name, n.s.Mode, errors.Join(n.err))
		if n.err == nil {
			e.Error = "the history has no entry of it"
		}
		e.Hooks, e.Health, e.Followed = n.hooks, n.health, strings.Join(n.followed, "; ")
		n.r.record(e)
		return
	}
	err := n.r.State.Annotate(n.it.UUID, last.ID, func(e *api.HistoryEntry) {
		e.Hooks, e.Health, e.Followed = n.hooks, n.health, strings.Join(n.followed, "; ")
		if n.err != nil {
			e.Error = n.err.Error()
		}
	})
	if err != nil {
		n.log.Error("history", "err", err)
	}
}

func (n *run) expand(s string) string { return config.Expand(s, n.it.Domain, n.it.UUID.String()) }

func (n *run) healthWord() string {
	switch {
	case n.health == nil:
		return "none"
	case n.health.OK:
		return "ok"
	}
	return "failed"
}

// result is how the run ended.
func (n *run) result() api.RunResult {
	switch {
	case n.err != nil || n.summary.Sequence == 0:
		return api.RunFailed
	case n.health != nil && !n.health.OK:
		return api.RunUnhealthy
	}
	return api.RunResult(n.summary.Outcome)
}

// env is the environment of commands.
func (n *run) env() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
		"WARMREBOOT_DOMAIN=" + n.it.Domain, "WARMREBOOT_UUID=" + n.it.UUID.String(), "WARMREBOOT_SCHEDULE=" + n.s.Name,
		"WARMREBOOT_MODE=" + string(n.s.Mode), "WARMREBOOT_WHY=" + n.it.Why, "WARMREBOOT_OUTCOME=" + n.outcome(),
		"WARMREBOOT_REASON=" + n.summary.Reason, "WARMREBOOT_HEALTH=" + n.healthWord()}
}

func (n *run) outcome() string {
	if n.err != nil {
		return "failed"
	}
	return n.summary.Outcome
}
