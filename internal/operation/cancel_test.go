package operation

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/api"
)

func code(err error) api.Code {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// errand is a body that may be cancelled until it leaves, and while it is under way, if
// it turns back. It unpacks in any case.
type errand struct {
	w *world
	e *Engine
	// cancels is where it is cancelled: "", "pack", "between", "leave".
	cancels string
	back    func() error
	err     error // of the cancellation
}

func (n *errand) at(r *Run, where string) {
	if n.cancels == where {
		_, n.err = n.e.Cancel(r.Operation().ID, "bob")
	}
}

func (n *errand) body(ctx context.Context, r *Run) (any, error) {
	step := func(name string, how How, do func(context.Context) error) error {
		_, err := Do(ctx, r, name, how, func(ctx context.Context) (bool, error) { return true, do(ctx) })
		return err
	}
	do := func(what string) func(context.Context) error {
		return func(context.Context) error { n.w.do(what); n.at(r, what); return nil }
	}
	err := Admit(ctx, r, Admission{})
	if err == nil {
		err = step("pack", Again, do("pack"))
	}
	if err == nil {
		n.at(r, "between")
		err = r.Cancelled()
	}
	if err == nil {
		err = r.Commit(n.back)
	}
	if err == nil {
		err = step("leave", Again, func(ctx context.Context) error {
			wanted, end := r.Unless(ctx)
			defer end()
			n.w.do("leave")
			n.at(r, "leave")
			if n.back != nil && n.cancels == "leave" && n.err == nil {
				<-wanted.Done()
			}
			return context.Cause(wanted)
		})
		r.Settled()
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return "unpacked", errors.Join(err, step("unpack", Again, do("unpack")))
}

func (n *errand) open(t *testing.T) *Engine {
	n.e = n.w.open(t.Context(), t)
	n.e.Register("trip", n.body)
	return n.e
}

// TestCancel: an operation that is cancelled does not do what it is for, does what is to
// be done all the same, and says who cancelled it; one that has come too far goes on.
func TestCancel(t *testing.T) {
	refuses := errors.New("on its way")
	for what, c := range map[string]struct {
		cancels string
		back    func() error
		left    int
		err     error // of the cancellation
	}{
		"not":               {"", nil, 1, nil},
		"before":            {"pack", nil, 0, nil},
		"between":           {"between", nil, 0, nil},
		"meanwhile":         {"leave", nil, 1, api.Errorf(api.Locked, "too far")},
		"turned back":       {"leave", func() error { return nil }, 1, nil},
		"did not turn back": {"leave", func() error { return refuses }, 1, refuses},
		"after":             {"unpack", func() error { return nil }, 1, api.Errorf(api.Locked, "too far")},
	} {
		n := &errand{w: &world{dir: t.TempDir()}, cancels: c.cancels, back: c.back}
		e := n.open(t)
		op, err := e.Start(request)
		if err != nil {
			t.Fatal(err)
		}
		if op, err = await(e, op.ID); err != nil {
			t.Fatal(err)
		}
		cancelled := c.cancels != "" && c.err == nil
		switch {
		case code(n.err) != code(c.err) || c.err == refuses && n.err != refuses:
			t.Errorf("%s: %v", what, n.err)
		case cancelled != (op.Cancelled != nil) || cancelled && (op.Cancelled.By != "bob" || !op.Cancelled.At.Equal(start)):
			t.Errorf("%s: %+v", what, op)
		case cancelled != (op.Error != nil) || cancelled && (op.Error.Code != api.Cancelled || !strings.Contains(op.Error.Message, "cancelled by bob")):
			t.Errorf("%s: %+v", what, op.Error)
		case n.w.count("leave") != c.left || n.w.count("unpack") != 1 || len(n.w.locks) != 0:
			t.Errorf("%s: %q, %v", what, n.w.did, n.w.locks)
		}
		if _, err := e.Cancel(op.ID, "bob"); cancelled != (err == nil) || !cancelled && code(err) != api.BadRequest {
			t.Errorf("%s: when it has ended: %v", what, err)
		}
		if _, err := e.Cancel("none", "bob"); code(err) != api.NotFound {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestCancelledAndKilled: an operation that is cancelled is so for the next daemon, too,
// wherever the first is killed.
func TestCancelledAndKilled(t *testing.T) {
	dir := t.TempDir()
	for _, cancels := range []string{"pack", "leave"} {
		for at := 1; ; at++ {
			n := &errand{w: &world{dir: filepath.Join(dir, cancels+fmt.Sprint(at)), dieAt: at}, cancels: cancels, back: func() error { return nil }}
			done := make(chan struct{})
			go func() {
				defer close(done)
				if _, err := n.open(t).Start(request); err != nil {
					t.Error(err)
				}
				n.e.Wait()
			}()
			<-done
			died := n.w.dead
			n.w.mu.Lock()
			n.w.dead, n.w.dieAt = false, 0
			n.w.mu.Unlock()
			e := n.open(t)
			e.Resume()
			op, err := e.Start(request)
			if err != nil {
				t.Fatal(err)
			}
			if op, err = await(e, op.ID); err != nil {
				t.Fatal(err)
			}
			e.Wait()
			what := fmt.Sprintf("cancelled at %s, killed after effect %d: %q, %+v, %v", cancels, at, n.w.did, op, op.Error)
			if op.Cancelled == nil || op.Error == nil || op.Error.Code != api.Cancelled || n.w.count("unpack") == 0 || len(n.w.locks) != 0 {
				t.Error(what)
			}
			if cancels != "leave" && n.w.count("leave") != 0 {
				t.Error(what)
			}
			if !died {
				if at < 15 {
					t.Error(what)
				}
				break
			}
		}
	}
}

// TestCancelNotJournalled: what cannot be journalled is not cancelled, and goes on.
func TestCancelNotJournalled(t *testing.T) {
	n := &errand{w: &world{dir: t.TempDir()}}
	e := n.open(t)
	fail := false
	e.o.Dir.Step = func(string) error {
		if fail {
			return errors.New("no space left")
		}
		return nil
	}
	e.Register("trip", func(ctx context.Context, r *Run) (any, error) {
		fail = true
		_, n.err = e.Cancel(r.Operation().ID, "bob")
		fail = false
		return nil, r.Cancelled()
	})
	op, err := e.Start(request)
	if err != nil {
		t.Fatal(err)
	}
	if op, err = await(e, op.ID); err != nil || op.Cancelled != nil || op.Error != nil || code(n.err) != api.Failed || !strings.Contains(n.err.Error(), "make room") {
		t.Errorf("%+v, %v, %v", op, err, n.err)
	}
}
