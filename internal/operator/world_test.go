package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/agent"
	"github.com/warmreboot/warmreboot/internal/apiserver"
	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/state"
	"github.com/warmreboot/warmreboot/internal/store"
	"github.com/warmreboot/warmreboot/internal/store/inmemory"
)

func TestMain(m *testing.M) { inmemory.Main(m) }

// host is one without Xen: an agent that reboots domains when it is let, and may be
// killed after each effect.
type host struct {
	api.Service // none of it is asked for
	t           *testing.T
	dir         string
	kept        *state.Store
	boot        string
	ctx         context.Context // of the next daemon
	engine      *operation.Engine

	mu      sync.Mutex
	now     time.Time
	up      time.Duration
	domains map[string]*api.DomainStatus
	nextID  ident.Domid
	asked   []string
	fail    error         // of reboots
	let     chan struct{} // they wait for it, if it is not nil
	stuck   error         // of what takes them back
	askedBy []agent.Asker
	// booted, if it is set, is called with each domain that is created; false: it goes
	// down at once, and is created again.
	booted  func(*api.DomainStatus) bool
	looked  func()                  // at each look
	refuses func(api.Trigger) error // why a domain does not go down
	ticks   time.Duration           // how much time passes from one look to the next

	full           bool // nothing can be journalled
	coarse         bool
	effects, dieAt int
	dead           bool
	kill           context.CancelFunc
}

func newHost(t *testing.T) *host {
	h := &host{t: t, dir: t.TempDir(), boot: "boot", ctx: context.Background(), now: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), up: time.Hour,
		domains: map[string]*api.DomainStatus{}, nextID: 1}
	kept, err := state.Open(filepath.Join(h.dir, state.FileName), state.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	h.kept = kept
	t.Cleanup(func() { kept.Close() })
	for i, name := range []string{"web", "db"} {
		h.domains[name] = &api.DomainStatus{Domain: name, UUID: ident.UUID{byte(i + 1)}, Domid: h.nextID, State: "running", Managed: true}
		h.nextID++
	}
	return h
}

// step is one of the journal's: each is an effect, or, if that takes too long, those
// between which what is on the disk changes.
func (h *host) step(name string) error {
	if h.isFull() {
		return syscall.ENOSPC
	}
	if !h.coarse || name == "rename" || name == "sync folder" {
		h.effect()
	}
	return nil
}

func (h *host) isFull() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.full
}

// effect is called after something has happened; it may end the daemon.
func (h *host) effect() {
	h.mu.Lock()
	if !h.dead {
		h.effects++
		if h.dead = h.effects == h.dieAt; h.dead {
			h.kill()
		}
	}
	dead := h.dead
	h.mu.Unlock()
	if dead {
		runtime.Goexit()
	}
}

func (h *host) moment() state.Moment {
	h.mu.Lock()
	defer h.mu.Unlock()
	return state.Moment{Wall: h.now, Boot: h.boot, Up: h.up}
}

func (h *host) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now, h.up = h.now.Add(d), h.up+d
}

// daemon starts one, which takes up what the last has left.
func (h *host) daemon() *Operator {
	h.t.Helper()
	o := h.unresumed()
	h.engine.Resume()
	return o
}

// unresumed is one that has not taken up anything yet.
func (h *host) unresumed() *Operator {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.ctx)
	h.t.Cleanup(cancel)
	e, err := operation.Open(ctx, operation.Options{Dir: store.Dir{Path: filepath.Join(h.dir, "operations"), Step: h.step},
		Locks: Locks{h.kept, h.moment}, Now: func() time.Time { return h.moment().Wall }, Boot: h.boot, Uptime: func() time.Duration { return h.moment().Up },
		Failed: func(_ operation.Operation, err error) {
			if !h.isFull() {
				h.t.Error(err)
			}
		}})
	if err != nil {
		h.t.Fatal(err)
	}
	h.engine = e
	return New(Rebooter{Agent: h, State: h.kept, Moment: h.moment, Poll: time.Millisecond, Patience: 20 * time.Millisecond}, e, slog.New(slog.DiscardHandler))
}

// served is what a client sees.
func (h *host) served(o api.Operations) *api.Client {
	h.t.Helper()
	socket := filepath.Join(h.t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		h.t.Fatal(err)
	}
	s := &http.Server{Handler: apiserver.Handler(h, apiserver.ServeOperations(o))}
	go s.Serve(l)
	h.t.Cleanup(func() { s.Close() })
	return api.NewClient(socket)
}

func (h *host) times(what string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.asked {
		if a == what {
			n++
		}
	}
	return n
}

// The agent.

func (h *host) find(domain string) (*api.DomainStatus, error) {
	for _, d := range h.domains {
		if d.Domain == domain || d.UUID.String() == domain {
			return d, nil
		}
	}
	return nil, api.Errorf(api.NotFound, "there is no domain %q", domain)
}

func (h *host) Status(_ context.Context, domain string, _ bool) (api.DomainStatus, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now, h.up = h.now.Add(h.ticks), h.up+h.ticks
	if h.looked != nil {
		h.looked()
	}
	d, err := h.find(domain)
	if err != nil {
		return api.DomainStatus{}, err
	}
	return *d, nil
}

func (h *host) List(context.Context) ([]api.DomainStatus, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []api.DomainStatus
	for _, d := range h.domains {
		all = append(all, *d)
	}
	return all, nil
}

// create makes a domain again that has gone down. h.mu is held.
func (h *host) create(d *api.DomainStatus) {
	for {
		d.Domid, d.Current = h.nextID, nil
		h.nextID++
		if h.booted == nil || h.booted(d) {
			return
		}
	}
}

func (h *host) Plan(_ context.Context, domain string, mode api.Trigger) (api.Plan, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d, err := h.find(domain)
	if err != nil {
		return api.Plan{}, err
	}
	return api.Plan{Domain: d.Domain, UUID: d.UUID, Domid: d.Domid, Mode: mode, VBDs: []api.PlanVBD{}}, nil
}

func (h *host) RebootFor(ctx context.Context, by agent.Asker, domain string, mode api.Trigger) (api.Summary, error) {
	h.effect() // it is about to be asked
	defer h.effect()
	h.mu.Lock()
	d, err := h.find(domain)
	h.askedBy = append(h.askedBy, by)
	let, fail := h.let, h.fail
	if h.refuses != nil && fail == nil {
		fail = h.refuses(mode)
	}
	if err != nil {
		h.mu.Unlock()
		return api.Summary{}, err
	}
	h.asked = append(h.asked, fmt.Sprintf("%s %s", mode, d.Domain))
	sum := api.Summary{Domain: d.Domain, UUID: d.UUID, DomidBefore: d.Domid, Trigger: mode, By: by.By, Started: h.now, Refused: map[string]uint64{}, VBDs: []api.VBDSummary{}}
	h.mu.Unlock()
	if let != nil {
		select {
		case <-let:
		case <-ctx.Done():
			return sum, api.Errorf(api.TimedOut, "the guest does not react").Try(api.TryForce)
		}
	}
	var e *api.Error
	if fail != nil && !(errors.As(fail, &e) && e.Code == api.CameBackCold) {
		return sum, fail
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	sum.DomidAfter, sum.Done, sum.Outcome, sum.Sequence = h.nextID, true, api.OutcomeWarm, 1
	if d.Last != nil {
		sum.Sequence = d.Last.Sequence + 1
	}
	if fail != nil {
		sum.Outcome = api.OutcomeCold
	}
	d.Last = &sum
	h.create(d)
	sum.DomidAfter = d.Domid
	if d.Domid == 0 { // its toolstack has failed to create it
		h.mu.Unlock()
		<-ctx.Done()
		h.mu.Lock()
	}
	if d.Current != nil { // it hangs
		*d.Current, d.Last = sum, nil
		return sum, api.Errorf(api.TimedOut, "it is back, but its restore has not ended")
	}
	if _, err := h.kept.Add(api.HistoryEntry{At: h.now, Summary: sum}); err != nil {
		h.t.Error(err)
	}
	return sum, fail
}

func (h *host) Withdraw(_ context.Context, domain string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	d, err := h.find(domain)
	if err == nil {
		err = h.stuck
	}
	if err == nil {
		h.asked = append(h.asked, "withdraw "+d.Domain)
	}
	return err
}

func (h *host) history() []api.HistoryEntry {
	h.t.Helper()
	all, err := api.All(h.kept.History(context.Background(), api.HistoryQuery{}))
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

// names of an operation's steps.
func names(o api.Operation) (all []string) {
	for _, s := range o.Steps {
		all = append(all, s.Name)
	}
	return slices.Clip(all)
}
