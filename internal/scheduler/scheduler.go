// Package scheduler does what the schedules say: it looks at the domains every few
// seconds, asks package schedule what is to be done, and does it, hooks and
// health checks included. What the configuration says of windows, groups and limits it
// has all operations obey, also those that operators ask for.
//
// What it has to remember is in package state before it acts on it: a run that
// was begun is not begun again by the next daemon.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/agent"
	"github.com/warmreboot/warmreboot/internal/config"
	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/operator"
	"github.com/warmreboot/warmreboot/internal/schedule"
	"github.com/warmreboot/warmreboot/internal/state"
)

// Agent is what the runner needs of the agent.
type Agent interface {
	operator.Agent
	List(ctx context.Context) ([]api.DomainStatus, error)
	Drop(ctx context.Context, domain string) (api.DropResult, error)
}

// Updater does updates: operator.Operator.
type Updater interface {
	Ready(context.Context, *operation.Run, operator.ScheduledUpdate) (bool, error)
	Update(context.Context, *operation.Run, operator.ScheduledUpdate) (api.Summary, api.Update, error)
}

// Store is the runner's use of xenstore.
type Store interface {
	Read(ctx context.Context, path string) (string, error)
}

// Options are what a runner needs.
type Options struct {
	Agent Agent
	State *state.Store
	// History is where entries are made; State if it is nil.
	History agent.History
	// Forgot is told of domains that have not been there for weeks; it may be nil.
	Forgot func(ident.UUID)
	Store  Store
	Dir    string // of the configuration
	DryRun bool
	Log    *slog.Logger
	// Boot identifies this boot of dom0, Uptime is the time since then.
	Boot   string
	Uptime func() time.Duration
	Now    func() time.Time
	// Sys and Console are where the host's sysfs and the guests' consoles are.
	Sys, Console string
	// Operations are what runs are. Reboots are asked for by Rebooter.
	Operations *operation.Engine
	Rebooter   operator.Rebooter
	Updater    Updater
	// Tick is how often it looks.
	Tick time.Duration
}

// DefaultTick is Tick unless told otherwise.
const DefaultTick = 5 * time.Second

// Uptime reads the time since the host's boot from /proc.
func Uptime() time.Duration {
	raw, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0
	}
	seconds, _ := strconv.ParseFloat(strings.Fields(string(raw) + " 0")[0], 64)
	return time.Duration(seconds * float64(time.Second))
}

// Runner serves api.Schedules. Whoever decides copies what the decision depends
// on, decides without the lock, and enters what came of it if nothing has changed
// meanwhile: nobody waits for a forecast, a disk or xenstore.
type Runner struct {
	Options
	wg       sync.WaitGroup // of readings
	reading  chan struct{}  // has a place for each figure that may be read at once
	reloads  sync.Mutex     // held over reading the configuration: the last one counts
	looked   atomic.Int64   // when Look was last done, in ns since born
	born     time.Time      // by the monotonic clock
	orphans  []state.Lock   // of runs that the last daemon did not end; Look's alone
	unsure   map[ident.UUID]ident.Domid
	saidLost bool
	clock    schedule.Clock

	mu      sync.Mutex // held for moments only: no I/O, no forecast
	conf    *config.Config
	confErr string
	loaded  time.Time
	zone    string // config.ZoneStamp, and config.Stamp, of when conf was read
	files   string
	seen    string // config.Stamp, when it was last looked
	memory  map[schedule.Key]schedule.Memory
	births  map[ident.UUID]state.Birth
	busy    map[ident.UUID]time.Duration
	figures map[figureKey]*figure
	ended   map[api.RunCount]uint64 // with Times 0
	trusted time.Duration           // uptime from which on the clock is
}

var _ api.Schedules = (*Runner)(nil)

// New makes a runner, which does the operations that runs are, and has all operations
// ask what its configuration says. Nothing happens before Run.
func New(o Options) *Runner {
	if o.Tick == 0 {
		o.Tick = DefaultTick
	}
	if o.History == nil {
		o.History = o.State
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Uptime == nil {
		o.Uptime = Uptime
	}
	clock := o.Now
	o.Now = func() time.Time { return schedule.Shown(clock()) }
	r := &Runner{Options: o, conf: &config.Config{}, reading: make(chan struct{}, mostReadings), born: time.Now(),
		busy: map[ident.UUID]time.Duration{}, figures: map[figureKey]*figure{}, unsure: map[ident.UUID]ident.Domid{}, ended: map[api.RunCount]uint64{}}
	o.Operations.Register(api.KindSchedule, r.runBody)
	o.Operations.Ask(r.blockers()...)
	return r
}

// moment is now.
func (r *Runner) moment() state.Moment {
	return state.Moment{Wall: r.Now(), Boot: r.Boot, Up: r.Uptime()}
}

// Start reads what is remembered and the configuration. A configuration that is
// wrong is no error: there are no schedules then, and it is said.
func (r *Runner) Start(ctx context.Context) error {
	r.memory, r.births = r.State.Memories(), r.State.Births()
	for _, l := range r.State.Locks(r.moment()) {
		// Its operation is lost, or it is of a version in which there were none.
		if o, _, ok := r.Operations.Get(l.Operation); l.Run && (!ok || o.Done) {
			r.orphans = append(r.orphans, l)
		}
	}
	r.Reload()
	if r.confErr == "" {
		// What was remembered of schedules that are no more.
		if err := r.State.Forget(func(k schedule.Key) bool { return r.conf.Schedule(k.Rule) == nil }); err != nil {
			return err
		}
	}
	if err := config.Watch(ctx, r.Dir, r.Reload); err != nil {
		r.Log.Warn("configuration is not watched: what changes is seen some seconds later", "op", "config", "dir", r.Dir, "err", err)
	}
	return nil
}

// Reload reads the configuration; one that is wrong changes nothing.
func (r *Runner) Reload() {
	r.reloads.Lock()
	defer r.reloads.Unlock()
	zone, files := config.ZoneStamp(), config.Stamp(r.Dir)
	conf, err := config.Load(r.Dir)
	if _, gone := os.Stat(r.Dir); err == nil && len(conf.Files) == 0 && errors.Is(gone, fs.ErrNotExist) && r.hasSchedules() {
		err = fmt.Errorf("%s is gone; make it, and leave it empty, if there are to be no schedules", r.Dir)
	}
	now := r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.zone, r.files = zone, files
	if err != nil {
		r.confErr = err.Error()
		r.Log.Error("configuration is wrong", "op", "config", "dir", r.Dir, "err", err, "note", r.configStatus().InForce(), "next", "warmreboot config check "+r.Dir)
		return
	}
	r.conf, r.confErr, r.loaded = conf, "", now
	r.Log.Info("configuration read", "op", "config", "dir", r.Dir, "files", len(conf.Files), "schedules", len(conf.Schedules))
}

func (r *Runner) hasSchedules() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conf.Files) > 0
}

// Run looks at the domains until ctx ends. What was begun is the engine's.
func (r *Runner) Run(ctx context.Context) {
	t := time.NewTicker(r.Tick)
	defer t.Stop()
	for {
		r.Look(ctx)
		select {
		case <-ctx.Done():
			r.wg.Wait()
			return
		case <-t.C:
		}
	}
}

// Alive returns an error if the domains have not been looked at for longer than
// that, apart from the time between two looks: something hangs.
func (r *Runner) Alive(limit time.Duration) error {
	if ago := time.Since(r.born) - time.Duration(r.looked.Load()); ago > limit+r.Tick {
		return fmt.Errorf("schedules: the domains have not been looked at for %v", ago.Round(time.Second))
	}
	return nil
}

// Look looks once, and begins what is to be begun. It is not called from two
// goroutines at once.
func (r *Runner) Look(ctx context.Context) {
	defer func() { r.looked.Store(int64(time.Since(r.born))) }()
	if r.outdated() {
		r.Reload()
	}
	all, err := r.list(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.Log.Error("which domains there are cannot be told: no schedule is looked at", "op", "schedule", "err", err, "next", "warmreboot doctor")
		}
		return
	}
	if err := errors.Join(r.noteBirths(ctx, all), r.observe(all)); err != nil {
		r.Log.Error("schedules", "op", "schedule", "err", err, "next", "is there space left in the state directory?")
		return
	}
	now := r.moment()
	unsteady := r.clock.See(now.Wall, now.Up)
	r.mu.Lock()
	r.trusted = now.Up + unsteady
	r.mu.Unlock()
	r.adopt(all)
	r.sample(ctx, all)
	r.decide(all)
}

// list returns the domains that schedules may be about: not those that are there for
// the others.
func (r *Runner) list(ctx context.Context) ([]api.DomainStatus, error) {
	all, err := r.Agent.List(ctx)
	return slices.DeleteFunc(all, func(s api.DomainStatus) bool { return s.Service != "" }), err
}

// decide decides, and begins.
func (r *Runner) decide(all []api.DomainStatus) {
	in, conf := r.input(all, underWay)
	changed := map[schedule.Key]schedule.Memory{}
	items := schedule.Decide(in)
	for _, it := range items {
		key := schedule.Key{Rule: it.Rule.Name, UUID: it.UUID}
		if in.Memory[key] != it.Memory {
			changed[key] = it.Memory
		}
	}
	// Before anything is begun: a run happens once at most.
	if !r.enter(conf, in.Memory, changed) {
		return // decided upon something that is no longer so: the next look decides anew
	}
	var begin []string
	for _, it := range items {
		if !it.Skipped.IsZero() {
			r.Log.Warn("run was missed and is left out", "op", "schedule", "schedule", it.Rule.Name, "domain", it.Domain, "uuid", it.UUID, "at", it.Skipped)
			r.count(it, api.RunMissed)
		}
		if it.Start {
			begin = append(begin, it.Rule.Name)
			if !it.Rule.DryRun && !r.DryRun {
				begin = append(begin, "")
			}
		}
	}
	if err := errors.Join(r.State.Remember(changed), r.State.SetBegan(r.moment(), begin, func(rule string) bool { return conf.Schedule(rule) == nil })); err != nil {
		r.Log.Error("schedules", "op", "schedule", "err", err, "next", "is there space left in the state directory?")
		r.takeBack(in.Memory, changed)
		return
	}
	for _, it := range items {
		if s := conf.Schedule(it.Rule.Name); it.Start && s != nil {
			r.begin(s, it)
		}
	}
}

// enter enters what is to be remembered; false if what was decided upon has
// changed.
func (r *Runner) enter(conf *config.Config, was, changed map[schedule.Key]schedule.Memory) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conf != conf {
		return false
	}
	for k := range changed {
		if r.memory[k] != was[k] {
			return false
		}
	}
	maps.Copy(r.memory, changed)
	return true
}

// takeBack is enter's inverse, for what could not be written.
func (r *Runner) takeBack(was, changed map[schedule.Key]schedule.Memory) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, m := range changed {
		switch old, known := was[k]; {
		case r.memory[k] != m:
		case known:
			r.memory[k] = old
		default:
			delete(r.memory, k)
		}
	}
}

// observe counts the time, and forgets domains that have not been there for long.
func (r *Runner) observe(all []api.DomainStatus) error {
	var there []ident.UUID
	for _, s := range all {
		there = append(there, s.UUID)
	}
	gone, err := r.State.Observe(r.moment(), there)
	if why := r.State.Lost(); why != "" && !r.saidLost {
		r.saidLost = true
		r.Log.Error("all domains count as locked, and all schedules as stopped", "op", "lock", "why", why,
			"next", "look at the domains, then warmreboot unlock DOMAIN and warmreboot resume SCHEDULE for each")
	}
	if len(gone) == 0 {
		return err
	}
	dead := map[ident.UUID]bool{}
	for _, u := range gone {
		dead[u] = true
		if r.Forgot != nil {
			r.Forgot(u)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.memory, func(k schedule.Key, _ schedule.Memory) bool { return dead[k.UUID] })
	maps.DeleteFunc(r.births, func(u ident.UUID, _ state.Birth) bool { return dead[u] })
	maps.DeleteFunc(r.busy, func(u ident.UUID, _ time.Duration) bool { return dead[u] })
	maps.DeleteFunc(r.ended, func(c api.RunCount, _ uint64) bool { return dead[c.UUID] })
	return err
}

// outdated reports whether the time zone is another one, or the files are. They are
// read as soon as they have been the same for two looks: somebody may be writing.
func (r *Runner) outdated() bool {
	zone, files := config.ZoneStamp(), config.Stamp(r.Dir)
	r.mu.Lock()
	defer r.mu.Unlock()
	steady := files == r.seen
	r.seen = files
	return zone != r.zone || files != r.files && steady
}

// begin begins a run.
func (r *Runner) begin(s *config.Schedule, it schedule.Item) {
	log := r.Log.With("op", "schedule", "schedule", s.Name, "domain", it.Domain, "uuid", it.UUID)
	if s.DryRun || r.DryRun {
		log.Info("dry run: would reboot", "mode", s.Mode, "why", it.Why)
		r.setBack(s, it.UUID)
		return
	}
	log.Info("begins", "mode", s.Mode, "why", it.Why)
	_, err := r.Operations.Start(operation.Request{Kind: api.KindSchedule, By: api.BySchedule, Schedule: s.Name, Owner: "schedule " + s.Name, Cause: it.Why,
		Domain: it.Domain, UUID: it.UUID, Spec: specOf(s, it.Why)})
	if err != nil {
		log.Error("reboot did not take place", "err", err, "next", "warmreboot plan "+it.Domain)
		r.setBack(s, it.UUID)
	}
}

// setBack has a domain left alone for a while: what made it due may not be over.
func (r *Runner) setBack(s *config.Schedule, uuid ident.UUID) {
	key := schedule.Key{Rule: s.Name, UUID: uuid}
	until := r.Now().Add(s.Retry)
	r.mu.Lock()
	m := r.memory[key]
	m.NotBefore = until
	r.memory[key] = m
	r.mu.Unlock()
	if err := r.State.Remember(map[schedule.Key]schedule.Memory{key: m}); err != nil {
		r.Log.Error("schedules", "op", "schedule", "err", err, "next", "is there space left in the state directory?")
	}
}

// busyWait is how long after it was first seen to be in a reboot a domain counts
// as being in one: some never come back.
const busyWait = 20 * time.Minute

// underWay is an operation that has not ended.
func underWay(o operation.Operation) bool { return !o.Done }

// atWork returns the operations that are of some kind, by domain.
func (r *Runner) atWork(of func(operation.Operation) bool) map[ident.UUID]operation.Operation {
	all := map[ident.UUID]operation.Operation{}
	for _, o := range r.Operations.List() {
		if of(o) {
			all[o.UUID] = o
		}
	}
	return all
}

// input is a copy of all that a decision depends on, and the configuration that
// it is of. A domain is busy if such an operation is under way.
func (r *Runner) input(all []api.DomainStatus, busy func(operation.Operation) bool) (schedule.Input, *config.Config) {
	now := r.moment()
	began := r.State.Began(now)
	atWork := r.atWork(busy)
	running := map[ident.UUID]string{}
	for u, o := range atWork {
		if o.Schedule != "" {
			running[u] = o.Schedule
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	in := schedule.Input{Now: now.Wall, Unsteady: max(0, r.trusted-now.Up), Rules: r.conf.Rules(), Groups: r.conf.Groups, Limits: r.conf.Limits, Memory: maps.Clone(r.memory),
		Trends: map[schedule.Key][]schedule.Trend{}, Stopped: r.State.Stopped(r.conf.Names()...), Started: began, Running: running}
	for _, s := range all {
		if s.State == "gone" || s.Twin != 0 {
			continue // it is not one of those that are to run here; or nobody knows which one it is
		}
		d := schedule.Domain{Name: s.Domain, UUID: s.UUID, Up: s.State == "running", Age: r.age(s, now.Up)}
		o, working := atWork[s.UUID]
		switch {
		case working:
			d.Busy = o.Owner + " reboots it now"
		case s.Current != nil:
			if _, ok := r.busy[s.UUID]; !ok {
				r.busy[s.UUID] = now.Up
			}
			if now.Up-r.busy[s.UUID] < busyWait {
				d.Busy = "it is coming back from a reboot"
			}
		default:
			delete(r.busy, s.UUID)
		}
		if l, ok := r.State.LockOf(s.UUID, now); ok {
			d.Locked = l.String()
		}
		in.Domains = append(in.Domains, d)
		for _, rule := range r.conf.Schedules {
			if rule.Match.Of(s.Domain, s.UUID) {
				key := schedule.Key{Rule: rule.Name, UUID: s.UUID}
				for i := range rule.Triggers {
					in.Trends[key] = append(in.Trends[key], r.trend(figureKey{key, i}))
				}
			}
		}
	}
	return in, r.conf
}

// age is for how long a domain has been up. r.mu is held.
func (r *Runner) age(s api.DomainStatus, up time.Duration) time.Duration {
	b, ok := r.births[s.UUID]
	if !ok || b.Domid != s.Domid || b.Boot != r.Boot {
		return 0
	}
	return max(0, up-time.Duration(b.At*float64(time.Second)))
}

// noteBirths sees which domains are others than the last time. When they were
// created, the toolstack says in xenstore by the clock of that time; no domain is
// older than dom0, whatever the clock says.
func (r *Runner) noteBirths(ctx context.Context, all []api.DomainStatus) error {
	r.mu.Lock()
	was := map[ident.UUID]state.Birth{}
	for _, s := range all {
		if b, ok := r.births[s.UUID]; ok {
			was[s.UUID] = b
		}
	}
	r.mu.Unlock()
	born := map[ident.UUID]state.Birth{}
	for _, s := range all {
		old, known := was[s.UUID]
		same := known && old.Domid == s.Domid && old.Boot == r.Boot
		if s.Domid == 0 || s.Twin != 0 || same && !(old.Resumed && s.Attached) { // the latter was booted, after all
			continue
		}
		age := time.Duration(0)
		text, err := r.Store.Read(ctx, path.Join("/vm", s.UUID.String(), "start_time"))
		up := r.Uptime()
		if err == nil {
			if at, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err == nil {
				age = min(max(0, r.Now().Sub(time.Unix(int64(at), 0))), up)
			}
		}
		born[s.UUID] = state.Birth{Domid: s.Domid, Boot: r.Boot, At: (up - age).Seconds()}
		if known && s.Resumed && !s.Attached && old.Boot == r.Boot { // saved or migrated meanwhile, not booted
			born[s.UUID] = state.Birth{Domid: s.Domid, Boot: r.Boot, At: old.At, Resumed: true}
		}
		if known && !same && old.Boot == r.Boot && !s.Managed {
			r.unsure[s.UUID] = old.Domid
		}
	}
	if len(born) == 0 {
		return nil
	}
	if err := r.State.SetBirths(born); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.Copy(r.births, born)
	for uuid := range born {
		r.dropFigures(uuid)
	}
	return nil
}

// adopt records reboots of domains that the agent does not keep, of which there
// is nothing to tell but that they happened, and ends the runs of the last
// daemon.
func (r *Runner) adopt(all []api.DomainStatus) {
	atWork := r.atWork(underWay)
	for _, s := range all {
		before, ok := r.unsure[s.UUID]
		if _, working := atWork[s.UUID]; ok && s.Current == nil && !working {
			delete(r.unsure, s.UUID)
			// The agent has recorded those that it was asked for.
			if last, ok := r.State.Last(s.UUID); !ok || last.DomidAfter != s.Domid {
				r.record(api.HistoryEntry{Summary: api.Summary{Domain: s.Domain, UUID: s.UUID, DomidBefore: before, DomidAfter: s.Domid,
					Trigger: api.Unknown, By: api.ByGuest, Outcome: "cold", Reason: "the warm cache is not enabled for this domain",
					Started: r.Now(), Refused: map[string]uint64{}, VBDs: []api.VBDSummary{}, Done: true}})
			}
		}
	}
	var left []state.Lock
	for _, l := range r.orphans {
		pending := false
		for _, s := range all {
			pending = pending || s.UUID == l.UUID && s.Current != nil
		}
		if pending {
			left = append(left, l)
			continue
		}
		r.endOrphan(l)
	}
	r.orphans = left
}

// endOrphan ends a run that the last daemon did not end.
func (r *Runner) endOrphan(l state.Lock) {
	const why = "warmrebootd was stopped during this run: hooks after it and the health check were left out"
	if l.Schedule != "" {
		r.Log.Warn("run of a daemon that was stopped", "op", "schedule", "schedule", l.Schedule, "domain", l.Domain, "uuid", l.UUID,
			"next", "see whether the domain is well, and do what its hooks would have done")
		if last, ok := r.State.Last(l.UUID); ok && last.Schedule == l.Schedule && !last.Started.Before(l.Made) {
			if err := r.State.Annotate(l.UUID, last.ID, func(e *api.HistoryEntry) { e.Followed = why }); err != nil {
				r.Log.Error("history", "op", "schedule", "err", err, "next", "make room in the state directory")
			}
		} else {
			o := operation.Operation{ID: l.Operation, By: api.BySchedule, Schedule: l.Schedule, Domain: l.Domain, UUID: l.UUID}
			if err := r.Rebooter.Record(o, "", errors.New(why), nil); err != nil {
				r.Log.Error("history", "op", "schedule", "domain", l.Domain, "uuid", l.UUID, "err", err, "next", "make room in the state directory")
			}
		}
	}
	if err := r.State.Release(l, r.moment()); err != nil {
		r.Log.Error("the lock of a run that is over cannot be released", "op", "schedule", "domain", l.Domain, "uuid", l.UUID, "err", err, "next", "make room in the state directory, then warmreboot unlock "+l.Domain)
	}
}

func (r *Runner) record(e api.HistoryEntry) {
	e.At = r.Now()
	if _, err := r.Options.History.Add(e); err != nil {
		r.Log.Error("history", "op", "schedule", "domain", e.Domain, "uuid", e.UUID, "err", err, "next", "make room in the state directory")
	}
}
