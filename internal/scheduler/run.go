package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/agent"
	"github.com/warmreboot/warmreboot/internal/config"
	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/schedule"
	"github.com/warmreboot/warmreboot/internal/state"
)

// runKind is the kind of operation that a run of a schedule is.
const runKind = "schedule"

// runSpec is what a run has to know, also if the configuration is another one when
// the next daemon takes it up.
type runSpec struct {
	Schedule config.Schedule `json:"schedule"`
	Why      string          `json:"why"`
}

func specOf(s *config.Schedule, why string) runSpec {
	return runSpec{config.Schedule{Rule: schedule.Rule{Name: s.Name, Retry: s.Retry}, Mode: s.Mode, ColdToo: s.ColdToo, Timeout: s.Timeout,
		Before: s.Before, After: s.After, Health: s.Health, Alert: s.Alert, File: s.File, Line: s.Line}, why}
}

// run is one reboot by a schedule: the body of an operation. What it does, and what
// it asks that may have changed when it is asked again, are steps.
type run struct {
	r   *Runner
	op  *operation.Run
	s   *config.Schedule
	it  schedule.Item
	log *slog.Logger

	mode     api.Trigger // of the first reboot
	hooks    []api.StepResult
	health   *api.StepResult
	followed []string
	summary  api.Summary
	err      error // why the reboot did not end well
	number   int   // of steps, to tell apart those of one name
}

// step does a step of the operation. Those of one name are numbered.
func step[T any](ctx context.Context, n *run, name string, how operation.How, do func(context.Context) (T, error)) (T, error) {
	n.number++
	return operation.Do(ctx, n.op, fmt.Sprintf("%d %s", n.number, name), how, do)
}

// effect is a step that returns nothing.
func effect(ctx context.Context, n *run, name string, how operation.How, do func(context.Context) error) error {
	_, err := step(ctx, n, name, how, func(ctx context.Context) (bool, error) { return true, do(ctx) })
	return err
}

// runBody does a run, or what is left of it.
func (r *Runner) runBody(ctx context.Context, op *operation.Run) (any, error) {
	var spec runSpec
	if err := operation.Spec(op, &spec); err != nil {
		return nil, err
	}
	o := op.Operation()
	s := &spec.Schedule
	n := &run{r: r, op: op, s: s, mode: s.Mode, it: schedule.Item{Rule: &s.Rule, Domain: o.Domain, UUID: o.UUID, Why: spec.Why},
		log: r.Log.With("op", "schedule", "schedule", s.Name, "domain", o.Domain, "uuid", o.UUID)}
	r.mu.Lock()
	r.running[o.UUID] = s.Name
	r.mu.Unlock()
	if o.Taken > 0 {
		n.log.Warn("run of a daemon that was stopped: it is taken up", "next", "warmreboot history "+o.Domain+" says what came of it")
		n.followed = append(n.followed, "warmrebootd was stopped during this run, and took it up again")
	}
	failed := n.do(ctx)
	if ctx.Err() != nil { // the next daemon ends it
		return nil, ctx.Err()
	}
	if failed {
		r.setBack(s, o.UUID) // before it may be begun again
	}
	r.count(n.it, n.result())
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, o.UUID)
	return n.summary, n.err
}

// do does all of it; failed means that it has to be tried again some time.
func (n *run) do(ctx context.Context) (failed bool) {
	// Checks come before locks.
	mode, err := step(ctx, n, "check", operation.Again, func(ctx context.Context) (api.Trigger, error) {
		err := n.check(ctx)
		return n.mode, err
	})
	if err != nil {
		n.fail(ctx, err)
		return true
	}
	n.mode = mode
	lock := state.Lock{UUID: n.it.UUID, Domain: n.it.Domain, Owner: runOwner(n.s.Name), Reason: n.it.Why,
		TTL: n.s.Longest().Seconds(), Run: true, Schedule: n.s.Name}
	if err := effect(ctx, n, "lock", operation.Again, func(context.Context) error { return n.r.State.Lock(lock, n.r.moment()) }); err != nil {
		n.fail(ctx, err)
		return true
	}
	failed = n.locked(ctx)
	err = effect(ctx, n, "unlock", operation.Again, func(context.Context) error {
		_, _, err := n.r.State.Unlock(n.it.UUID, lock.Owner, n.r.moment())
		return err
	})
	if err != nil && ctx.Err() == nil {
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
	n.annotate(ctx)
	if n.err != nil {
		n.alert(ctx, "the reboot did not end well: "+n.err.Error())
	}
	n.log.Info("ended", "outcome", n.summary.Outcome, "reason", n.summary.Reason, "err", n.err, "health", n.healthWord(), "followed", strings.Join(n.followed, "; "))
	return n.err != nil
}

// fail records a reboot that did not take place.
func (n *run) fail(ctx context.Context, err error) {
	n.err = err
	_ = effect(ctx, n, "record", operation.Again, func(context.Context) error {
		n.log.Error("reboot did not take place", "err", err, "next", "warmreboot plan "+n.it.Domain)
		e := n.failedEntry(err)
		e.Hooks, e.Followed = n.hooks, strings.Join(n.followed, "; ")
		n.r.record(e)
		return nil
	})
	n.alert(ctx, "the reboot did not take place: "+err.Error())
}

// failedEntry is one that is entered once, however often it is entered.
func (n *run) failedEntry(err error) api.HistoryEntry {
	e := failedEntry(n.it.Domain, n.it.UUID, n.s.Name, n.s.Mode, err)
	e.Operation = n.op.Operation().ID
	return e
}

func (n *run) reboot(ctx context.Context) {
	n.summary, n.err = n.once(ctx, n.mode)
	var e *api.Error
	if errors.As(n.err, &e) && e.Code == api.CameBackCold {
		n.log.Warn("came back cold", "reason", n.summary.Reason)
		n.err = nil // it was rebooted, which is what was wanted
	}
}

// once reboots, at most once: a daemon that finds that it was asked for looks what
// became of that.
func (n *run) once(ctx context.Context, mode api.Trigger) (api.Summary, error) {
	was, err := step(ctx, n, "before "+string(mode), operation.Again, func(ctx context.Context) (ident.Domid, error) {
		if why := n.over(); why != "" {
			return 0, api.Errorf(api.Locked, "%s", why)
		}
		s, err := n.r.Agent.Status(ctx, n.it.UUID.String(), false)
		return s.Domid, err
	})
	if err != nil {
		return api.Summary{}, err
	}
	begun := n.op.Begun()
	return step(ctx, n, string(mode), operation.Again, func(ctx context.Context) (api.Summary, error) {
		if begun {
			return n.became(ctx, mode, was)
		}
		return n.ask(ctx, mode)
	})
}

// over says why a run that was taken up does not go on to its reboot; "" if it does.
func (n *run) over() string {
	o := n.op.Operation()
	now := n.r.moment()
	if o.Taken == 0 {
		return ""
	}
	const stopped = "warmrebootd was stopped before the reboot, and "
	if o.Boot != now.Boot || now.Up-time.Duration(o.Up*float64(time.Second)) > n.s.Longest() {
		return stopped + "the time of the run is over"
	}
	n.r.mu.Lock()
	s := n.r.conf.Schedule(n.s.Name)
	n.r.mu.Unlock()
	if s == nil {
		return stopped + "the schedule is no more"
	}
	if opens, _ := schedule.Open(s.Windows, now.Wall, s.Location); opens.After(now.Wall) {
		return stopped + "its windows are closed now"
	}
	return ""
}

// became waits for what became of a reboot that an earlier daemon has asked for, or
// was about to: of the domain of that number.
func (n *run) became(ctx context.Context, mode api.Trigger, was ident.Domid) (api.Summary, error) {
	t := time.NewTicker(n.r.Poll)
	defer t.Stop()
	for idle := time.Duration(0); idle < n.r.Patience; {
		s, err := n.r.Agent.Status(ctx, n.it.UUID.String(), false)
		last := s.Last
		if e, ok := n.r.State.Last(n.it.UUID); ok && (last == nil || last.DomidBefore != was) {
			last = &e.Summary // of one that the agent does not keep
		}
		switch {
		case err == nil && last != nil && last.DomidBefore == was && s.Current == nil:
			if mode != api.Cold && last.Outcome != "warm" {
				return *last, api.Errorf(api.CameBackCold, "domain %s came back cold: %s", n.it.Domain, last.Reason)
			}
			return *last, nil
		case err != nil || s.Current == nil:
			idle += n.r.Poll
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return api.Summary{}, ctx.Err()
		}
	}
	return api.Summary{}, api.Errorf(api.TimedOut, "warmrebootd was stopped when it asked for the reboot, and the domain has not gone down since; it is not asked again")
}

// ask asks the agent for a reboot and waits for its end.
func (n *run) ask(ctx context.Context, mode api.Trigger) (api.Summary, error) {
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
			n.annotate(ctx) // the entry so far is that of the first reboot
			n.followed = append(n.followed, n.coldReboot(ctx))
			if ctx.Err() != nil || n.health.OK {
				return
			}
		case config.Stop:
			why := fmt.Sprintf("the health check of %s failed: %s", n.it.Domain, n.health.Detail)
			if err := effect(ctx, n, "stop", operation.Again, func(context.Context) error { return n.r.State.Stop(n.s.Name, why) }); err != nil {
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
		err = effect(ctx, n, "drop", operation.Again, func(ctx context.Context) error {
			_, err := n.r.Agent.Drop(ctx, n.it.UUID.String())
			return err
		})
		if err == nil {
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
	h := n.s.Health
	what := h.HTTP + h.TCP
	if what == "" {
		what = strings.Join(h.Args, " ")
	}
	result, err := step(ctx, n, "health", operation.Again, func(ctx context.Context) (api.StepResult, error) {
		begun := time.Now()
		err := healthy(ctx, h, n.expand, n.env())
		if ctx.Err() != nil {
			return api.StepResult{}, ctx.Err()
		}
		res := api.StepResult{Name: "health", What: n.expand(what), Started: begun, Seconds: time.Since(begun).Seconds(), OK: err == nil}
		if err != nil {
			res.Detail = err.Error()
			n.log.Error("health check failed", "err", err)
		}
		return res, nil
	})
	if err != nil { // it could not be journalled
		result = api.StepResult{Name: "health", What: n.expand(what), Detail: err.Error()}
	}
	n.health = &result
	return result.OK
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

// hook runs a hook, once: of one that was running when the daemon was stopped nobody
// knows how far it got, which is reported.
func (n *run) hook(ctx context.Context, name string, c config.Command) api.StepResult {
	args := expandAll(c.Args, n.expand)
	what := strings.Join(args, " ")
	res, err := step(ctx, n, name, operation.Once, func(ctx context.Context) (api.StepResult, error) {
		res := api.StepResult{Name: name, What: what, Started: time.Now()}
		_, output, err := command(ctx, args, n.env(), c.Timeout)
		if ctx.Err() != nil {
			return res, ctx.Err()
		}
		res.Seconds, res.OK, res.Detail = time.Since(res.Started).Seconds(), err == nil, output
		if err != nil {
			res.Detail = strings.TrimSpace(err.Error() + "\n" + output)
			n.log.Error("hook failed", "hook", name, "command", res.What, "err", err, "output", output)
		} else {
			n.log.Info("hook", "hook", name, "command", res.What, "seconds", res.Seconds)
		}
		return res, nil
	})
	if err != nil {
		res = api.StepResult{Name: name, What: what, Detail: err.Error()}
	}
	n.hooks = append(n.hooks, res)
	return res
}

// alert tells the operator.
func (n *run) alert(ctx context.Context, message string) {
	err := effect(ctx, n, "alert", operation.Once, func(ctx context.Context) error {
		n.log.Error("alert", "message", message)
		if n.s.Alert == nil {
			return nil
		}
		_, output, err := command(ctx, expandAll(n.s.Alert.Args, n.expand), append(n.env(), "WARMREBOOT_ALERT="+message), n.s.Alert.Timeout)
		if err != nil && ctx.Err() == nil {
			n.log.Error("alert command failed", "err", err, "output", output)
		}
		return ctx.Err()
	})
	if errors.Is(err, operation.ErrInterrupted) {
		n.log.Error("alert", "message", message, "err", err)
	}
}

// annotate enters into the history what was done around the reboot that is its
// last one.
func (n *run) annotate(ctx context.Context) {
	err := effect(ctx, n, "annotate", operation.Again, func(context.Context) error {
		last, ok := n.r.State.Last(n.it.UUID)
		if !ok || last.Sequence != n.summary.Sequence {
			// It has not ended: the agent records it when it does.
			err := n.err
			if err == nil {
				err = errors.New("the history has no entry of it")
			}
			e := n.failedEntry(err)
			e.Hooks, e.Health, e.Followed = n.hooks, n.health, strings.Join(n.followed, "; ")
			n.r.record(e)
			return nil
		}
		return n.r.State.Annotate(n.it.UUID, last.ID, func(e *api.HistoryEntry) {
			e.Operation = n.op.Operation().ID
			e.Hooks, e.Health, e.Followed = n.hooks, n.health, strings.Join(n.followed, "; ")
			if n.err != nil {
				e.Error = n.err.Error()
			}
		})
	})
	if err != nil && ctx.Err() == nil {
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
	return string(n.summary.Outcome)
}
