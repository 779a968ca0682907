package scheduler

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/agent"
	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/operator"
	"github.com/warmreboot/warmreboot/internal/state"
	"github.com/warmreboot/warmreboot/internal/store"
	"github.com/warmreboot/warmreboot/internal/store/inmemory"
)

func TestMain(m *testing.M) { inmemory.Main(m) }

// host is a host without Xen: an agent that reboots domains at once, a clock that
// is set by hand, xenstore.
type host struct {
	t         *testing.T
	dir, conf string
	kept      *state.Store

	mu      sync.Mutex
	now     time.Time
	up      time.Duration
	domains []api.DomainStatus
	store   map[string]string
	nextID  ident.Domid
	done    []string // what was asked of the agent
	fail    error    // of the next reboots
	cold    bool     // domains cannot come back warm
	crashes bool     // domains are just going down by themselves
	hold    chan struct{}
	hangs   chan struct{} // xenstore answers when it is closed
	asks    chan struct{} // has something when xenstore was asked
	managed bool
	effect  func() // is called after each effect; it may end the daemon

	// ctx is the next daemon's, step is called before each step of writing its journal.
	ctx      context.Context
	step     func(string) error
	full     atomic.Bool // nothing can be journalled
	operator *operator.Operator
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func newHost(t *testing.T, conf string) *host {
	dir := t.TempDir()
	h := &host{t: t, dir: dir, conf: filepath.Join(dir, "conf"), now: noon, up: 100 * 24 * time.Hour, store: map[string]string{}, nextID: 1, managed: true, ctx: context.Background()}
	if err := os.Mkdir(h.conf, 0o755); err != nil {
		t.Fatal(err)
	}
	h.configure(conf)
	h.open()
	return h
}

func (h *host) configure(text string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.conf, "a.toml"), []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) open() {
	h.t.Helper()
	kept, err := state.Open(filepath.Join(h.dir, state.FileName), state.Limits{})
	if err != nil {
		h.t.Fatal(err)
	}
	h.kept = kept
	h.t.Cleanup(func() { _ = kept.Close() })
}

// create makes a domain that is up for some time.
func (h *host) create(name string, age time.Duration) ident.UUID {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := ident.UUID{byte(len(h.domains) + 1)}
	h.domains = append(h.domains, api.DomainStatus{Domain: name, UUID: u, Domid: h.nextID, State: "running", Managed: h.managed})
	h.store["/vm/"+u.String()+"/start_time"] = fmt.Sprintf("%d.00", h.now.Add(-age).Unix())
	h.nextID++
	return u
}

// runner starts a runner, and what operators ask; it does nothing by itself.
func (h *host) runner(change func(*Options)) *Runner {
	h.t.Helper()
	o := Options{Agent: h, State: h.kept, Store: h, Dir: h.conf, Boot: "boot", Sys: filepath.Join(h.dir, "sys"), Console: h.dir, Tick: time.Hour,
		Now:    func() time.Time { h.mu.Lock(); defer h.mu.Unlock(); return h.now },
		Uptime: func() time.Duration { h.mu.Lock(); defer h.mu.Unlock(); return h.up },
		Log:    slog.New(slog.NewTextHandler(testWriter{h.t}, nil))}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithCancel(h.ctx)
	h.t.Cleanup(cancel)
	moment := func() state.Moment { return state.Moment{Wall: o.Now(), Boot: o.Boot, Up: o.Uptime()} }
	var err error
	o.Operations, err = operation.Open(ctx, operation.Options{Dir: store.Dir{Path: filepath.Join(h.dir, "operations"), Step: h.step}, Locks: operator.Locks{State: h.kept, Moment: moment},
		Now: o.Now, Boot: o.Boot, Uptime: o.Uptime, Failed: func(_ operation.Operation, err error) {
			if !h.full.Load() {
				h.t.Error(err)
			}
		}})
	if err != nil {
		h.t.Fatal(err)
	}
	o.Rebooter = operator.Rebooter{Agent: h, State: h.kept, Moment: moment, Poll: time.Millisecond, Patience: 20 * time.Millisecond}
	r := New(o)
	h.operator = operator.New(o.Rebooter, o.Operations, o.Log)
	if err := r.Start(ctx); err != nil {
		h.t.Fatal(err)
	}
	o.Operations.Resume()
	return r
}

// reboot has an operator ask for a reboot, and waits for its end.
func (h *host) reboot(domain string, mode api.Trigger, override bool) error {
	_, err := api.Await(context.Background(), h.operator, api.OperationRequest{Kind: api.KindReboot, Domain: domain, Mode: mode, Override: override, Owner: "ann"})
	return err
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// pass lets time pass, and the clock with it.
func (h *host) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now, h.up = h.now.Add(d), h.up+d
}

func (h *host) moment() state.Moment {
	h.mu.Lock()
	defer h.mu.Unlock()
	return state.Moment{Wall: h.now, Boot: "boot", Up: h.up}
}

// look looks, and waits until what was begun has ended.
func (h *host) look(r *Runner) {
	r.Look(context.Background())
	wait(r)
}

func wait(r *Runner) {
	r.wg.Wait()
	r.Operations.Wait()
}

func (h *host) asked() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.done)
}

func (h *host) history() []api.HistoryEntry {
	h.t.Helper()
	all, err := api.All(h.kept.History(context.Background(), api.HistoryQuery{}))
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

// Xenstore.

func (h *host) Read(_ context.Context, path string) (string, error) {
	if h.hangs != nil {
		h.asks <- struct{}{}
		<-h.hangs
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if v, ok := h.store[path]; ok {
		return v, nil
	}
	return "", fs.ErrNotExist
}

// The agent.

func (h *host) find(domain string) *api.DomainStatus {
	for i := range h.domains {
		if d := &h.domains[i]; d.Domain == domain || d.UUID.String() == domain {
			return d
		}
	}
	return nil
}

func (h *host) List(context.Context) ([]api.DomainStatus, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.domains), nil
}

func (h *host) Status(_ context.Context, domain string, _ bool) (api.DomainStatus, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.find(domain); d != nil {
		return *d, nil
	}
	return api.DomainStatus{}, api.Errorf(api.NotFound, "there is no domain %q", domain)
}

func (h *host) Drop(context.Context, string) (api.DropResult, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = append(h.done, "drop")
	return api.DropResult{}, nil
}

func (h *host) Plan(_ context.Context, domain string, mode api.Trigger) (api.Plan, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := api.Plan{Domain: h.find(domain).Domain, UUID: h.find(domain).UUID, Mode: mode}
	if h.cold && mode != api.Cold {
		p.NotWarm = "not enabled"
		return p, api.Errorf(api.NotTracked, "not enabled")
	}
	if h.crashes {
		p.Joins = api.Crash
	}
	return p, nil
}

// Withdraw is what a guest allows that has not taken note.
func (h *host) Withdraw(context.Context, string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = append(h.done, "withdraw")
	return nil
}

func (h *host) RebootFor(ctx context.Context, by agent.Asker, domain string, mode api.Trigger) (api.Summary, error) {
	h.mu.Lock()
	hold := h.hold
	effect := h.effect
	h.mu.Unlock()
	if effect != nil {
		effect() // it is about to be asked
		defer effect()
	}
	h.mu.Lock()
	h.done = append(h.done, fmt.Sprintf("%s %s", mode, h.find(domain).Domain))
	h.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return api.Summary{}, ctx.Err()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.find(domain)
	s := api.Summary{Domain: d.Domain, UUID: d.UUID, DomidBefore: d.Domid, DomidAfter: h.nextID, Trigger: mode, By: by.By, Schedule: by.Schedule,
		Outcome: "warm", PagesRestored: 7, Started: h.now, Done: true}
	if h.fail != nil {
		return api.Summary{Domain: d.Domain, UUID: d.UUID, Trigger: mode}, h.fail
	}
	if mode == api.Cold {
		s.Outcome = "cold"
	}
	s.Sequence = 1
	if d.Last != nil {
		s.Sequence = d.Last.Sequence + 1
	}
	d.Last, d.Domid = &s, h.nextID
	h.nextID++
	h.store["/vm/"+d.UUID.String()+"/start_time"] = fmt.Sprintf("%d.00", h.now.Unix())
	if _, err := h.kept.Add(api.HistoryEntry{At: h.now, Summary: s}); err != nil {
		h.t.Error(err)
	}
	return s, nil
}
