package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/agent"
	"github.com/warmreboot/warmreboot/internal/bootonce"
	"github.com/warmreboot/warmreboot/internal/config"
	"github.com/warmreboot/warmreboot/internal/health"
	"github.com/warmreboot/warmreboot/internal/kernelfile"
	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/toolstack"
	"github.com/warmreboot/warmreboot/internal/update"
)

// Updates are what updates need besides.
type Updates struct {
	// Owner says who has created a domain, Ends what he does when it ends.
	Owner func(ident.Domid, ident.UUID, string) (toolstack.Owner, error)
	Ends  func(ident.Domid, ident.UUID) (toolstack.Ends, error)
	// Drivers are the toolstacks' by their names.
	Drivers map[string]toolstack.Driver
	// Dir is a folder of their own; the trial of a domain is in one below it.
	Dir string
	// Console is where the guests' consoles are, Configs where xl's configurations.
	Console, Configs string
	// Ended is told of each that has ended; it may be nil.
	Ended func(uuid ident.UUID, outcome api.UpdateOutcome)
	// Poll is how often a trial is looked at; 0 is the default.
	Poll time.Duration
	// Clones are for trials on clones; nil: there are none.
	Clones *Clones
	// Well makes a health check; nil: health.Await.
	Well func(ctx context.Context, h *config.Health, s health.Subject) error
	// Nodes are xenstore's, of which health checks read.
	Nodes Nodes
}

// ServeUpdates has updates done, too: before the engine resumes.
func (o *Operator) ServeUpdates(u Updates) {
	if u.Poll == 0 {
		u.Poll = time.Second
	}
	if u.Well == nil {
		u.Well = health.Await
	}
	if u.Ended == nil {
		u.Ended = func(ident.UUID, api.UpdateOutcome) {}
	}
	o.updates = &u
	o.Engine.Register(api.KindUpdate, o.update)
}

// checkUpdate says what is wrong with a request.
func checkUpdate(r api.OperationRequest) error {
	u := r.Update
	seconds := func(what string, s, least float64) error {
		if !(s >= least && s <= api.MaxSeconds) {
			return api.Errorf(api.BadRequest, "the %s is %g, must be from %g to %d seconds", what, s, least, int(api.MaxSeconds))
		}
		return nil
	}
	absolute := func(what, path string) error {
		if path != "" && !filepath.IsAbs(path) {
			return api.Errorf(api.BadRequest, "the %s is %q, must be an absolute path", what, path)
		}
		return nil
	}
	switch {
	case u == nil || u.Kernel == "":
		return api.Errorf(api.BadRequest, "no kernel is named")
	case r.Mode != api.Graceful && r.Mode != api.Cold:
		return api.Errorf(api.BadRequest, "mode is %q, must be graceful or cold", r.Mode)
	}
	all := []error{absolute("kernel", u.Kernel), absolute("configuration", u.Config), seconds("deadline", u.DeadlineSeconds, 0.1), seconds("probation", u.ProbationSeconds, 0)}
	if u.Initrd != api.NoInitrd {
		all = append(all, absolute("initrd", u.Initrd))
	}
	if h := u.Health; h != nil {
		n := 0
		for _, given := range []bool{h.HTTP != "", h.TCP != "", h.Xenstore != "", len(h.Command) > 0} {
			if given {
				n++
			}
		}
		if n != 1 {
			return api.Errorf(api.BadRequest, "a health check is one of http, tcp, xenstore and command")
		}
		if h.Xenstore != "" {
			if err := config.NodePath(h.Xenstore); err != nil {
				return api.Errorf(api.BadRequest, "the health check by xenstore: %v", err)
			}
		}
		all = append(all, seconds("timeout of the health check", h.TimeoutSeconds, 0.01))
		if len(h.Command) > 0 {
			all = append(all, absolute("command of the health check", h.Command[0]))
		}
	}
	if u.Trial != nil {
		all = append(all, checkTrial(*u.Trial))
	}
	for _, err := range all { // the first: an Error is what is shown
		if err != nil {
			return err
		}
	}
	return nil
}

// ready is what is known of an update before anything is done, and after that.
type ready struct {
	Domain    toolstack.Domain `json:"domain"`
	Toolstack string           `json:"toolstack"`
	Old       toolstack.Kernel `json:"old"`
	New       toolstack.Kernel `json:"new"`
	Config    string           `json:"config,omitempty"`
}

func bootFiles(k toolstack.Kernel) api.BootFiles {
	return api.BootFiles{Kernel: k.File, Initrd: k.Initrd, Cmdline: k.Cmdline}
}

func image(k toolstack.Kernel) bootonce.Image {
	return bootonce.Image{Kernel: k.File, Initrd: k.Initrd, Cmdline: k.Cmdline}
}

// refused says why an update is not even tried. What has a code of its own keeps it.
func refused(domain string, err error) error {
	var e *api.Error
	if errors.As(err, &e) && e.Code != api.Failed {
		return err
	}
	return api.Errorf(api.UpdateRefused, "domain %s was not updated, and goes on as it was: %v", domain, err)
}

// driver returns that of a toolstack.
func (u *Updates) driver(name string) (toolstack.Driver, error) {
	if d := u.Drivers[name]; d != nil {
		return d, nil
	}
	return nil, errors.New("neither xl nor libvirt has created it, so nobody can be told which kernel it is to have")
}

// another returns Locked if a domain is in an update, other than the one of that ID:
// each would take the other's loader for somebody else's, so not even an override helps.
func (o *Operator) another(uuid ident.UUID, id string) error {
	for _, op := range o.Engine.List() {
		if op.UUID == uuid && op.ID != id && op.Admitted() && updates(op) {
			return api.Errorf(api.Locked, "domain %s is in an update already, %s of %s, which ends first", op.Domain, op.ID, op.Owner).Try(api.TryWait)
		}
	}
	return nil
}

// updates reports whether an operation is an update, or may do one: a schedule's run.
func updates(op operation.Operation) bool {
	var spec struct {
		Schedule struct{ Update *config.Update } `json:"schedule"`
	}
	return op.Kind == api.KindUpdate || op.Kind == api.KindSchedule && json.Unmarshal(op.Spec, &spec) == nil && spec.Schedule.Update != nil
}

// newKernel is the one that is asked for.
func newKernel(u *api.UpdateRequest, old toolstack.Kernel) toolstack.Kernel {
	k := toolstack.Kernel{File: u.Kernel, Initrd: u.Initrd, Cmdline: old.Cmdline}
	if u.Cmdline != nil {
		k.Cmdline = *u.Cmdline
	}
	if u.Initrd == api.NoInitrd {
		k.Initrd = ""
	}
	return k
}

// prepare looks whether an update can be tried, by the operation of that ID if it has
// one already. It changes nothing.
func (o *Operator) prepare(ctx context.Context, uuid, id string, r api.OperationRequest) (ready, api.Plan, error) {
	plan, err := o.Agent.Plan(ctx, uuid, r.Mode)
	if err == nil {
		err = o.another(plan.UUID, id)
	}
	if err == nil && plan.Joins != "" {
		err = api.Errorf(api.Locked, "domain %s is going down by itself", plan.Domain).Try(api.TryWait)
	}
	if err != nil {
		return ready{}, plan, err
	}
	d := ready{Domain: toolstack.Domain{Domid: plan.Domid, UUID: plan.UUID, Name: plan.Domain}}
	no := func(err error) (ready, api.Plan, error) { return d, plan, refused(plan.Domain, err) }
	owner, err := o.updates.Owner(plan.Domid, plan.UUID, plan.Domain)
	if err != nil {
		return no(err)
	}
	d.Toolstack = owner.Toolstack
	driver, err := o.updates.driver(d.Toolstack)
	if err == nil {
		err = driver.Can(toolstack.SetsKernel)
	}
	if err != nil {
		return no(err)
	}
	ends, err := o.updates.Ends(plan.Domid, plan.UUID)
	if err != nil {
		return no(err)
	}
	if !toolstack.Restarts(ends.Crash) {
		return no(fmt.Errorf(`its on_crash is %q, so if the new kernel crashed nobody would boot the old one: set it to "restart" and create it again`, ends.Crash))
	}
	guest, err := driver.CanTry(d.Domain)
	if err != nil {
		return no(err)
	}
	if d.Old, err = driver.Kernel(ctx, d.Domain); errors.Is(err, toolstack.ErrOwnKernel) {
		err = fmt.Errorf("%w: install the kernel in the guest, and reboot it", err)
	}
	if err != nil {
		return no(err)
	}
	d.Old.Once = "" // of a trial that nobody has ended
	u := r.Update
	d.New = newKernel(u, d.Old)
	if u.Initrd == "" && d.Old.Initrd != "" {
		return no(fmt.Errorf("its kernel has an initrd, %s: name that of the new one, or %q", d.Old.Initrd, api.NoInitrd))
	}
	if d.New == d.Old {
		return no(errors.New("it has this kernel already, with this command line"))
	}
	for _, k := range []toolstack.Kernel{d.New, d.Old} {
		what := "the new kernel"
		if k == d.Old {
			what = "its kernel of now, which it would fall back to"
		}
		if err := kernelfile.Check(k.File, kernelfile.Guest(guest)); err != nil {
			return no(fmt.Errorf("%s: %w", what, err))
		}
		if k.Initrd != "" {
			if err := kernelfile.Readable(k.Initrd); err != nil {
				return no(fmt.Errorf("the initrd of %s: %w", what, err))
			}
		}
	}
	if driver.Name() == toolstack.XL {
		if u.Config != "" {
			if err := kernelfile.Readable(u.Config); err != nil {
				return no(fmt.Errorf("its configuration: %w", err))
			}
			raw, err := os.ReadFile(u.Config)
			if err == nil {
				err = toolstack.ConfigAbout(raw, d.Domain)
			}
			if err != nil {
				return no(fmt.Errorf("%s is not its configuration: %w", u.Config, err))
			}
		}
		d.Config = o.configOf(d.Domain, u.Config)
		if u.WriteConfig {
			if d.Config == "" {
				return no(fmt.Errorf("nothing in %s is its configuration, which is to name the new kernel: say which file is", o.updates.Configs))
			}
			if err := toolstack.CanWriteConfig(d.Config, d.Domain, d.Old, d.New); err != nil {
				return no(fmt.Errorf("its configuration, %s, could not be given the new kernel: %w; mend it, or leave that to do by hand", d.Config, err))
			}
		}
	}
	plan.Update = &api.Update{Old: bootFiles(d.Old), New: bootFiles(d.New), Config: d.Config}
	if u.Trial != nil {
		if err := o.canClone(ctx, d.Domain, *u.Trial); err != nil {
			return no(fmt.Errorf("it cannot be tried on a clone: %w", err))
		}
		plan.Update.Trial = &api.Trial{Domain: cloneName(d.Domain), NotChecked: notChecked(u.Health)}
	}
	return d, plan, nil
}

// configOf returns xl's configuration of a domain: the one that is named, or the one at
// its usual place, if that is about it; else "".
func (o *Operator) configOf(d toolstack.Domain, named string) string {
	if named != "" {
		return named
	}
	if strings.ContainsRune(d.Name, '/') {
		return ""
	}
	for _, name := range []string{d.Name + ".cfg", d.Name} {
		path := filepath.Join(o.updates.Configs, name)
		if raw, err := os.ReadFile(path); err == nil && toolstack.ConfigAbout(raw, d) == nil {
			return path
		}
	}
	return ""
}

// updateResult is what an update's operation returns.
type updateResult struct {
	api.Summary
	Update api.Update `json:"update"`
}

// trial is an update that is being done.
type trial struct {
	*Operator
	run   *operation.Run
	r     api.OperationRequest
	d     ready
	files bootonce.Trial
	terms update.Terms
	// armed is the moment at which it was.
	armed armed
	rec   update.Record
	// notAsked is why the domain was not rebooted.
	notAsked string
	asker    agent.Asker
	// longest is how long after the operation was begun the domain may still be asked to
	// reboot into the new kernel, if the daemon was stopped meanwhile.
	longest time.Duration
	// check is the health check, if it is not that of the request.
	check  *config.Health
	sum    api.Summary // of the last reboot that is known
	sums   []api.Summary
	lines  []string // the end of the new kernel's console
	cloned *api.Trial
}

// armed is what is known when the trial's loader is in place.
type armed struct {
	Up      time.Duration `json:"up"`
	Boot    string        `json:"boot"`
	Console int64         `json:"console"` // how long its log is
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// longest is how long an update may take.
func longest(u *api.UpdateRequest) time.Duration {
	var health time.Duration
	if u.Health != nil {
		health = seconds(u.Health.TimeoutSeconds)
	}
	total := config.Update{Deadline: seconds(u.DeadlineSeconds), Probation: seconds(u.ProbationSeconds)}.Longest(health)
	if u.Trial != nil { // on a clone takes as long again
		total *= 2
	}
	return total
}

// update is the body of an update.
func (o *Operator) update(ctx context.Context, run *operation.Run) (any, error) {
	var r api.OperationRequest
	if err := operation.Spec(run, &r); err != nil {
		return nil, err
	}
	if err := operation.Admit(ctx, run, operation.Admission{Override: r.Override, TTL: longest(r.Update)}); err != nil {
		return nil, err
	}
	return o.trial(run, r, agent.Asker{By: api.ByOperator}).do(ctx)
}

func (o *Operator) trial(run *operation.Run, r api.OperationRequest, by agent.Asker) *trial {
	op, u := run.Operation(), r.Update
	return &trial{Operator: o, run: run, r: r, asker: by, longest: longest(u), files: bootonce.Trial{Dir: filepath.Join(o.updates.Dir, op.UUID.String()+"."+op.ID)},
		terms: update.Terms{Deadline: seconds(u.DeadlineSeconds), Probation: seconds(u.ProbationSeconds), Checked: u.Health != nil}}
}

// ScheduledUpdate is an update as a part of a schedule's run.
type ScheduledUpdate struct {
	agent.Asker
	Domain ident.UUID
	Mode   api.Trigger
	Update config.Update
	Health *config.Health // nil: that it is up
	// Expand is for the names of files.
	Expand func(string) string
	// Longest is how long the whole run may take, with its hooks.
	Longest time.Duration
}

func (s ScheduledUpdate) request() api.OperationRequest {
	u := &api.UpdateRequest{Kernel: s.Expand(s.Update.Kernel), Initrd: s.Expand(s.Update.Initrd), Cmdline: s.Update.Cmdline, WriteConfig: s.Update.WriteConfig,
		DeadlineSeconds: s.Update.Deadline.Seconds(), ProbationSeconds: s.Update.Probation.Seconds()}
	if h := s.Health; h != nil {
		u.Health = &api.HealthCheck{HTTP: h.HTTP, TCP: h.TCP, Xenstore: h.Xenstore, Command: h.Args, TimeoutSeconds: h.Timeout.Seconds()}
	}
	return api.OperationRequest{Kind: api.KindUpdate, Domain: s.Domain.String(), Mode: s.Mode, Update: u}
}

// Ready reports whether a domain is to be updated: not if it has that kernel already. An
// error is why it cannot be. It changes nothing.
func (o *Operator) Ready(ctx context.Context, run *operation.Run, s ScheduledUpdate) (bool, error) {
	r := s.request()
	d, err := o.Agent.Status(ctx, r.Domain, false)
	if err != nil {
		return false, err
	}
	owner, err := o.updates.Owner(d.Domid, d.UUID, d.Domain)
	var driver toolstack.Driver
	if err == nil {
		driver, err = o.updates.driver(owner.Toolstack)
	}
	var old toolstack.Kernel
	if err == nil {
		old, err = driver.Kernel(ctx, toolstack.Domain{Domid: d.Domid, UUID: d.UUID, Name: d.Domain})
	}
	if err != nil {
		return false, refused(d.Domain, err)
	}
	if old.Once == "" && newKernel(r.Update, old) == old {
		return false, nil
	}
	if err := checkUpdate(r); err != nil {
		return false, err
	}
	_, _, err = o.prepare(ctx, r.Domain, run.Operation().ID, r)
	return err == nil, err
}

// Update has an operation that was admitted update its domain. What it returns is as of an
// update of an operator's.
func (o *Operator) Update(ctx context.Context, run *operation.Run, s ScheduledUpdate) (api.Summary, api.Update, error) {
	t := o.trial(run, s.request(), s.Asker)
	t.check, t.longest = s.Health, s.Longest
	all, err := t.do(ctx)
	result, _ := all.(updateResult) // none if nobody looks after it any more
	return result.Summary, result.Update, err
}

// do does an update that has been admitted, and returns an updateResult.
func (t *trial) do(ctx context.Context) (any, error) {
	op, run := t.run.Operation(), t.run
	if err := t.prepared(ctx); err != nil || t.only() {
		outcome, why := t.unarmed(err)
		if ctx.Err() == nil {
			if _, bad := t.end(ctx, outcome); bad != nil {
				t.Log.Error("an update that was not tried has left something behind", "op", "update", "domain", op.Domain, "uuid", op.UUID, "err", bad, "next", "make room in the state directory")
			}
		}
		return t.result(api.Update{Outcome: outcome, Why: why, Old: bootFiles(t.d.Old), New: bootFiles(t.d.New)}), err
	}
	// It may have rebooted by itself since: then nobody is to do it again.
	tried, err := operation.Do(ctx, run, "tried already", operation.Again, func(context.Context) (bool, error) {
		armed, err := t.files.Armed()
		return !armed, err
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var failed error
	if err != nil {
		failed, t.notAsked = err, err.Error()
	}
	if err == nil && !tried {
		// An operator's was admitted, and has told the toolstack since; one of a schedule is
		// asked again after a restart, as its windows may have closed: if it is refused, it
		// is as if nothing had been.
		sum, err := t.Reboot(ctx, run, Wanted{Asker: t.asker, Mode: t.r.Mode, Timeout: t.terms.Deadline,
			Longest: t.longest, Override: t.asker.By != api.BySchedule, Absent: update.Gone / 2})
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		t.saw(sum)
		if err != nil && sum.Sequence == 0 {
			failed, t.notAsked = err, err.Error()
		}
	}
	t.rec = update.Record{Phase: update.Trying, Since: t.armed.Up}
	if err := t.follow(ctx); err != nil {
		if ctx.Err() == nil {
			err = t.abandon(err)
		}
		return nil, err
	}
	return t.account(ctx, failed)
}

func (t *trial) saw(s api.Summary) {
	if s.Sequence != 0 {
		t.sum = s
		t.sums = append(t.sums, s)
	}
}

func (t *trial) result(u api.Update) updateResult {
	u.Trial = t.cloned
	return updateResult{t.sum, u}
}

// prepared does all that comes before the domain is asked to reboot. With an error,
// nothing has changed.
func (t *trial) prepared(ctx context.Context) error {
	op := t.run.Operation()
	var err error
	t.d, err = operation.Do(ctx, t.run, "ready", operation.Again, func(ctx context.Context) (ready, error) {
		d, _, err := t.prepare(ctx, op.UUID.String(), op.ID, t.r)
		return d, err
	})
	if err != nil {
		return err
	}
	if h := t.r.Update.Health; h != nil {
		was, err := t.health(ctx, "well before", min(seconds(h.TimeoutSeconds), 30*time.Second))
		if err == nil && !was.OK {
			err = refused(t.d.Domain.Name, fmt.Errorf("it is not well before it is updated, so nobody could tell whether the new kernel is: %s", was.Detail))
		}
		if err != nil {
			return err
		}
	}
	_, err = operation.Do(ctx, t.run, "keep", operation.Again, func(context.Context) (bool, error) {
		err := os.MkdirAll(t.files.Dir, 0o700)
		for which, k := range map[bootonce.Which]toolstack.Kernel{bootonce.Old: t.d.Old, bootonce.New: t.d.New} {
			if err == nil {
				err = t.files.Keep(which, image(k))
			}
		}
		if err != nil {
			return false, refused(t.d.Domain.Name, fmt.Errorf("copies of its kernels cannot be kept: %w; make room in the state directory", err))
		}
		return true, nil
	})
	if err == nil {
		err = t.onClone(ctx)
	}
	if err != nil || t.only() {
		return err
	}
	t.armed, err = operation.Do(ctx, t.run, "arm", operation.Again, func(ctx context.Context) (armed, error) {
		now := t.Moment()
		a := armed{Up: now.Up, Boot: now.Boot}
		if now.Boot != t.run.Operation().Boot {
			// The domain is one that the host has started since, perhaps with another kernel.
			return a, refused(t.d.Domain.Name, errors.New("the host was booted meanwhile: ask for the update again"))
		}
		if st, err := os.Stat(t.console()); err == nil {
			a.Console = st.Size()
		}
		once := t.d.Old
		once.Once = t.files.Dir
		driver, err := t.driver()
		if err == nil { // first the fallback, then the new kernel
			err = driver.SetKernel(ctx, t.d.Domain, once)
		}
		if err == nil {
			err = t.files.Arm()
		}
		if err != nil {
			return a, refused(t.d.Domain.Name, fmt.Errorf("its toolstack cannot be told which kernel to fall back to: %w", err))
		}
		return a, nil
	})
	return err
}

func (t *trial) console() string { return t.updates.console(t.d.Domain.Name) }

// console is the log of a domain's, "" if none can be.
func (u *Updates) console(domain string) string {
	if strings.ContainsRune(domain, '/') {
		return ""
	}
	return filepath.Join(u.Console, "guest-"+domain+".log")
}

// health makes the check, as a step.
func (t *trial) health(ctx context.Context, step string, limit time.Duration) (update.Health, error) {
	return operation.Do(ctx, t.run, step, operation.Again, func(ctx context.Context) (update.Health, error) {
		h := t.ask(ctx, limit)
		return h, ctx.Err()
	})
}

func (t *trial) ask(ctx context.Context, limit time.Duration) update.Health {
	return t.askOf(ctx, t.d.Domain, limit)
}

// askOf makes the check of a domain, or of its clone.
func (t *trial) askOf(ctx context.Context, d toolstack.Domain, limit time.Duration, more ...string) update.Health {
	h := t.r.Update.Health
	c := &config.Health{HTTP: h.HTTP, TCP: h.TCP, Xenstore: h.Xenstore, Args: h.Command, Timeout: limit, Interval: min(2*time.Second, limit)}
	if t.check != nil {
		own := *t.check
		own.Timeout, own.Interval = limit, min(own.Interval, limit)
		c = &own
	}
	s := health.Subject{Expand: func(s string) string { return config.Expand(s, d.Name, d.UUID.String()) },
		Env: append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
			"WARMREBOOT_DOMAIN=" + d.Name, "WARMREBOOT_UUID=" + d.UUID.String()}, more...),
		Said: t.Said(d.UUID, t.updates.Nodes)}
	if err := t.updates.Well(ctx, c, s); err != nil {
		return update.Health{Detail: err.Error()}
	}
	return update.Health{OK: true}
}

// look is what is seen of the trial now.
func (t *trial) look(ctx context.Context) (update.Observation, error) {
	o := update.Observation{NotAsked: t.notAsked, Rebooted: t.Moment().Boot != t.armed.Boot}
	s, err := t.Agent.Status(ctx, t.d.Domain.UUID.String(), false)
	var e *api.Error
	if err != nil && !(errors.As(err, &e) && e.Code == api.NotFound) {
		return o, err
	}
	boots, err := t.files.Boots()
	if err != nil {
		return o, err
	}
	armed, err := t.files.Armed()
	if err != nil {
		return o, err
	}
	o.Tried = !armed
	for _, w := range boots {
		o.Booted = o.Booted || w == bootonce.New
	}
	if s.State == "running" || s.State == "paused" || s.Phase == "away" { // suspended, it may go on
		o.Domid, o.Runs, o.Busy = s.Domid, boots[s.Domid], s.Current != nil
		o.Paused = s.State == "paused"
	}
	if o.Domid == 0 {
		o.Left = left(s)
	}
	return o, nil
}

// left says why a domain that is not there is not to be created by us, "" if its
// toolstack was to. If it is not known how it ended, or what became of it since, it may
// be in use elsewhere: that the loader has handed out a kernel since tells that a domain
// was built, not what became of it while nobody looked.
func left(s api.DomainStatus) string {
	const next = "; nobody has created it again: it has the kernel that its configuration names when you do"
	switch {
	case s.State == "gone":
		return "it was saved, or has moved to another host, while its new kernel was tried: where it goes on, its next boot is of its old kernel, if that is there by the same name, and warmrebootd is installed, which is its loader: else shut it down and create it anew before it reboots"
	case s.Unwitnessed && s.Phase != "off":
		return "it went down while its new kernel was tried, and warmrebootd did not run all the time since: it may have come back, and have moved to another host" + next
	case s.Current != nil && s.Current.Trigger != api.Unknown:
		return ""
	case s.Phase == "off":
		return "it was switched off while its new kernel was tried" + next
	}
	return "it was taken away while its new kernel was tried, as by xl destroy" + next
}

// watch looks until the trial is in another phase.
func (t *trial) watch(ctx context.Context, rec update.Record) (update.Record, error) {
	tick := time.NewTicker(t.updates.Poll)
	defer tick.Stop()
	var said *update.Health
	for {
		o, err := t.look(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return rec, ctx.Err()
			}
			t.Log.Warn("a trial cannot be looked at", "op", "update", "domain", t.d.Domain.Name, "uuid", t.d.Domain.UUID, "err", err)
			// As if it were there still: its time goes on.
			o = update.Observation{Domid: rec.Domid, Runs: bootonce.New, Tried: true, Booted: true, Busy: true, Rebooted: t.Moment().Boot != t.armed.Boot}
		}
		o.Health, said = said, nil
		next, do := update.Next(rec, t.terms, o, t.Moment().Up)
		if next.Phase != rec.Phase {
			return next, nil
		}
		if next.Phase == update.Blessed && o.Domid == next.Domid {
			return next, nil
		}
		rec = next
		switch do {
		case update.Check:
			h := t.ask(ctx, seconds(t.r.Update.Health.TimeoutSeconds))
			said = &h
			if ctx.Err() != nil {
				return rec, ctx.Err()
			}
			continue
		case update.Create:
			t.create(ctx)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return rec, ctx.Err()
		}
	}
}

// create makes a domain that nobody else creates, with its old kernel.
func (t *trial) create(ctx context.Context) {
	k, err := t.boots(bootonce.Old)
	var driver toolstack.Driver
	if err == nil {
		driver, err = t.driver()
	}
	if err == nil {
		err = driver.Recreate(ctx, t.d.Domain, k, t.d.Config)
	}
	if err != nil && ctx.Err() == nil {
		t.Log.Error("the domain went down, and cannot be created again", "op", "update", "domain", t.d.Domain.Name, "uuid", t.d.Domain.UUID, "err", err, "next", "create it")
	}
}

func (t *trial) driver() (toolstack.Driver, error) { return t.updates.driver(t.d.Toolstack) }

// follow has the trial go on until it has ended.
func (t *trial) follow(ctx context.Context) error {
	for {
		was := t.rec.Phase
		rec, err := operation.Do(ctx, t.run, string(was), operation.Again, func(ctx context.Context) (update.Record, error) { return t.watch(ctx, t.rec) })
		if err != nil {
			return err
		}
		t.rec = rec
		switch {
		case rec.Phase == update.Returning && was != update.Returning:
			// Before it says that it goes down.
			t.lines, err = operation.Do(ctx, t.run, "console", operation.Again, func(context.Context) ([]string, error) {
				return newConsole(t.console(), t.armed.Console), nil
			})
			if err == nil {
				err = t.takeDown(ctx)
			}
			if err != nil {
				return err
			}
		case rec.Phase == update.Blessed && was != update.Blessed:
			if err := t.bless(ctx); err != nil {
				return err
			}
		case rec.Phase == update.Untried:
			// It may go down at this moment.
			tried, err := operation.Do(ctx, t.run, "disarm", operation.Again, func(context.Context) (bool, error) {
				armed, err := t.files.Armed()
				if err != nil || !armed {
					return true, err
				}
				return false, t.files.Disarm()
			})
			if err != nil {
				return err
			}
			if !tried {
				return nil
			}
			t.notAsked = ""
			t.rec = update.Record{Phase: update.Trying, Since: t.rec.Since}
		case rec.Phase.Last():
			return nil
		}
	}
}

// abandon is that the trial cannot be journalled any more, so that nobody looks after
// it: a boot that nobody waits for is not to be the new kernel's.
func (t *trial) abandon(err error) error {
	d := t.d.Domain
	if bad := t.files.Disarm(); bad != nil {
		t.Log.Error("a domain's next boot is of a new kernel that nobody looks after", "op", "update", "domain", d.Name, "uuid", d.UUID, "err", bad, "next", "remove armed in "+t.files.Dir)
	}
	return api.Errorf(api.Failed, "domain %s: its update is no longer looked after, its next boot is its old kernel's, by the copies in %s: %v; make room in the state directory, and warmreboot update it again", d.Name, t.files.Dir, err)
}

// askWait is how long a guest may take to go down that is asked to.
const askWait = 2 * time.Minute

// takeDown has the domain with the new kernel go down, if it has not by itself: asked,
// if it is thought to react, so that it comes back warm.
func (t *trial) takeDown(ctx context.Context) error {
	there, err := operation.Do(ctx, t.run, "still new", operation.Again, func(ctx context.Context) (bool, error) {
		o, err := t.look(ctx)
		return o.Runs == bootonce.New, err
	})
	if err != nil || !there {
		return err
	}
	if t.rec.Polite {
		for mode := api.Graceful; mode != ""; {
			sum, err := t.Reboot(ctx, t.run, Wanted{Asker: t.asker, Mode: mode, Timeout: min(t.terms.Deadline, askWait), Longest: math.MaxInt64, Override: true, Final: true})
			if ctx.Err() != nil {
				return ctx.Err()
			}
			t.saw(sum)
			if err == nil || sum.Sequence != 0 {
				return nil
			}
			t.Log.Warn("the new kernel is not to stay, and cannot be asked", "op", "update", "domain", t.d.Domain.Name, "uuid", t.d.Domain.UUID, "mode", mode, "err", err)
			var e *api.Error
			switch tracked := !(errors.As(err, &e) && e.Code == api.NotTracked); {
			case mode == api.Graceful && !tracked:
				mode = api.Cold
			case mode == api.Graceful:
				mode = api.Force
			default:
				mode = ""
			}
		}
	}
	_, err = operation.Do(ctx, t.run, "take down", operation.Again, func(ctx context.Context) (bool, error) {
		driver, err := t.driver()
		if err == nil {
			err = driver.ForceReboot(ctx, t.rec.Domid)
		}
		if err != nil && ctx.Err() == nil {
			t.Log.Error("the domain cannot be taken down", "op", "update", "domain", t.d.Domain.Name, "uuid", t.d.Domain.UUID, "domid", t.rec.Domid, "err", err, "next", "xl reboot it: it boots its old kernel")
			err = nil // its time goes on, and somebody is told
		}
		return true, err
	})
	return err
}

// bless makes the new kernel that of the domain.
func (t *trial) bless(ctx context.Context) error {
	_, err := operation.Do(ctx, t.run, "bless", operation.Again, func(ctx context.Context) (bool, error) {
		return true, t.settle(ctx, t.rec.Domid, bootonce.New)
	})
	if err != nil && ctx.Err() == nil {
		// Whether it is there at all is looked for next.
		t.rec.Why = "the new kernel is well, and cannot be made the domain's: " + err.Error()
		return nil
	}
	return err
}

// boots returns one of both kernels as it is to be booted without the loader: by the
// files that were named, or by copies if those are not what they were.
func (t *trial) boots(w bootonce.Which) (toolstack.Kernel, error) {
	k := t.d.Old
	if w == bootonce.New {
		k = t.d.New
	}
	same, err := t.files.Same(w, image(k))
	if errors.Is(err, fs.ErrNotExist) { // somebody has removed the copies
		same, err = true, nil
	}
	if err != nil || same {
		return k, err
	}
	own, err := t.files.Image(w)
	return toolstack.Kernel{File: own.Kernel, Initrd: own.Initrd, Cmdline: own.Cmdline}, err
}

// settle has the toolstack boot one of both kernels from now on, without the loader.
func (t *trial) settle(ctx context.Context, domid ident.Domid, w bootonce.Which) error {
	k, err := t.boots(w)
	if err != nil {
		return err
	}
	driver, err := t.driver()
	if err != nil {
		return err
	}
	d := t.d.Domain
	d.Domid = domid
	return driver.SetKernel(ctx, d, k)
}

// account ends a trial, and says how it went.
func (t *trial) account(ctx context.Context, failed error) (any, error) {
	u := api.Update{Why: t.rec.Why, Old: bootFiles(t.d.Old), New: bootFiles(t.d.New), Config: t.d.Config}
	switch {
	case t.rec.Phase == update.Blessed && t.rec.Why == "":
		u.Outcome, u.Why = api.Updated, ""
	case t.rec.Phase == update.Returned:
		u.Outcome = api.UpdateBack
		other, err := t.other(ctx)
		if err != nil {
			return nil, err
		}
		if other != "" {
			u.Outcome, t.rec.Why = api.UpdateLost, t.rec.Why+"; "+other
			u.Why = t.rec.Why
		}
	case t.rec.Phase == update.Untried:
		u.Outcome = api.NotTried
	default:
		u.Outcome = api.UpdateLost
	}
	if u.Outcome == api.UpdateBack || u.Outcome == api.UpdateLost {
		u.Console = t.lines
	}
	if u.Outcome == api.Updated && t.r.Update.WriteConfig && u.Config != "" {
		why, err := operation.Do(ctx, t.run, "write config", operation.Again, func(context.Context) (string, error) { return t.writeConfig(), nil })
		if err != nil {
			return nil, err
		}
		u.ConfigWritten, u.ConfigError = why == "", why
	}
	copies, err := t.end(ctx, u.Outcome)
	if err != nil {
		return nil, err
	}
	u.Copies = copies
	if sum, ok := t.lastReboot(); ok {
		t.sum = sum
	}
	name := t.d.Domain.Name
	switch u.Outcome {
	case api.Updated:
		if u.ConfigError != "" {
			return t.result(u), api.Errorf(api.Failed, "domain %s was updated, and is well, but %s is not changed: %s", name, u.Config, u.ConfigError)
		}
		if t.r.Mode != api.Cold && t.sum.Outcome == api.OutcomeCold {
			return t.result(u), api.Errorf(api.CameBackCold, "domain %s was updated, but came back cold: %s", name, t.sum.Reason)
		}
		return t.result(u), nil
	case api.UpdateBack:
		return t.result(u), api.Errorf(api.FellBack, "domain %s has its old kernel again: %s", name, u.Why)
	case api.NotTried:
		if failed != nil {
			return t.result(u), failed
		}
		return t.result(u), refused(name, errors.New(u.Why))
	}
	return t.result(u), api.Errorf(api.Failed, "domain %s: %s; see warmreboot status %s", name, u.Why, ident.Word(name, t.d.Domain.UUID))
}

// writeConfig has the operator's configuration name the new kernel, and returns why it
// does not.
func (t *trial) writeConfig() string {
	k, err := t.boots(bootonce.New)
	if err == nil && k != t.d.New {
		err = errors.New("the files that were named are not what the domain boots any more")
	}
	if err == nil {
		err = toolstack.WriteConfig(t.d.Config, t.d.Domain, t.d.Old, t.d.New)
	}
	if err != nil {
		t.Log.Warn("a domain has another kernel than its configuration", "op", "update", "domain", t.d.Domain.Name, "uuid", t.d.Domain.UUID, "config", t.d.Config, "err", err, "next", "write it into that")
		return err.Error()
	}
	t.Log.Info("a domain's configuration has the new kernel", "op", "update", "domain", t.d.Domain.Name, "uuid", t.d.Domain.UUID, "config", t.d.Config)
	return ""
}

// other says which kernel a domain has that was to be created by us, if it is not the one
// that it had, or if that is not known: somebody may have been quicker.
func (t *trial) other(ctx context.Context) (string, error) {
	if !t.rec.Made {
		return "", nil
	}
	return operation.Do(ctx, t.run, "which kernel", operation.Again, func(ctx context.Context) (string, error) {
		k, err := t.foreign(ctx)
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case err != nil:
			return fmt.Sprintf("the domain was created again, and which kernel it has is not known: %v", err), nil
		case k == nil:
			return "", nil
		}
		return fmt.Sprintf("the domain was created again by somebody else, and has the kernel %s, %q", k.File, k.Cmdline), nil
	})
}

// foreign returns the kernel of a domain's configuration if it is not the old one, else nil.
func (t *trial) foreign(ctx context.Context) (*toolstack.Kernel, error) {
	o, err := t.look(ctx)
	if err != nil || o.Domid == 0 {
		return nil, err
	}
	d := t.d.Domain
	d.Domid = o.Domid
	driver, err := t.driver()
	if err != nil {
		return nil, err
	}
	was, err := t.boots(bootonce.Old)
	if err != nil {
		return nil, err
	}
	k, err := driver.Kernel(ctx, d)
	if err != nil || k.Once != "" || k == t.d.Old || k == was {
		return nil, err
	}
	return &k, nil
}

// lastReboot is the history's last word of the domain's reboots since the operation
// was begun.
func (t *trial) lastReboot() (api.Summary, bool) {
	op := t.run.Operation()
	e, ok := t.State.Latest(op.UUID, func(e *api.HistoryEntry) bool { return e.Sequence != 0 && !e.At.Before(op.Made) })
	return e.Summary, ok
}

// end leaves nothing behind that is not needed: the toolstack's configuration is
// without the loader, and the copies of kernels go, unless the domain boots by them.
func (t *trial) end(ctx context.Context, outcome api.UpdateOutcome) (copies string, err error) {
	op := t.run.Operation()
	copies, err = operation.Do(ctx, t.run, "end", operation.Again, func(ctx context.Context) (string, error) {
		if t.armed.Boot != "" && outcome != api.Updated {
			err := t.files.Disarm()
			if err == nil {
				err = t.unarm(ctx)
			}
			if err != nil {
				t.Log.Error("a domain's configuration cannot be set right: its next boot is one of its old kernel all the same, by the copies that the daemon has", "op", "update", "domain", op.Domain, "uuid", op.UUID, "err", err, "next", "xl shutdown it, and xl create it")
			}
		}
		all, _ := filepath.Glob(filepath.Join(t.updates.Dir, op.UUID.String()+".*"))
		kept := ""
		for _, dir := range all {
			if t.needed(ctx, dir) {
				kept = dir
			} else if err := os.RemoveAll(dir); err != nil {
				t.Log.Warn("copies of kernels are left", "op", "update", "dir", dir, "err", err)
			}
		}
		t.updates.Ended(op.UUID, outcome)
		t.annotate(outcome)
		return kept, nil
	})
	return copies, err
}

// unarm has the domain boot by its old kernel, without the loader.
func (t *trial) unarm(ctx context.Context) error {
	o, err := t.look(ctx)
	if err != nil || o.Domid == 0 {
		return err
	}
	d := t.d.Domain
	d.Domid = o.Domid
	driver, err := t.driver()
	if err != nil {
		return err
	}
	k, err := driver.Kernel(ctx, d)
	if err != nil || k.Once != t.files.Dir {
		return err // it is not by the loader
	}
	return t.settle(ctx, o.Domid, bootonce.Old)
}

// needed reports whether the domain boots by a folder's files. If nobody knows, it may.
func (t *trial) needed(ctx context.Context, dir string) bool {
	if t.armed.Boot == "" && dir == t.files.Dir { // the toolstack was never told of it
		return false
	}
	s, err := t.Agent.Status(ctx, t.d.Domain.UUID.String(), false)
	if err != nil || s.Domid == 0 {
		return true
	}
	d := t.d.Domain
	d.Domid = s.Domid
	driver, err := t.driver()
	if err != nil {
		return true
	}
	k, err := driver.Kernel(ctx, d)
	if err != nil {
		return true
	}
	for _, path := range []string{k.Once + "/", k.File, k.Initrd} {
		if strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}

// annotate enters into the history what each reboot was for.
func (t *trial) annotate(outcome api.UpdateOutcome) {
	op := t.run.Operation()
	note := fmt.Sprintf("update to %s: %s", t.d.New.File, strings.ReplaceAll(string(outcome), "_", " "))
	if t.rec.Why != "" {
		note += ": " + t.rec.Why
	}
	sums := t.sums
	if last, ok := t.lastReboot(); ok { // nobody has asked for it, perhaps
		sums = append(slices.Clone(sums), last)
	}
	for _, s := range sums {
		entry, ok := t.State.Of(s)
		if !ok {
			continue
		}
		if err := t.State.Annotate(op.UUID, entry.ID, func(e *api.HistoryEntry) { e.Operation, e.Followed = op.ID, note }); err != nil {
			t.Log.Error("what a reboot was for cannot be entered into the history", "op", op.Kind, "domain", op.Domain, "uuid", op.UUID, "err", err, "next", "make room in the state directory")
		}
	}
}
