package operator

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/apiserver"
)

// TestRestarted: an operator who waits for a reboot hears of its end from the daemon
// that is started after the one which he has asked, stopped in order or killed.
func TestRestarted(t *testing.T) {
	for _, killed := range []bool{false, true} {
		h := newHost(t)
		h.let = make(chan struct{})
		socket := filepath.Join(t.TempDir(), "s")
		start := func() (stop func()) {
			ctx, cancel := context.WithCancel(context.Background())
			h.ctx = ctx
			o := h.daemon()
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Server{Handler: apiserver.Handler(h, apiserver.ServeOperations(o)), BaseContext: func(net.Listener) context.Context { return ctx }}
			go s.Serve(l)
			engine := h.engine
			return func() {
				if killed {
					s.Close()
				}
				cancel()
				_ = s.Shutdown(context.Background())
				engine.Wait()
			}
		}
		stop := start()
		type result struct {
			sum api.Summary
			err error
		}
		done := make(chan result, 1)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		go func() {
			sum, err := api.NewClient(socket).Reboot(ctx, "web", api.Graceful)
			done <- result{sum, err}
		}()
		for h.times("graceful web") == 0 {
			select {
			case r := <-done:
				t.Fatal(r)
			case <-time.After(time.Millisecond):
			}
		}
		stop()
		close(h.let)
		stop = start()
		if r := <-done; r.err != nil || r.sum.Outcome != api.OutcomeWarm || h.times("graceful web") != 1 {
			t.Errorf("killed %v: %+v, %v, %q", killed, r.sum, r.err, h.asked)
		}
		stop()
	}
}

// TestAnswerLost: what became of a request of which the answer was lost is asked for
// by its key; what is not asked at all has changed nothing, and says so.
func TestAnswerLost(t *testing.T) {
	h := newHost(t)
	o := h.daemon()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	times := 0
	inner := apiserver.Handler(h, apiserver.ServeOperations(o))
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			if times++; times == 1 {
				if r.URL.Path == "/v1/operations" {
					inner.ServeHTTP(&discard{}, r)
				}
				panic(http.ErrAbortHandler)
			}
		}
		inner.ServeHTTP(w, r)
	})}
	go s.Serve(l)
	c := api.NewClient(socket)
	if sum, err := c.Reboot(t.Context(), "web", api.Cold); err != nil || sum.Domain != "web" || times != 2 || h.times("cold web") != 1 {
		t.Errorf("%+v, %v, asked %d times, %q", sum, err, times, h.asked)
	}
	times = 0
	if _, err := c.Drop(t.Context(), "web"); code(err) != api.Failed || !strings.Contains(err.Error(), "may have") {
		t.Errorf("a drop that nobody answered: %v", err)
	}
	s.Close()
	if _, err := c.Reboot(t.Context(), "web", api.Cold); code(err) != api.AgentDown {
		t.Errorf("nobody was asked: %v", err)
	}
}

// discard is an answer that nobody reads.
type discard struct{}

func (*discard) Header() http.Header         { return http.Header{} }
func (*discard) Write(p []byte) (int, error) { return len(p), nil }
func (*discard) WriteHeader(int)             {}

// TestWhichReboot: what an earlier daemon has asked for is neither taken for a reboot
// of the same domid before the host's last boot, nor not found as the domain has
// crashed since.
func TestWhichReboot(t *testing.T) {
	h := newHost(t)
	h.let = make(chan struct{})
	web := h.domains["web"]
	entry := func(before, after ident.Domid, sequence uint64, trigger api.Trigger) *api.Summary {
		s := api.Summary{Domain: "web", UUID: web.UUID, DomidBefore: before, DomidAfter: after, Sequence: sequence, Trigger: trigger,
			Outcome: api.OutcomeWarm, Started: h.now, Done: true}
		if _, err := h.kept.Add(api.HistoryEntry{At: h.now, Summary: s}); err != nil {
			t.Fatal(err)
		}
		return &s
	}
	web.Last = entry(1, 2, 5, api.Crash) // and the host was booted since
	h.pass(time.Hour)
	ctx, stop := context.WithCancel(context.Background())
	h.ctx = ctx
	r := rebootOfWeb
	r.Key = "k"
	if _, err := h.daemon().Begin(ctx, r); err != nil {
		t.Fatal(err)
	}
	for h.times("graceful web") == 0 {
		time.Sleep(time.Millisecond)
	}
	stop()
	h.engine.Wait()
	h.ctx = context.Background()
	if _, err := api.Await(h.ctx, h.daemon(), r); code(err) != api.TimedOut {
		t.Errorf("it has not gone down: %v", err)
	}

	r.Key = "another"
	ctx, stop = context.WithCancel(context.Background())
	h.ctx = ctx
	if _, err := h.daemon().Begin(ctx, r); err != nil {
		t.Fatal(err)
	}
	for h.times("graceful web") == 1 {
		time.Sleep(time.Millisecond)
	}
	stop()
	h.engine.Wait()
	h.mu.Lock()
	entry(1, 3, 6, api.Graceful)
	web.Last, web.Domid = entry(3, 4, 7, api.Crash), 4
	h.mu.Unlock()
	h.ctx = context.Background()
	if sum, err := api.Await(h.ctx, h.daemon(), r); err != nil || sum.Sequence != 6 {
		t.Errorf("%+v, %v", sum, err)
	}
}

// TestLongerThanItsLock: an operation has its domain to itself until it has ended, also
// for longer than its lock lasts.
func TestLongerThanItsLock(t *testing.T) {
	h := newHost(t)
	h.let = make(chan struct{})
	o := h.daemon()
	first, err := o.Begin(t.Context(), rebootOfWeb)
	if err != nil {
		t.Fatal(err)
	}
	for h.times("graceful web") == 0 {
		time.Sleep(time.Millisecond)
	}
	h.pass(defaultTimeout + time.Hour)
	if _, err := api.Await(t.Context(), o, rebootOfWeb); code(err) != api.Locked || !strings.Contains(err.Error(), first.ID) || h.times("graceful web") != 1 {
		t.Errorf("%v, %q", err, h.asked)
	}
	if _, err := o.Plan(t.Context(), rebootOfWeb); code(err) != api.Locked {
		t.Errorf("the plan: %v", err)
	}
	close(h.let)
	for range o.Follow(t.Context(), first.ID) {
	}
	if _, err := api.Await(t.Context(), o, rebootOfWeb); err != nil {
		t.Error(err)
	}
}
