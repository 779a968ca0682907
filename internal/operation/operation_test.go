package operation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/store"
)

var start = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// world is what operations do something to. It may end the daemon after each effect.
type world struct {
	dir string

	mu      sync.Mutex
	effects int
	dieAt   int // effect
	dead    bool
	did     []string
}

// effect is called after something has happened.
func (w *world) effect() {
	w.mu.Lock()
	w.effects++
	if w.effects == w.dieAt {
		w.dead = true
	}
	dead := w.dead
	w.mu.Unlock()
	if dead {
		runtime.Goexit()
	}
}

func (w *world) do(what string) {
	w.mu.Lock()
	dead := w.dead
	if !dead {
		w.did = append(w.did, what)
	}
	w.mu.Unlock()
	w.effect()
}

func (w *world) count(what string) (n int) {
	for _, d := range w.did {
		if d == what {
			n++
		}
	}
	return n
}

// trip is a body: two steps that may be repeated around one that may not.
func (w *world) trip(ctx context.Context, r *Run) (any, error) {
	var spec struct{ To string }
	if err := Spec(r, &spec); err != nil {
		return nil, err
	}
	n, err := Do(ctx, r, "pack", Again, func(context.Context) (int, error) { w.do("pack"); return 3, nil })
	if err != nil {
		return nil, err
	}
	said, err := Do(ctx, r, "leave", Once, func(context.Context) (string, error) { w.do("leave"); return "left for " + spec.To, nil })
	interrupted := errors.Is(err, ErrInterrupted)
	if err != nil && !interrupted {
		return nil, err
	}
	_, err = Do(ctx, r, "unpack", Again, func(context.Context) (bool, error) { w.do("unpack"); return true, nil })
	if err != nil {
		return nil, err
	}
	return fmt.Sprintf("%s, %d, interrupted %v", said, n, interrupted), nil
}

func (w *world) open(t *testing.T) *Engine {
	t.Helper()
	e, err := Open(Options{Dir: store.Dir{Path: w.dir, Step: func(string) error { w.effect(); return nil }}, Now: func() time.Time { return start },
		Bodies: map[string]Body{"trip": w.trip}, Failed: func(op Operation, err error) { t.Errorf("%s: %v", op.ID, err) }})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var request = Request{Kind: "trip", Key: "k1", Owner: "ann", Cause: "holidays", Domain: "web", UUID: ident.UUID{1}, Spec: map[string]string{"To": "Rome"}}

// TestKilledAfterEveryEffect: whatever it was doing, the next daemon ends it; what
// must not be done twice is not, and if it is not known to have been done, that is
// said.
func TestKilledAfterEveryEffect(t *testing.T) {
	dir := t.TempDir()
	for at := 1; ; at++ {
		w := &world{dir: filepath.Join(dir, fmt.Sprint(at)), dieAt: at}
		done := make(chan struct{})
		go func() {
			defer close(done)
			e := w.open(t)
			if _, err := e.Start(context.Background(), request); err != nil {
				t.Error(err)
			}
			e.Wait()
		}()
		<-done
		died := w.dead
		for w.dead {
			w.mu.Lock()
			w.dead, w.dieAt = false, 0
			w.mu.Unlock()
			e := w.open(t)
			e.Resume(context.Background())
			op, err := e.Start(context.Background(), request) // who asked does not know, and asks again
			if err != nil {
				t.Fatal(err)
			}
			if op, err = e.Await(context.Background(), op.ID); err != nil || op.Error != nil {
				t.Fatalf("killed after effect %d: %v, %+v", at, err, op)
			}
			e.Wait()
			if len(e.List()) != 1 {
				t.Errorf("killed after effect %d: %d operations", at, len(e.List()))
			}
			said := string(op.Result)
			if n := w.count("leave"); n > 1 || n == 0 && !strings.Contains(said, "interrupted true") {
				t.Errorf("killed after effect %d: left %d times, says %s", at, n, said)
			}
			if strings.Contains(said, "interrupted false") != strings.Contains(said, "left for Rome, 3") || w.count("pack") == 0 || w.count("unpack") == 0 {
				t.Errorf("killed after effect %d: %v, says %s", at, w.did, said)
			}
		}
		if !died {
			if at < 20 {
				t.Errorf("only %d effects", at)
			}
			if !slices.Equal(w.did, []string{"pack", "leave", "unpack"}) {
				t.Errorf("%v", w.did)
			}
			return
		}
	}
}

// TestStopped: a daemon that is told to stop leaves the rest to the next.
func TestStopped(t *testing.T) {
	w := &world{dir: t.TempDir()}
	ctx, cancel := context.WithCancel(context.Background())
	e := w.open(t)
	begun := make(chan struct{})
	e.o.Bodies["trip"] = func(ctx context.Context, r *Run) (any, error) {
		return Do(ctx, r, "wait", Again, func(ctx context.Context) (int, error) { close(begun); <-ctx.Done(); return 0, ctx.Err() })
	}
	op, err := e.Start(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	cancel()
	e.Wait()
	if op, _, ok := e.Get(op.ID); !ok || op.Done {
		t.Errorf("%+v", op)
	}
	e = w.open(t)
	e.o.Bodies["trip"] = func(ctx context.Context, r *Run) (any, error) {
		if !r.Resumed() || !r.Begun() {
			t.Error("it does not know that it was begun")
		}
		return Do(ctx, r, "wait", Again, func(context.Context) (int, error) { return 7, nil })
	}
	e.Resume(context.Background())
	if op, err = e.Await(context.Background(), op.ID); err != nil || string(op.Result) != "7" || op.Taken != 1 || op.Owner != "ann" || op.Cause != "holidays" {
		t.Errorf("%+v, %v", op, err)
	}
	short, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := e.Await(short, "none"); err == nil {
		t.Error("there is none")
	}
}

func TestErrorsAndKeys(t *testing.T) {
	w := &world{dir: t.TempDir()}
	e := w.open(t)
	e.o.Bodies["trip"] = func(ctx context.Context, r *Run) (any, error) {
		return Do(ctx, r, "fail", Once, func(context.Context) (string, error) { return "half", api.Errorf(api.TimedOut, "the train is late") })
	}
	ctx := context.Background()
	op, err := e.Start(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // also as the next daemon reads it
		if op, err = e.Await(ctx, op.ID); err != nil || op.Error == nil || op.Error.Code != api.TimedOut || string(op.Result) != `"half"` {
			t.Errorf("%+v, %v", op, err)
		}
		if again, err := e.Start(ctx, request); err != nil || again.ID != op.ID {
			t.Errorf("asked again: %+v, %v", again, err)
		}
		other := request
		other.UUID = ident.UUID{2}
		if _, err := e.Start(ctx, other); err == nil {
			t.Error("one key for two domains")
		}
		e.Wait()
		e = w.open(t)
	}
	if _, err := e.Start(ctx, Request{Kind: "none"}); err == nil {
		t.Error("no kind")
	}
}

// TestAnotherVersion: a body that does other steps than the journal has ends.
func TestAnotherVersion(t *testing.T) {
	w := &world{dir: t.TempDir()}
	e := w.open(t)
	ctx, cancel := context.WithCancel(context.Background())
	e.o.Bodies["trip"] = func(ctx context.Context, r *Run) (any, error) {
		return Do(ctx, r, "old", Again, func(ctx context.Context) (int, error) { cancel(); return 0, ctx.Err() })
	}
	op, err := e.Start(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	e.Wait()
	e = w.open(t)
	e.Resume(context.Background())
	if op, err = e.Await(context.Background(), op.ID); err != nil || op.Error == nil || op.Error.Code != api.VersionSkew || len(w.did) != 0 {
		t.Errorf("%+v, %v, %v", op, err, w.did)
	}
}

// TestBoundAndDamage: those that have ended are forgotten when there are too many;
// one that is damaged costs no other.
func TestBoundAndDamage(t *testing.T) {
	w := &world{dir: t.TempDir()}
	e := w.open(t)
	e.o.Dir.Step = nil
	for i := range keep + 5 {
		op := Operation{ID: fmt.Sprintf("%015x-00000000", i), Kind: "trip", Done: i != 3}
		if err := e.write(op); err != nil {
			t.Fatal(err)
		}
		e.set(op)
	}
	e.forget()
	if all := e.List(); len(all) != keep+1 || all[0].Done || all[1].ID != fmt.Sprintf("%015x-00000000", 5) {
		t.Errorf("%d are left, first %+v", len(all), all[0])
	}
	name := fmt.Sprintf("%015x-00000000%s", 9, suffix)
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Open(e.o)
	if again == nil || err == nil || !strings.Contains(err.Error(), name) || len(again.List()) != keep {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(w.dir, name+".corrupt")); err != nil {
		t.Error(err)
	}
}

// TestFull: what cannot be journalled is not begun.
func TestFull(t *testing.T) {
	w := &world{dir: t.TempDir()}
	e := w.open(t)
	full := errors.New("no space left")
	e.o.Dir.Step = func(string) error { return full }
	if _, err := e.Start(context.Background(), request); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	e.Wait()
	if len(w.did) != 0 || len(e.List()) != 0 {
		t.Errorf("%v, %v", w.did, e.List())
	}
	e.o.Dir.Step = nil
	if _, err := e.Start(context.Background(), request); err != nil {
		t.Error(err)
	}
	e.Wait()
	if len(w.did) != 3 {
		t.Errorf("%v", w.did)
	}
}

func TestBlocked(t *testing.T) {
	asked := 0
	yes := BlockerFunc(func(Target) error { asked++; return nil })
	no := BlockerFunc(func(q Target) error { return errors.New(q.Domain + " is locked") })
	if err := Blocked(Target{Domain: "web"}, yes, no, yes); err == nil || err.Error() != "web is locked" || asked != 1 {
		t.Errorf("%v, %d asked", err, asked)
	}
	if err := Blocked(Target{}, yes, yes); err != nil {
		t.Error(err)
	}
}
