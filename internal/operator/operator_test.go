package operator

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/state"
)

var rebootOfWeb = api.OperationRequest{Kind: api.KindReboot, Domain: "web", Mode: api.Graceful}

func code(err error) api.Code {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// TestConformance: who asks the daemon directly, and who asks it over HTTP, finds the
// same: what package api says of operations.
func TestConformance(t *testing.T) {
	for way, ask := range map[string]func(*host, *Operator) api.Operations{
		"directly":  func(_ *host, o *Operator) api.Operations { return o },
		"over HTTP": func(h *host, o *Operator) api.Operations { return h.served(o) },
	} {
		for what, test := range map[string]func(*testing.T, *host, api.Operations){
			"operation": testOperation, "key": testKey, "errors": testErrors, "hang up": testHangUp, "bad requests": testBad, "two": testTwo, "override": testOverride, "bound": testBound, "cancel": testCancel, "too late": testTooLate,
		} {
			t.Run(way+"/"+what, func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				test(t, h, ask(h, h.daemon()))
			})
		}
	}
}

// testOperation: it is begun at once, can be asked for, and followed.
func testOperation(t *testing.T, h *host, o api.Operations) {
	ctx := context.Background()
	h.let = make(chan struct{})
	r := rebootOfWeb
	r.Owner, r.Cause = "ann", "ticket 42"
	op, err := o.Begin(ctx, r)
	if err != nil || op.State != api.OperationRunning || op.ID == "" || op.Kind != api.KindReboot || *op.Request != r || op.By != api.ByOperator || op.Owner != "ann" ||
		op.Cause != "ticket 42" || op.Begun.IsZero() || op.Domain != "web" || op.UUID != (ident.UUID{1}) {
		t.Fatalf("%+v, %v", op, err)
	}
	if all, err := o.Operations(ctx); err != nil || len(all) != 1 || all[0].ID != op.ID {
		t.Errorf("%+v, %v", all, err)
	}
	var states []api.OperationState
	for v, err := range o.Follow(ctx, op.ID) {
		if err != nil {
			t.Fatal(err)
		}
		if n := len(states); n == 0 || states[n-1] != v.State {
			states = append(states, v.State)
		}
		if steps := names(v); len(steps) > 0 && steps[len(steps)-1] == "graceful" && v.Steps[len(steps)-1].Ended.IsZero() {
			close(h.let)
		}
		op = v
	}
	if fmt.Sprint(states) != "[running done]" || op.Summary == nil || op.Summary.Outcome != api.OutcomeWarm || op.Ended.IsZero() || op.Error != nil ||
		!slices.Equal(names(op), []string{"admission", "before graceful", "graceful", "annotate"}) || op.Steps[2].Ended.IsZero() {
		t.Errorf("%v, %+v", states, op)
	}
	if v, err := o.Operation(ctx, op.ID); err != nil || v.State != api.OperationDone {
		t.Errorf("%+v, %v", v, err)
	}
	if all := h.history(); len(all) != 1 || all[0].Operation != op.ID {
		t.Errorf("%+v", all)
	}
	if h.askedBy[0].By != api.ByOperator || len(h.kept.Locks(h.moment())) != 0 {
		t.Errorf("%+v, %v", h.askedBy, h.kept.Locks(h.moment()))
	}
	for _, err := range o.Follow(ctx, "none") {
		if code(err) != api.NotFound {
			t.Errorf("%v", err)
		}
	}
	for _, id := range []string{"none", "a/b", ".."} {
		if _, err := o.Operation(ctx, id); code(err) != api.NotFound {
			t.Errorf("%v", err)
		}
	}
}

// testKey: who asks again by the same key, at once, later, or after a restart, when the
// domain may be away, is given the operation that there is.
func testKey(t *testing.T, h *host, o api.Operations) {
	ctx := context.Background()
	h.let = make(chan struct{})
	r := rebootOfWeb
	r.Key = "k"
	ids := make(chan string, 8)
	for range cap(ids) {
		go func() {
			op, err := o.Begin(ctx, r)
			if err != nil {
				t.Error(err)
			}
			ids <- op.ID
		}()
	}
	id := <-ids
	for range cap(ids) - 1 {
		if other := <-ids; other != id {
			t.Errorf("%s and %s", id, other)
		}
	}
	other := r
	other.Mode = api.Force
	if v, err := o.Begin(ctx, other); code(err) != api.BadRequest {
		t.Errorf("another request of that key: %+v, %v", v, err)
	}
	close(h.let)
	if _, err := api.Await(ctx, o, r); err != nil {
		t.Error(err)
	}
	h.mu.Lock()
	delete(h.domains, "web")
	h.mu.Unlock()
	if again, err := o.Begin(ctx, r); err != nil || again.State != api.OperationDone || again.ID != id {
		t.Errorf("after its end: %+v, %v", again, err)
	}
	next := h.daemon()
	if again, err := next.Begin(ctx, r); err != nil || again.State != api.OperationDone || again.ID != id {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
	if n := h.times("graceful web"); n != 1 {
		t.Errorf("done %d times", n)
	}
}

// testErrors: an error keeps its code, its hint, and what came with it.
func testErrors(t *testing.T, h *host, o api.Operations) {
	for _, c := range []api.Code{api.Failed, api.NoWarmcache, api.NotTracked, api.CameBackCold, api.TimedOut, api.Locked, api.VersionSkew} {
		h.fail = api.Errorf(c, "about %s", c).Try(api.TryCold)
		sum, err := api.Await(context.Background(), o, rebootOfWeb)
		var e *api.Error
		if !errors.As(err, &e) || *e != *h.fail.(*api.Error) || sum.Domain != "web" || sum.Trigger != api.Graceful {
			t.Errorf("%s: %+v, %v", c, sum, err)
		}
		if len(h.kept.Locks(h.moment())) != 0 {
			t.Errorf("%s: still locked", c)
		}
	}
	if _, err := api.Await(context.Background(), o, api.OperationRequest{Kind: api.KindReboot, Domain: "nobody", Mode: api.Cold}); code(err) != api.NotFound {
		t.Errorf("%v", err)
	}
}

// testHangUp: who asked may hang up; what he asked for goes on.
func testHangUp(t *testing.T, h *host, o api.Operations) {
	h.let = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for h.times("graceful web") == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if _, err := api.Await(ctx, o, rebootOfWeb); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	all, err := o.Operations(context.Background())
	if err != nil || len(all) != 1 || all[0].State != api.OperationRunning {
		t.Fatalf("%+v, %v", all, err)
	}
	close(h.let)
	for v, err := range o.Follow(context.Background(), all[0].ID) {
		if err != nil || v.State == api.OperationFailed {
			t.Errorf("%+v, %v", v, err)
		}
	}
	if h.times("graceful web") != 1 || len(h.history()) != 1 {
		t.Errorf("%v", h.history())
	}
}

func testBad(t *testing.T, h *host, o api.Operations) {
	good := rebootOfWeb
	for what, change := range map[string]func(*api.OperationRequest){
		"no kind": func(r *api.OperationRequest) { r.Kind = "" }, "another kind": func(r *api.OperationRequest) { r.Kind = "kexec" },
		"a schedule's":   func(r *api.OperationRequest) { r.Kind = api.KindSchedule },
		"no domain":      func(r *api.OperationRequest) { r.Domain = "" },
		"no mode":        func(r *api.OperationRequest) { r.Mode = "" },
		"a guest's mode": func(r *api.OperationRequest) { r.Mode = api.Crash },
		"negative time":  func(r *api.OperationRequest) { r.TimeoutSeconds = -1 },
		"endless time":   func(r *api.OperationRequest) { r.TimeoutSeconds = 1e300 },
	} {
		r := good
		change(&r)
		if v, err := o.Begin(context.Background(), r); code(err) != api.BadRequest {
			t.Errorf("%s: %+v, %v", what, v, err)
		}
		if v, err := o.Plan(context.Background(), r); code(err) != api.BadRequest && r.TimeoutSeconds == 0 { // which a plan does not have
			t.Errorf("plan, %s: %+v, %v", what, v, err)
		}
	}
	if len(h.asked) != 0 || len(h.engine.List()) != 0 {
		t.Errorf("%q, %+v", h.asked, h.engine.List())
	}
}

// testTwo: of two operators that ask at once, be they the same person, one reboots the
// domain; the other is told who does. Neither releases the other's lock.
func testTwo(t *testing.T, h *host, o api.Operations) {
	ctx := context.Background()
	h.let = make(chan struct{})
	r := rebootOfWeb
	r.Owner = "ann"
	var wg sync.WaitGroup
	errs := make(chan error, 4)
	for range cap(errs) {
		wg.Go(func() { _, err := api.Await(ctx, o, r); errs <- err })
	}
	for range cap(errs) - 1 { // they do not wait for the first
		err := <-errs
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.Locked || e.Hint != api.TryOverride || !strings.Contains(e.Message, "of ann (a graceful reboot)") {
			t.Errorf("%v", err)
		}
		if locks := h.kept.Locks(h.moment()); len(locks) != 1 || !strings.Contains(e.Message, locks[0].Operation) {
			t.Errorf("%v, %v", locks, err)
		}
	}
	if _, err := o.Plan(ctx, r); code(err) != api.Locked {
		t.Errorf("%v", err)
	}
	// Another domain is not concerned.
	close(h.let)
	db := rebootOfWeb
	db.Domain = "db"
	if _, err := api.Await(ctx, o, db); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := <-errs; err != nil || h.times("graceful web") != 1 || len(h.kept.Locks(h.moment())) != 0 {
		t.Errorf("%v, %q, %v", err, h.asked, h.kept.Locks(h.moment()))
	}
	if _, err := api.Await(ctx, o, r); err != nil {
		t.Errorf("and then: %v", err)
	}
}

// testOverride: what is locked is rebooted if the operator insists, and stays locked.
func testOverride(t *testing.T, h *host, o api.Operations) {
	ctx := context.Background()
	if err := h.kept.Lock(state.Lock{UUID: ident.UUID{1}, Domain: "web", Owner: "ann", Reason: "backup", TTL: 3600}, h.moment()); err != nil {
		t.Fatal(err)
	}
	r := rebootOfWeb
	r.Owner = "ann" // who has it: it is there to keep her from it, too
	if _, err := api.Await(ctx, o, r); code(err) != api.Locked || !strings.Contains(err.Error(), "locked by ann (backup)") || len(h.asked) != 0 {
		t.Errorf("%v, %q", err, h.asked)
	}
	r.Override = true
	if _, err := o.Plan(ctx, r); err != nil {
		t.Error(err)
	}
	if _, err := api.Await(ctx, o, r); err != nil || len(h.asked) != 1 {
		t.Errorf("%v, %q", err, h.asked)
	}
	if locks := h.kept.Locks(h.moment()); len(locks) != 1 || locks[0].Run {
		t.Errorf("%v", locks)
	}
}

// testBound: the operation's own time ends its waiting, and the account so far is
// handed over.
func testBound(t *testing.T, h *host, o api.Operations) {
	h.let = make(chan struct{})
	r := rebootOfWeb
	r.TimeoutSeconds = 0.05
	sum, err := api.Await(context.Background(), o, r)
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.TimedOut || e.Hint != api.TryForce || sum.Domain != "web" || len(h.kept.Locks(h.moment())) != 0 {
		t.Errorf("%+v, %v", sum, err)
	}
}

// ended waits for an operation's end.
func ended(t *testing.T, o api.Operations, id string) (op api.Operation) {
	t.Helper()
	var err error
	for op, err = range o.Follow(t.Context(), id) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return op
}

// testCancel: one that the guest has not taken note of is taken back; that it did not take
// place, and who says so, is in the history, and the domain is free again.
func testCancel(t *testing.T, h *host, o api.Operations) {
	ctx := context.Background()
	h.let = make(chan struct{}) // which it never is
	op, err := o.Begin(ctx, rebootOfWeb)
	if err != nil {
		t.Fatal(err)
	}
	for h.times("graceful web") == 0 {
		time.Sleep(time.Millisecond)
	}
	h.stuck = api.Errorf(api.Locked, "it goes down")
	if _, err := o.Cancel(ctx, op.ID, "bob"); code(err) != api.Locked || err.Error() != "it goes down" {
		t.Errorf("%v", err)
	}
	h.mu.Lock()
	h.stuck = nil
	h.mu.Unlock()
	for range 2 { // twice is no error, also when it has ended
		if v, err := o.Cancel(ctx, op.ID, "bob"); err != nil || v.ID != op.ID || v.Cancelled == nil || v.Cancelled.By != "bob" {
			t.Errorf("%+v, %v", v, err)
		}
	}
	op = ended(t, o, op.ID)
	if op.State != api.OperationCancelled || op.Error == nil || op.Error.Code != api.Cancelled || !strings.Contains(op.Error.Message, "by bob") || op.Summary != nil {
		t.Errorf("%+v, %v", op, op.Error)
	}
	all := h.history()
	if len(all) != 1 || all[0].Outcome != api.OutcomeCancelled || all[0].Operation != op.ID || all[0].By != api.ByOperator || all[0].Trigger != api.Graceful ||
		!strings.Contains(all[0].Error, "cancelled by bob") || all[0].At.IsZero() {
		t.Errorf("%+v", all)
	}
	if h.times("withdraw web") != 1 || len(h.kept.Locks(h.moment())) != 0 {
		t.Errorf("%q, %v", h.asked, h.kept.Locks(h.moment()))
	}
	for _, id := range []string{"none", "a/b", ".."} {
		if _, err := o.Cancel(ctx, id, ""); code(err) != api.NotFound {
			t.Errorf("%v", err)
		}
	}
	close(h.let)
	if _, err := api.Await(ctx, o, rebootOfWeb); err != nil {
		t.Errorf("and then: %v", err)
	}
}

// testTooLate: what takes a domain down at once is not taken back.
func testTooLate(t *testing.T, h *host, o api.Operations) {
	ctx := context.Background()
	h.let = make(chan struct{})
	r := rebootOfWeb
	r.Mode = api.Force
	op, err := o.Begin(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	for h.times("force web") == 0 {
		time.Sleep(time.Millisecond)
	}
	if v, err := o.Cancel(ctx, op.ID, "bob"); code(err) != api.Locked || v.Cancelled != nil {
		t.Errorf("%+v, %v", v, err)
	}
	close(h.let)
	op = ended(t, o, op.ID)
	if _, err := o.Cancel(ctx, op.ID, "bob"); code(err) != api.BadRequest {
		t.Errorf("it has ended: %v", err)
	}
	if op.State != api.OperationDone || op.Cancelled != nil || h.times("withdraw web") != 0 {
		t.Errorf("%+v, %q", op, h.asked)
	}
}

// TestCancelledAfterRestart: an operation that another daemon has taken up, after it
// asked for the reboot, is taken back all the same; one whose cancellation was journalled
// by that daemon ends with it.
func TestCancelledAfterRestart(t *testing.T) {
	for _, before := range []bool{false, true} {
		h := newHost(t)
		h.let = make(chan struct{})
		h.domains["web"].Current = &api.Summary{UUID: ident.UUID{1}, DomidBefore: 1, Sequence: 1} // it is waited for
		var stop context.CancelFunc
		h.ctx, stop = context.WithCancel(t.Context())
		o := h.daemon()
		op, err := o.Begin(t.Context(), rebootOfWeb)
		if err != nil {
			t.Fatal(err)
		}
		for h.times("graceful web") == 0 {
			time.Sleep(time.Millisecond)
		}
		if before {
			if _, err := o.Cancel(t.Context(), op.ID, "bob"); err != nil {
				t.Error(err)
			}
		}
		stop()
		h.engine.Wait()
		h.ctx = t.Context()
		o = h.daemon()
		if !before {
			if _, err := o.Cancel(t.Context(), op.ID, "bob"); err != nil {
				t.Error(err)
			}
		}
		op = ended(t, o, op.ID)
		if all := h.history(); op.State != api.OperationCancelled || len(all) != 1 || all[0].Outcome != api.OutcomeCancelled || h.times("graceful web") != 1 || h.times("withdraw web") != 1 {
			t.Errorf("cancelled before: %v: %+v, %+v, %q", before, op, all, h.asked)
		}
	}
}

// TestTimes: how long is waited, by the clock; not for ever, if nobody has said.
func TestTimes(t *testing.T) {
	h := newHost(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h.ctx = ctx
		defer cancel()
		h.let = make(chan struct{})
		o := h.daemon()
		r := rebootOfWeb
		r.TimeoutSeconds = 300
		begun := time.Now()
		if sum, err := api.Await(t.Context(), o, r); code(err) != api.TimedOut || sum.Domain != "web" || time.Since(begun) != 5*time.Minute {
			t.Errorf("%+v, %v after %v", sum, err, time.Since(begun))
		}
		begun = time.Now()
		if _, err := api.Await(t.Context(), o, rebootOfWeb); code(err) != api.TimedOut || time.Since(begun) != defaultTimeout {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		short, end := context.WithTimeout(t.Context(), time.Minute)
		defer end()
		begun = time.Now()
		if _, err := api.Await(short, o, rebootOfWeb); code(err) != api.TimedOut || time.Since(begun).Round(time.Second) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		cancel()
		h.engine.Wait()
	})
}

// TestKilledAfterEveryEffect: whatever the daemon was doing, the next one ends what an
// operator has asked for: one reboot at most, no lock left, and the truth is told, also
// to an operator who asks again.
func TestKilledAfterEveryEffect(t *testing.T) {
	dir := t.TempDir()
	for at := 1; ; at++ {
		h := newHost(t)
		h.dir = filepath.Join(dir, fmt.Sprint(at))
		h.ctx, h.kill = context.WithCancel(context.Background())
		h.dieAt = at
		r := rebootOfWeb
		r.Key, r.Owner = "k", "ann"
		done := make(chan struct{})
		go func() {
			defer close(done)
			o := h.daemon()
			op, err := o.Begin(h.ctx, r)
			if err != nil {
				t.Error(err)
				return
			}
			for range o.Follow(h.ctx, op.ID) {
			}
			h.engine.Wait()
		}()
		<-done
		if h.engine != nil {
			h.engine.Wait()
		}
		h.mu.Lock()
		died := h.dead
		h.dead, h.dieAt = false, 0
		h.mu.Unlock()
		h.kill()
		h.ctx = context.Background()
		before := len(h.asked)
		o := h.daemon()
		sum, err := api.Await(context.Background(), o, r)
		what := fmt.Sprintf("killed after effect %d: asked %q, %+v, %v, history %+v", at, h.asked, sum, err, h.history())
		rebooted := len(h.history()) == 1
		switch {
		case len(h.asked) > 1 || len(h.history()) > 1:
			t.Errorf("twice: %s", what)
		case rebooted != (err == nil) || rebooted != (len(h.asked) == 1):
			t.Errorf("not the truth: %s", what)
		case rebooted && (sum.Outcome != api.OutcomeWarm || h.history()[0].Operation == ""):
			t.Errorf("not told: %s", what)
		case !rebooted && code(err) != api.TimedOut:
			t.Errorf("not told why: %s", what)
		}
		if all := h.engine.List(); len(all) != 1 || !all[0].Done || len(h.kept.Locks(h.moment())) != 0 {
			t.Errorf("left %+v, %v: %s", all, h.kept.Locks(h.moment()), what)
		}
		h.engine.Wait()
		h.kept.Close()
		if !died {
			if at < 30 || before != 1 || err != nil {
				t.Errorf("without being killed: %s", what)
			}
			return
		}
	}
}

// TestTakenUp: an operation that had not come to its reboot when the daemon was stopped
// goes on to it, unless that is no longer what was asked for.
func TestTakenUp(t *testing.T) {
	ctx := context.Background()
	for what, c := range map[string]struct {
		meanwhile func(*host)
		says      string
	}{
		"at once":      {func(h *host) { h.pass(10 * time.Second) }, ""},
		"too late":     {func(h *host) { h.pass(7 * time.Minute) }, "its time is over"},
		"another boot": {func(h *host) { h.boot = "another" }, "its time is over"},
		"the clock is set": {func(h *host) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.now = h.now.Add(1000 * time.Hour)
		}, ""},
		"locked by another": {func(h *host) {
			_, _, err := h.kept.Unlock(ident.UUID{1}, h.moment())
			if err := errors.Join(err, h.kept.Lock(state.Lock{UUID: ident.UUID{1}, Domain: "web", Owner: "bob", TTL: 60}, h.moment())); err != nil {
				t.Fatal(err)
			}
		}, "locked by bob"},
		"gone": {func(h *host) {
			h.mu.Lock()
			defer h.mu.Unlock()
			delete(h.domains, "web")
		}, "no domain"},
	} {
		h := newHost(t)
		var stop context.CancelFunc
		h.ctx, stop = context.WithCancel(ctx)
		o := h.daemon()
		// It is stopped between its admission and its reboot.
		h.engine.Register(api.KindReboot, func(ctx context.Context, run *operation.Run) (any, error) {
			err := operation.Admit(ctx, run, operation.Admission{TTL: time.Hour})
			stop()
			return nil, errors.Join(err, ctx.Err())
		})
		r := rebootOfWeb
		r.TimeoutSeconds, r.Key = 300, "k"
		if _, err := o.Begin(ctx, r); err != nil {
			t.Fatal(err)
		}
		h.engine.Wait()
		if locks := h.kept.Locks(h.moment()); len(locks) != 1 {
			t.Errorf("%s: %v", what, locks)
		}
		c.meanwhile(h)
		h.ctx = ctx
		_, err := api.Await(ctx, h.daemon(), r)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) || (h.times("graceful web") == 1) != (err == nil) {
			t.Errorf("%s: %v, %q", what, err, h.asked)
		}
		for _, l := range h.kept.Locks(h.moment()) {
			if l.Operation != "" {
				t.Errorf("%s: left %v", what, l)
			}
		}
	}
}

// TestJoined: a forced reboot of a domain that has just gone down joins that reboot,
// and a daemon that takes it up still knows which that is.
func TestJoined(t *testing.T) {
	ctx := context.Background()
	h := newHost(t)
	h.let = make(chan struct{})
	h.domains["web"].Current = &api.Summary{UUID: ident.UUID{1}, DomidBefore: 1, Sequence: 1}
	h.domains["web"].Domid = 0
	var stop context.CancelFunc
	h.ctx, stop = context.WithCancel(ctx)
	r := rebootOfWeb
	r.Mode, r.Key = api.Force, "k"
	if _, err := h.daemon().Begin(ctx, r); err != nil {
		t.Fatal(err)
	}
	for h.times("force web") == 0 {
		time.Sleep(time.Millisecond)
	}
	stop()
	h.engine.Wait()
	h.ctx = ctx
	o := h.daemon()
	h.mu.Lock()
	d := h.domains["web"]
	last := *d.Current
	last.DomidAfter, last.Outcome, last.Trigger, last.Done = 9, api.OutcomeWarm, api.Crash, true
	d.Last, d.Current, d.Domid = &last, nil, 9
	h.mu.Unlock()
	if sum, err := api.Await(ctx, o, r); err != nil || sum.DomidAfter != 9 || h.times("force web") != 1 {
		t.Errorf("%+v, %v, %q", sum, err, h.asked)
	}
}
