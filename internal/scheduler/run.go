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
	"github.com/warmreboot/warmreboot/internal/health"
	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/operator"
	"github.com/warmreboot/warmreboot/internal/schedule"
)

// runSpec is what a run has to know, also if the configuration is another one when
// the next daemon takes it up.
type runSpec struct {
	Schedule config.Schedule `json:"schedule"`
	Why      string          `json:"why"`
}

func specOf(s *config.Schedule, why string) runSpec {
	return runSpec{config.Schedule{Rule: schedule.Rule{Name: s.Name, Retry: s.Retry}, Mode: s.Mode, ColdToo: s.ColdToo, Timeout: s.Timeout,
		Before: s.Before, After: s.After, Health: s.Health, Update: s.Update, Alert: s.Alert, File: s.File, Line: s.Line}, why}
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
	updates  bool  // it is an update, with its own health check
	tried    bool  // which was tried, or may have been
}

// effect is a step that returns nothing.
func effect(ctx context.Context, n *run, name string, how operation.How, do func(context.Context) error) error {
	_, err := operation.Do(ctx, n.op, name, how, func(ctx context.Context) (bool, error) { return true, do(ctx) })
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
	if o.Taken > 0 {
		n.log.Warn("run of a daemon that was stopped: it is taken up", "next", "warmreboot history "+ident.Word(o.Domain, o.UUID)+" says what came of it")
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
	return n.summary, n.err
}

// do does all of it; failed means that it has to be tried again some time.
func (n *run) do(ctx context.Context) (failed bool) {
	err := operation.Admit(ctx, n.op, operation.Admission{TTL: n.s.Longest()})
	if err == nil {
		n.mode, err = operation.Do(ctx, n.op, "check", operation.Again, func(ctx context.Context) (api.Trigger, error) {
			err := n.check(ctx)
			return n.mode, err
		})
	}
	if err != nil {
		n.fail(ctx, err)
		return true
	}
	return n.admitted(ctx)
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

// admitted is what is done then.
func (n *run) admitted(ctx context.Context) (failed bool) {
	if n.s.Update != nil {
		var err error
		n.updates, err = operation.Do(ctx, n.op, "kernel", operation.Again, func(ctx context.Context) (bool, error) {
			return n.r.Updater.Ready(ctx, n.op, n.update())
		})
		if err != nil {
			if ctx.Err() == nil {
				n.fail(ctx, err)
			}
			return true
		}
	}
	if err := n.before(ctx); err != nil {
		if ctx.Err() == nil {
			n.err = err
			n.after(ctx)
			n.fail(ctx, err)
		}
		return true
	}
	if n.updates {
		n.updateIt(ctx)
	} else {
		n.reboot(ctx)
	}
	if ctx.Err() != nil {
		return true
	}
	if n.err == nil && !n.updates {
		n.wellAgain(ctx)
	}
	n.after(ctx)
	if ctx.Err() != nil {
		return true
	}
	if n.err != nil && n.summary.Sequence == 0 && !n.tried {
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
	cancelled := operator.IsCancelled(err)
	bad := effect(ctx, n, "record", operation.Again, func(context.Context) error {
		if cancelled {
			n.log.Info("cancelled before the reboot", "err", err)
		} else {
			n.log.Error("reboot did not take place", "err", err, "next", "warmreboot plan "+ident.Word(n.it.Domain, n.it.UUID))
		}
		return n.record(err)
	})
	if bad != nil && ctx.Err() == nil {
		n.log.Error("history", "err", bad, "next", "make room in the state directory")
	}
	if cancelled { // somebody knows
		return
	}
	n.alert(ctx, "the reboot did not take place: "+err.Error())
}

// record enters that the reboot did not take place.
func (n *run) record(why error) error {
	return n.r.Rebooter.Record(n.op.Operation(), n.s.Mode, why, func(e *api.HistoryEntry) {
		e.Hooks, e.Health, e.Followed = n.hooks, n.health, strings.Join(n.followed, "; ")
	})
}

// update is what the schedule wants of its domain.
func (n *run) update() operator.ScheduledUpdate {
	return operator.ScheduledUpdate{Asker: agent.Asker{By: api.BySchedule, Schedule: n.s.Name}, Domain: n.it.UUID, Mode: n.mode,
		Update: *n.s.Update, Health: n.s.Health, Expand: n.expand, Longest: n.s.Longest()}
}

// updateIt reboots the domain into another kernel. A schedule is stopped where that was
// not to stay, or nobody knows: others would have the same.
func (n *run) updateIt(ctx context.Context) {
	var u api.Update
	n.summary, u, n.err = n.r.Updater.Update(ctx, n.op, n.update())
	if ctx.Err() != nil {
		return
	}
	kernel := n.expand(n.s.Update.Kernel)
	n.tried = u.Outcome != api.NotTried
	how := strings.ReplaceAll(string(u.Outcome), "_", " ")
	if u.Outcome == "" {
		how = "did not come to its end"
		if n.err != nil {
			u.Why = n.err.Error()
		}
	}
	note := "update to " + kernel + ": " + how
	if u.Why != "" {
		note += ": " + u.Why
	}
	n.followed = append(n.followed, note)
	switch u.Outcome {
	case api.Updated:
		n.err = nil // it may be cold
		if h := n.s.Health; h != nil {
			n.health = &api.StepResult{Name: "health", What: n.expand(h.String()), OK: true}
		}
		if u.ConfigError != "" {
			n.followed = append(n.followed, u.Config+" is not changed: "+u.ConfigError)
			n.alert(ctx, fmt.Sprintf("it was updated, but %s has its old kernel: %s", u.Config, u.ConfigError))
		}
	case api.UpdateBack, api.UpdateLost:
		n.stop(ctx, fmt.Sprintf("the update of %s to %s was not to stay: %s", n.it.Domain, kernel, u.Why))
	case "":
		n.stop(ctx, fmt.Sprintf("the update of %s to %s did not come to its end: %s", n.it.Domain, kernel, u.Why))
	}
}

// stop has the schedule begin nothing any more.
func (n *run) stop(ctx context.Context, why string) {
	stop := func(context.Context) error { return n.r.State.Stop(n.s.Name, why) }
	err := effect(ctx, n, "stop", operation.Again, stop)
	if err != nil && ctx.Err() == nil { // the journal may have no room, and the state may
		err = stop(ctx)
	}
	if err != nil {
		n.log.Error("that the schedule is stopped cannot be written down: it goes on", "err", err, "next", "make room in the state directory")
	}
	n.log.Error("schedule is stopped", "why", why, "next", "warmreboot resume "+n.s.Name)
	n.followed = append(n.followed, "schedule stopped")
}

func (n *run) reboot(ctx context.Context) {
	n.summary, n.err = n.once(ctx, n.mode)
	var e *api.Error
	if errors.As(n.err, &e) && e.Code == api.CameBackCold {
		n.log.Warn("came back cold", "reason", n.summary.Reason)
		n.err = nil // it was rebooted, which is what was wanted
	}
}

// once reboots, at most once.
func (n *run) once(ctx context.Context, mode api.Trigger) (api.Summary, error) {
	return n.r.Rebooter.Reboot(ctx, n.op, operator.Wanted{Asker: agent.Asker{By: api.BySchedule, Schedule: n.s.Name}, Mode: mode,
		Timeout: n.s.Timeout, Longest: n.s.Longest()})
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
			n.stop(ctx, fmt.Sprintf("the health check of %s failed: %s", n.it.Domain, n.health.Detail))
		}
	}
}

// coldReboot reboots without the page cache, once, and checks again. It says
// what came of it.
func (n *run) coldReboot(ctx context.Context) string {
	sum, err := n.once(ctx, api.Cold)
	if operator.IsCancelled(err) {
		return "cold reboot left out: " + err.Error()
	}
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
	what := h.String()
	result, err := operation.Do(ctx, n.op, "health", operation.Again, func(ctx context.Context) (api.StepResult, error) {
		begun := time.Now()
		err := health.Await(ctx, h, health.Subject{Expand: n.expand, Env: n.env(), Said: n.r.Rebooter.Said(n.it.UUID, n.r.Store)})
		if ctx.Err() != nil {
			return api.StepResult{}, ctx.Err()
		}
		res := api.StepResult{Name: "health", What: n.expand(what), Started: begun, Seconds: time.Since(begun).Seconds(), OK: err == nil}
		if err != nil {
			res.Detail = err.Error()
			n.log.Error("health check failed", "err", err, "next", "look at the domain: xl console "+n.it.Domain)
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
		if err := n.op.Cancelled(); err != nil {
			return err
		}
		if res := n.hook(ctx, "before", h.Command); !res.OK && !h.GoOn {
			if err := n.op.Cancelled(); err != nil { // which broke it off
				return err
			}
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
	args := health.ExpandAll(c.Args, n.expand)
	what := strings.Join(args, " ")
	res, err := operation.Do(ctx, n.op, name, operation.Once, func(ctx context.Context) (api.StepResult, error) {
		res := api.StepResult{Name: name, What: what, Started: time.Now()}
		wanted := ctx
		if name == "before" {
			var end context.CancelFunc
			wanted, end = n.op.Unless(ctx)
			defer end()
		}
		_, output, err := health.Command(wanted, args, n.env(), c.Timeout)
		if ctx.Err() != nil {
			return res, ctx.Err()
		}
		res.Seconds, res.OK, res.Detail = time.Since(res.Started).Seconds(), err == nil, output
		if err != nil {
			res.Detail = strings.TrimSpace(err.Error() + "\n" + output)
			n.log.Error("hook failed", "hook", name, "command", res.What, "err", err, "output", output, "next", "run it by hand; warmreboot history "+n.it.Domain+" says what became of the run")
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
		n.log.Error("alert", "message", message, "next", "warmreboot history "+n.it.Domain)
		if n.s.Alert == nil {
			return nil
		}
		_, output, err := health.Command(ctx, health.ExpandAll(n.s.Alert.Args, n.expand), append(n.env(), "WARMREBOOT_ALERT="+message), n.s.Alert.Timeout)
		if err != nil && ctx.Err() == nil {
			n.log.Error("alert command failed: nobody was told", "err", err, "output", output, "next", "run it by hand")
		}
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil { // it was interrupted, or cannot be journalled
		n.log.Error("alert", "message", message, "err", err, "next", "warmreboot history "+n.it.Domain)
	}
}

// annotate enters into the history what was done around its last reboot.
func (n *run) annotate(ctx context.Context) {
	err := effect(ctx, n, "annotate", operation.Again, func(context.Context) error {
		entry, ok := n.r.State.Of(n.summary)
		if !ok {
			// It has not ended: the agent records it when it does.
			err := n.err
			if err == nil {
				err = errors.New("the history has no entry of it")
			}
			return n.record(err)
		}
		return n.r.State.Annotate(n.it.UUID, entry.ID, func(e *api.HistoryEntry) {
			e.Operation = n.op.Operation().ID
			e.Hooks, e.Health, e.Followed = n.hooks, n.health, strings.Join(n.followed, "; ")
			if n.err != nil {
				e.Error = n.err.Error()
			}
		})
	})
	if err != nil && ctx.Err() == nil {
		n.log.Error("history", "err", err, "next", "make room in the state directory")
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
	case operator.IsCancelled(n.err):
		return api.RunCancelled
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
	if operator.IsCancelled(n.err) {
		return string(api.OutcomeCancelled)
	}
	if n.err != nil {
		return "failed"
	}
	return string(n.summary.Outcome)
}
