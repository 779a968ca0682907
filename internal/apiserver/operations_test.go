package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

// slow reboots when it is let, and counts.
type slow struct {
	echo
	let   chan error
	begun chan struct{} // one for each

	mu     sync.Mutex
	asked  []api.OperationRequest
	ctxErr error
}

func newSlow() *slow { return &slow{let: make(chan error), begun: make(chan struct{}, maxRunning)} }

func (s *slow) Reboot(ctx context.Context, r api.OperationRequest) (api.Summary, error) {
	s.mu.Lock()
	s.asked = append(s.asked, r)
	s.mu.Unlock()
	s.begun <- struct{}{}
	sum := api.Summary{Domain: r.Domain, UUID: ident.UUID{9}, Trigger: r.Mode, Outcome: api.OutcomeWarm}
	select {
	case err := <-s.let:
		return sum, err
	case <-ctx.Done():
		s.mu.Lock()
		s.ctxErr = ctx.Err()
		s.mu.Unlock()
		return sum, api.Errorf(api.TimedOut, "not yet")
	}
}

func (s *slow) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

var rebootOfWeb = api.OperationRequest{Kind: api.KindReboot, Domain: "web", Mode: api.Graceful}

// TestOperation: it is begun at once, can be asked for, followed, and asked again by
// its key without being done again.
func TestOperation(t *testing.T) {
	s := newSlow()
	c := serveAll(t, s)
	ctx := context.Background()
	r := rebootOfWeb
	r.Key, r.Owner = "k", "ann"
	op, err := c.Begin(ctx, r)
	if err != nil || op.State != api.OperationRunning || op.ID == "" || op.Request != r || op.By != api.ByOperator || op.Begun.IsZero() {
		t.Fatalf("%+v, %v", op, err)
	}
	if again, err := c.Begin(ctx, r); err != nil || again.ID != op.ID {
		t.Errorf("again: %+v, %v", again, err)
	}
	other := r
	other.Mode = api.Force
	var e *api.Error
	if v, err := c.Begin(ctx, other); !errors.As(err, &e) || e.Code != api.BadRequest {
		t.Errorf("another request of that key: %+v, %v", v, err)
	}
	if all, err := c.Operations(ctx); err != nil || len(all) != 1 || all[0].ID != op.ID {
		t.Errorf("%+v, %v", all, err)
	}
	var states []api.OperationState
	for v, err := range c.Follow(ctx, op.ID) {
		if err != nil {
			t.Fatal(err)
		}
		if states = append(states, v.State); len(states) == 1 {
			s.let <- nil
		}
		op = v
	}
	if fmt.Sprint(states) != "[running done]" || op.Summary == nil || op.Summary.Outcome != api.OutcomeWarm || op.UUID != (ident.UUID{9}) || op.Ended.IsZero() || op.Error != nil {
		t.Errorf("%v, %+v", states, op)
	}
	if v, err := c.Operation(ctx, op.ID); err != nil || v.State != api.OperationDone {
		t.Errorf("%+v, %v", v, err)
	}
	if again, err := c.Begin(ctx, r); err != nil || again.State != api.OperationDone || s.times() != 1 {
		t.Errorf("after its end: %+v, %v, done %d times", again, err, s.times())
	}
	for _, err := range c.Follow(ctx, "none") {
		if !errors.As(err, &e) || e.Code != api.NotFound {
			t.Errorf("%v", err)
		}
	}
	if _, err := c.Operation(ctx, "a/b"); !errors.As(err, &e) || e.Code != api.NotFound {
		t.Errorf("%v", err)
	}
}

// TestOperationOutlivesItsAsker: who asked may hang up; what he asked for goes on.
func TestOperationOutlivesItsAsker(t *testing.T) {
	s := newSlow()
	c := serveAll(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-s.begun
		cancel()
	}()
	if _, err := api.Await(ctx, c, rebootOfWeb); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	all, err := c.Operations(context.Background())
	if err != nil || len(all) != 1 || all[0].State != api.OperationRunning {
		t.Fatalf("%+v, %v", all, err)
	}
	s.let <- api.Errorf(api.CameBackCold, "cold").Try(api.TryForce)
	for v, err := range c.Follow(context.Background(), all[0].ID) {
		if v.State == api.OperationFailed && (v.Error.Code != api.CameBackCold || v.Error.Hint != api.TryForce || v.Summary == nil) {
			t.Errorf("%+v, %v", v, err)
		}
	}
	if s.ctxErr != nil {
		t.Errorf("the asker's end reached the operation: %v", s.ctxErr)
	}
}

// TestOperationTimeout: the operation's own time ends its waiting, and the account so
// far is handed over.
func TestOperationTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(newSlow())
		defer m.Stop()
		r := rebootOfWeb
		r.TimeoutSeconds = 300
		begun := time.Now()
		sum, err := api.Await(t.Context(), m, r)
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.TimedOut || sum.Domain != "web" || time.Since(begun) != 5*time.Minute {
			t.Errorf("%+v, %v after %v", sum, err, time.Since(begun))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun = time.Now()
		if _, err := api.Await(ctx, m, rebootOfWeb); !errors.As(err, &e) || e.Code != api.TimedOut || time.Since(begun).Round(time.Second) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

// TestOperationsAreBounded: those that have ended are forgotten, the oldest first;
// those that run never are.
func TestOperationsAreBounded(t *testing.T) {
	s := newSlow()
	m := NewMemory(s)
	ctx := context.Background()
	first, err := m.Begin(ctx, rebootOfWeb)
	if err != nil {
		t.Fatal(err)
	}
	quick := NewMemory(&echo{})
	defer quick.Stop()
	var last api.Operation
	for range maxEnded + 20 {
		op, err := quick.Begin(ctx, rebootOfWeb)
		if err != nil {
			t.Fatal(err)
		}
		for last = range quick.Follow(ctx, op.ID) {
		}
	}
	all, _ := quick.Operations(ctx)
	if len(all) != maxEnded || all[len(all)-1].ID != last.ID {
		t.Errorf("%d are remembered", len(all))
	}
	for i := range maxRunning - 1 {
		if _, err := m.Begin(ctx, rebootOfWeb); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if _, err := m.Begin(ctx, rebootOfWeb); err == nil {
		t.Error("no end of operations")
	}
	if v, err := m.Operation(ctx, first.ID); err != nil || v.State != api.OperationRunning {
		t.Errorf("%+v, %v", v, err)
	}
	m.Stop() // waits for all
	if all, _ := m.Operations(ctx); len(all) != maxEnded {
		t.Errorf("%d are remembered", len(all))
	}
	if _, err := m.Begin(ctx, rebootOfWeb); err == nil {
		t.Error("begun after the end")
	}
}

func TestBadOperations(t *testing.T) {
	s := newSlow()
	m := NewMemory(s)
	t.Cleanup(m.Stop)
	h := Handler(s, ServeOperations(m))
	for _, body := range []string{"", "{}", `{"kind":"reboot","domain":"web"}`, `{"kind":"reboot","domain":"","mode":"cold"}`, `{"kind":"kexec","domain":"web","mode":"cold"}`,
		`{"kind":"reboot","domain":"web","mode":"warm"}`, `{"kind":"reboot","domain":"web","mode":"cold","timeout_seconds":-1}`, `{"kind":"reboot","domain":"web","mode":"cold","unknown":1}`} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/v1/operations", strings.NewReader(body)))
		if w.Code != http.StatusBadRequest || s.times() != 0 {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/v1/operations", strings.NewReader(`{"kind":"reboot","domain":"web","mode":"cold"}`)))
	if w.Code != http.StatusAccepted || !strings.HasPrefix(w.Header().Get("Location"), "/v1/operations/") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}
