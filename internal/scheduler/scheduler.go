// Package scheduler does what the schedules say: it looks at the domains every few
// seconds, asks package schedule what is to be done, and does it, hooks and
// health checks included. It also keeps operators from rebooting what is locked.
//
// What it has to remember is in package state before it acts on it: a run that
// was begun is not begun again by the next daemon.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/agent"
	"github.com/warmreboot/warmreboot/internal/config"
	"github.com/warmreboot/warmreboot/internal/schedule"
	"github.com/warmreboot/warmreboot/internal/state"
)

// Agent is what the runner needs of the agent.
type Agent interface {
	api.Service
	RebootFor(ctx context.Context, by agent.Asker, domain string, mode api.Trigger) (api.Summary, error)
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
	Store   Store
	Dir     string // of the configuration
	DryRun  bool
	Log     *slog.Logger
	// Boot identifies this boot of dom0, Uptime is the time since then.
	Boot   string
	Uptime func() time.Duration
	Now    func() time.Time
	// Sys and Console are where the host's sysfs and the guests' consoles are.
	Sys, Console string
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

// Runner serves api.Schedules.
type Runner struct {
	Options
	wg sync.WaitGroup

	mu      sync.Mutex
	conf    *config.Config
	confErr string
	loaded  time.Time
	zone    string
	memory  map[schedule.Key]schedule.Memory
	births  map[ident.UUID]state.Birth
	running map[ident.UUID]string
	started map[string]time.Duration // uptime of the last start, by rule
	busy    map[ident.UUID]time.Duration
	figures map[figureKey]*figure
	orphans []state.Lock // of runs that the last daemon did not end
	unsure  map[ident.UUID]ident.Domid
	ended   map[api.RunCount]uint64 // with Times 0
}

var _ api.Schedules = (*Runner)(nil)

// New makes a runner. Nothing happens before Run.
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
	return &Runner{Options: o, conf: &config.Config{}, running: map[ident.UUID]string{}, started: map[string]time.Duration{},
		busy: map[ident.UUID]time.Duration{}, figures: map[figureKey]*figure{}, unsure: map[ident.UUID]ident.Domid{}, ended: map[api.RunCount]uint64{}}
}

// Start reads what is remembered and the configuration. A configuration that is
// wrong is no error: there are no schedules then, and it is said.
func (r *Runner) Start(ctx context.Context) error {
	var err1, err2 error
	r.memory, err1 = r.State.Memories()
	r.births, err2 = r.State.Births()
	locks, err := r.State.Locks(r.Now())
	if err := errors.Join(err, err1, err2); err != nil {
		return err
	}
	for _, l := range locks {
		if l.Run {
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
		r.Log.Error("configuration is not watched", "op", "config", "dir", r.Dir, "err", err, "next", "restart warmrebootd after each change")
	}
	return nil
}

// Reload reads the configuration; one that is wrong changes nothing.
func (r *Runner) Reload() {
	zone := config.ZoneStamp()
	conf, err := config.Load(r.Dir)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.zone = zone
	if err != nil {
		r.confErr = err.Error()
		r.Log.Error("configuration is wrong: the old one stays in force", "op", "config", "dir", r.Dir, "err", err, "next", "warmreboot config check "+r.Dir)
		return
	}
	r.conf, r.confErr, r.loaded = conf, "", r.Now()
	r.Log.Info("configuration read", "op", "config", "dir", r.Dir, "files", len(conf.Files), "schedules", len(conf.Schedules))
}

// Run looks at the domains until ctx ends. A run under way is then left to the
// next daemon.
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

// Look looks once, and begins what is to be begun.
func (r *Runner) Look(ctx context.Context) {
	if config.ZoneStamp() != r.zoneStamp() {
		r.Reload()
	}
	all, err := r.Agent.List(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.Log.Error("domains", "op", "schedule", "err", err)
		}
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range all {
		r.noteBirth(ctx, s)
	}
	r.adopt(all)
	r.sample(ctx, all)
	items, err := r.decide(all, false)
	if err != nil {
		r.Log.Error("schedules", "op", "schedule", "err", err)
		return
	}
	changed := map[schedule.Key]schedule.Memory{}
	for _, it := range items {
		key := schedule.Key{Rule: it.Rule.Name, UUID: it.UUID}
		if r.memory[key] != it.Memory {
			changed[key] = it.Memory
		}
		if !it.Skipped.IsZero() {
			r.Log.Warn("run was missed and is left out", "op", "schedule", "schedule", it.Rule.Name, "domain", it.Domain, "uuid", it.UUID, "at", it.Skipped)
			r.count(it, api.RunMissed)
		}
	}
	// Before anything is begun: a run happens once at most.
	if err := r.State.Remember(changed); err != nil {
		r.Log.Error("schedules", "op", "schedule", "err", err, "next", "is there space left in the state directory?")
		return
	}
	for k, m := range changed {
		r.memory[k] = m
	}
	for _, it := range items {
		if s := r.conf.Schedule(it.Rule.Name); it.Start && s != nil {
			r.begin(ctx, s, it)
		}
	}
}

func (r *Runner) zoneStamp() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.zone
}

// begin begins a run.
func (r *Runner) begin(ctx context.Context, s *config.Schedule, it schedule.Item) {
	log := r.Log.With("op", "schedule", "schedule", s.Name, "domain", it.Domain, "uuid", it.UUID)
	if s.DryRun || r.DryRun {
		log.Info("dry run: would reboot", "mode", s.Mode, "why", it.Why)
		r.setBack(s, it.UUID)
		return
	}
	log.Info("begins", "mode", s.Mode, "why", it.Why)
	now := r.Uptime()
	r.running[it.UUID] = s.Name
	r.started[""], r.started[s.Name] = now, now
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		n := newRun(r, s, it, log)
		failed := n.do(ctx)
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.running, it.UUID)
		if ctx.Err() == nil { // else the next daemon ends it
			r.count(it, n.result())
		}
		if failed {
			r.setBack(s, it.UUID)
		}
	}()
}

// setBack has a domain left alone for a while: what made it due may not be over.
func (r *Runner) setBack(s *config.Schedule, uuid ident.UUID) {
	key := schedule.Key{Rule: s.Name, UUID: uuid}
	m := r.memory[key]
	m.NotBefore = r.Now().Add(s.Retry)
	r.memory[key] = m
	if err := r.State.Remember(map[schedule.Key]schedule.Memory{key: m}); err != nil {
		r.Log.Error("schedules", "op", "schedule", "err", err)
	}
}

// busyWait is how long after it was first seen to be in a reboot a domain counts
// as being in one: some never come back.
const busyWait = 20 * time.Minute

// decide asks package schedule.
func (r *Runner) decide(all []api.DomainStatus, forecast bool) ([]schedule.Item, error) {
	locks, err := r.State.Locks(r.Now())
	if err != nil {
		return nil, err
	}
	stopped, err := r.State.Stopped()
	if err != nil {
		return nil, err
	}
	up := r.Uptime()
	in := schedule.Input{Now: r.Now(), Rules: r.conf.Rules(), Groups: r.conf.Groups, Limits: r.conf.Limits, Memory: r.memory,
		Trends: map[schedule.Key][]schedule.Trend{}, Stopped: stopped, Started: map[string]time.Duration{}, Running: r.running, Forecast: forecast}
	for rule, at := range r.started {
		in.Started[rule] = up - at
	}
	for _, s := range all {
		d := schedule.Domain{Name: s.Domain, UUID: s.UUID, Up: s.State == "running", Age: r.age(s, up)}
		switch {
		case r.running[s.UUID] != "":
			d.Busy = "schedule " + r.running[s.UUID] + " reboots it now"
		case s.Current != nil:
			if _, ok := r.busy[s.UUID]; !ok {
				r.busy[s.UUID] = up
			}
			if up-r.busy[s.UUID] < busyWait {
				d.Busy = "it is coming back from a reboot"
			}
		default:
			delete(r.busy, s.UUID)
		}
		for _, l := range locks {
			if l.UUID == s.UUID {
				d.Locked = l.String()
			}
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
	return schedule.Decide(in), nil
}

// age is for how long a domain has been up.
func (r *Runner) age(s api.DomainStatus, up time.Duration) time.Duration {
	b, ok := r.births[s.UUID]
	if !ok || b.Domid != s.Domid || b.Boot != r.Boot {
		return 0
	}
	return max(0, up-time.Duration(b.At*float64(time.Second)))
}

// noteBirth sees whether a domain is another one than the last time. When it was
// created, the toolstack says in xenstore by the clock of that time; no domain
// is older than dom0, whatever the clock says.
func (r *Runner) noteBirth(ctx context.Context, s api.DomainStatus) {
	old, known := r.births[s.UUID]
	if s.Domid == 0 || known && old.Domid == s.Domid && old.Boot == r.Boot {
		return
	}
	up := r.Uptime()
	age := time.Duration(0)
	if text, err := r.Store.Read(ctx, path.Join("/vm", s.UUID.String(), "start_time")); err == nil {
		if at, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err == nil {
			age = min(max(0, r.Now().Sub(time.Unix(int64(at), 0))), up)
		}
	}
	b := state.Birth{Domid: s.Domid, Boot: r.Boot, At: (up - age).Seconds()}
	if err := r.State.SetBirth(s.UUID, b); err != nil {
		r.Log.Error("schedules", "op", "schedule", "domain", s.Domain, "uuid", s.UUID, "err", err)
		return
	}
	r.births[s.UUID] = b
	r.dropFigures(s.UUID)
	if known && old.Boot == r.Boot && !s.Managed {
		r.unsure[s.UUID] = old.Domid
	}
}

// adopt records reboots of domains that the agent does not keep, of which there
// is nothing to tell but that they happened, and ends the runs of the last
// daemon.
func (r *Runner) adopt(all []api.DomainStatus) {
	for _, s := range all {
		before, ok := r.unsure[s.UUID]
		if ok && s.Current == nil && r.running[s.UUID] == "" {
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
				r.Log.Error("history", "op", "schedule", "err", err)
			}
		} else {
			r.record(failedEntry(l.Domain, l.UUID, l.Schedule, "", errors.New(why)))
		}
	}
	if _, _, err := r.State.Unlock(l.UUID, l.Owner); err != nil {
		r.Log.Error("lock", "op", "schedule", "domain", l.Domain, "uuid", l.UUID, "err", err)
	}
}

func (r *Runner) record(e api.HistoryEntry) {
	e.At = r.Now()
	if _, err := r.Options.History.Add(e); err != nil {
		r.Log.Error("history", "op", "schedule", "domain", e.Domain, "uuid", e.UUID, "err", err)
	}
}

// failedEntry is a reboot that did not take place.
func failedEntry(domain string, uuid ident.UUID, rule string, mode api.Trigger, err error) api.HistoryEntry {
	return api.HistoryEntry{Error: err.Error(), Summary: api.Summary{Domain: domain, UUID: uuid, Trigger: mode, By: api.BySchedule,
		Schedule: rule, Outcome: "failed", Refused: map[string]uint64{}, VBDs: []api.VBDSummary{}}}
}

// runOwner is the owner of a run's lock.
func runOwner(rule string) string { return fmt.Sprintf("schedule %s", rule) }
