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
	"github.com/warmreboot/warmreboot/internal/store/inmemory"
)

func TestMain(m *testing.M) { inmemory.Main(m) }

var start = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// world is what operations do something to. It may end the daemon after each effect.
type world struct {
	dir string

	mu      sync.Mutex
	effects int
	dieAt   int // effect
	dead    bool
	did     []string
	locks   map[ident.UUID]string // survive it: domain -> operation
}

// Blocks, Lock and Unlock implement Locks.

func (w *world) Blocks(_ context.Context, t Target) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if by := w.locks[t.UUID]; by != "" && by != t.Operation {
		return api.Errorf(api.Locked, "%s is locked by %s", t.Domain, by)
	}
	return nil
}

func (w *world) Lock(o Operation, _ time.Duration) error {
	if err := w.Blocks(context.Background(), Target{Domain: o.Domain, UUID: o.UUID, Operation: o.ID}); err != nil {
		return err
	}
	w.mu.Lock()
	if !w.dead {
		w.locks[o.UUID] = o.ID
	}
	w.mu.Unlock()
	w.effect()
	return nil
}

func (w *world) Unlock(o Operation) error {
	w.mu.Lock()
	if !w.dead && w.locks[o.UUID] == o.ID {
		delete(w.locks, o.UUID)
	}
	w.mu.Unlock()
	w.effect()
	return nil
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
	if err := Admit(ctx, r, Admission{TTL: time.Hour}); err != nil {
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

func (w *world) open(ctx context.Context, t *testing.T) *Engine {
	t.Helper()
	if w.locks == nil {
		w.locks = map[ident.UUID]string{}
	}
	e, err := Open(ctx, Options{Dir: store.Dir{Path: w.dir, Step: func(string) error { w.effect(); return nil }}, Now: func() time.Time { return start },
		Locks: w, Failed: func(op Operation, err error) { t.Errorf("%s: %v", op.ID, err) }})
	if err != nil {
		t.Fatal(err)
	}
	e.Register("trip", w.trip)
	return e
}

// await waits for an operation's end.
func await(e *Engine, id string) (op Operation, err error) {
	for op, err = range e.Follow(context.Background(), id) {
		if err != nil {
			return op, err
		}
	}
	return op, err
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
			e := w.open(context.Background(), t)
			if _, err := e.Start(request); err != nil {
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
			e := w.open(context.Background(), t)
			e.Resume()
			op, err := e.Start(request) // who asked does not know, and asks again
			if err != nil {
				t.Fatal(err)
			}
			if op, err = await(e, op.ID); err != nil || op.Error != nil {
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
			if len(w.locks) != 0 {
				t.Errorf("killed after effect %d: left %v", at, w.locks)
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
	e := w.open(ctx, t)
	begun := make(chan struct{})
	e.bodies["trip"] = func(ctx context.Context, r *Run) (any, error) {
		return Do(ctx, r, "wait", Again, func(ctx context.Context) (int, error) { close(begun); <-ctx.Done(); return 0, ctx.Err() })
	}
	op, err := e.Start(request)
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	cancel()
	e.Wait()
	if op, _, ok := e.Get(op.ID); !ok || op.Done {
		t.Errorf("%+v", op)
	}
	var code *api.Error
	if _, err := e.Start(Request{Kind: "trip"}); !errors.As(err, &code) || code.Code != api.AgentDown {
		t.Errorf("begun after the end: %v", err)
	}
	e = w.open(context.Background(), t)
	e.bodies["trip"] = func(ctx context.Context, r *Run) (any, error) {
		if !r.Resumed() || !r.Begun() {
			t.Error("it does not know that it was begun")
		}
		return Do(ctx, r, "wait", Again, func(context.Context) (int, error) { return 7, nil })
	}
	e.Resume()
	if op, err = await(e, op.ID); err != nil || string(op.Result) != "7" || op.Taken != 1 || op.Owner != "ann" || op.Cause != "holidays" {
		t.Errorf("%+v, %v", op, err)
	}
	if _, err := await(e, "none"); err == nil {
		t.Error("there is none")
	}
}

func TestErrorsAndKeys(t *testing.T) {
	w := &world{dir: t.TempDir()}
	ctx := context.Background()
	e := w.open(ctx, t)
	e.bodies["trip"] = func(ctx context.Context, r *Run) (any, error) {
		return Do(ctx, r, "fail", Once, func(context.Context) (string, error) { return "half", api.Errorf(api.TimedOut, "the train is late") })
	}
	op, err := e.Start(request)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // also as the next daemon reads it
		if op, err = await(e, op.ID); err != nil || op.Error == nil || op.Error.Code != api.TimedOut || string(op.Result) != `"half"` {
			t.Errorf("%+v, %v", op, err)
		}
		if again, err := e.Start(request); err != nil || again.ID != op.ID {
			t.Errorf("asked again: %+v, %v", again, err)
		}
		other := request
		other.Spec = map[string]string{"To": "Oslo"}
		if _, err := e.Start(other); err == nil {
			t.Error("one key for two requests")
		}
		if _, ok, err := e.Find(other); !ok || err == nil {
			t.Error("one key for two requests")
		}
		e.Wait()
		e = w.open(ctx, t)
	}
	if _, err := e.Start(Request{Kind: "none"}); err == nil {
		t.Error("no kind")
	}
}

// TestOddName: the journal has a name of any bytes as it is shown.
func TestOddName(t *testing.T) {
	w := &world{dir: t.TempDir()}
	e := w.open(context.Background(), t)
	odd := request
	odd.Domain, odd.Owner, odd.Spec = "caf\xe9", "J\xfcrgen", map[string]string{"To": "K\xf6ln"}
	op, err := e.Start(odd)
	if err != nil {
		t.Fatal(err)
	}
	e.Wait()
	e = w.open(context.Background(), t)
	op, err = await(e, op.ID)
	if err != nil || op.Domain != `caf\xe9` || op.Owner != `J\xfcrgen` || !strings.Contains(string(op.Result), `left for K\\xf6ln`) {
		t.Errorf("%+v, %s, %v", op, op.Result, err)
	}
	if again, err := e.Start(odd); err != nil || again.ID != op.ID {
		t.Errorf("asked again: %+v, %v", again, err)
	}
}

// TestAnotherVersion: a body that does other steps than the journal has ends.
func TestAnotherVersion(t *testing.T) {
	w := &world{dir: t.TempDir()}
	ctx, cancel := context.WithCancel(context.Background())
	e := w.open(ctx, t)
	e.bodies["trip"] = func(ctx context.Context, r *Run) (any, error) {
		return Do(ctx, r, "old", Again, func(ctx context.Context) (int, error) { cancel(); return 0, ctx.Err() })
	}
	op, err := e.Start(request)
	if err != nil {
		t.Fatal(err)
	}
	e.Wait()
	e = w.open(context.Background(), t)
	e.Resume()
	if op, err = await(e, op.ID); err != nil || op.Error == nil || op.Error.Code != api.VersionSkew || len(w.did) != 0 {
		t.Errorf("%+v, %v, %v", op, err, w.did)
	}
}

// TestBoundAndDamage: those that have ended are forgotten when there are too many;
// one that is damaged costs no other.
func TestBoundAndDamage(t *testing.T) {
	w := &world{dir: t.TempDir()}
	e := w.open(context.Background(), t)
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
	again, err := Open(context.Background(), e.o)
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
	e := w.open(context.Background(), t)
	full := errors.New("no space left")
	e.o.Dir.Step = func(string) error { return full }
	if _, err := e.Start(request); err == nil || !strings.Contains(err.Error(), full.Error()) {
		t.Errorf("%v", err)
	}
	e.Wait()
	if len(w.did) != 0 || len(e.List()) != 0 {
		t.Errorf("%v, %v", w.did, e.List())
	}
	e.o.Dir.Step = nil
	if _, err := e.Start(request); err != nil {
		t.Error(err)
	}
	e.Wait()
	if len(w.did) != 3 {
		t.Errorf("%v", w.did)
	}
}

// TestFullMeanwhile: after a step that cannot be journalled none is done, whatever the
// body tries: in the journal it would be in the place of the other.
func TestFullMeanwhile(t *testing.T) {
	full := errors.New("no space left")
	e, err := Open(context.Background(), Options{Dir: store.Dir{Path: t.TempDir()}, Locks: &world{}, Failed: func(Operation, error) {}})
	if err != nil {
		t.Fatal(err)
	}
	did := 0
	step := func(context.Context) (int, error) { did++; return did, nil }
	e.Register("trip", func(ctx context.Context, r *Run) (any, error) {
		if _, err := Do(ctx, r, "pack", Again, step); err != nil {
			t.Error(err)
		}
		e.o.Dir.Step = func(string) error { return full }
		_, first := Do(ctx, r, "leave", Again, step)
		e.o.Dir.Step = nil
		_, second := Do(ctx, r, "stay", Again, step)
		if !errors.Is(first, full) || !errors.Is(second, full) {
			t.Errorf("%v, %v", first, second)
		}
		return nil, second
	})
	op, err := e.Start(request)
	if err != nil {
		t.Fatal(err)
	}
	if op, err = await(e, op.ID); err != nil || did != 1 || len(op.Steps) != 1 || op.Error == nil || !strings.Contains(op.Error.Message, "leave") {
		t.Errorf("%+v, %v, %d", op, err, did)
	}
}

// TestAdmission: all operations ask the same blockers and hold the domain until they
// have ended; those that insist are in nobody's way, and take nobody's lock.
func TestAdmission(t *testing.T) {
	w := &world{dir: t.TempDir()}
	e := w.open(context.Background(), t)
	asked := 0
	closed := false
	e.Ask(BlockerFunc(func(_ context.Context, q Target) error {
		asked++
		if closed {
			return api.Errorf(api.Locked, "%s is closed", q.Domain).Try(api.TryOverride)
		}
		return nil
	}), BlockerFunc(func(context.Context, Target) error { asked++; return nil }))
	let := make(chan struct{})
	stay := func(override bool) Body {
		return func(ctx context.Context, r *Run) (any, error) {
			if err := Admit(ctx, r, Admission{Override: override, TTL: time.Hour}); err != nil {
				return nil, err
			}
			return Do(ctx, r, "stay", Again, func(context.Context) (bool, error) { <-let; return true, nil })
		}
	}
	e.Register("stay", stay(false))
	e.Register("insist", stay(true))
	begin := func(kind api.OperationKind, owner string) Operation {
		t.Helper()
		op, err := e.Start(Request{Kind: kind, Owner: owner, Domain: "web", UUID: ident.UUID{1}})
		if err != nil {
			t.Fatal(err)
		}
		return op
	}
	first := begin("stay", "ann")
	for op, err := range e.Follow(context.Background(), first.ID) {
		if err != nil {
			t.Fatal(err)
		}
		if op.Admitted() {
			break
		}
	}
	if asked != 2 {
		t.Errorf("%d blockers were asked", asked)
	}
	// Another of the same owner is not the first.
	op, err := await(e, begin("stay", "ann").ID)
	if err != nil || op.Error == nil || op.Error.Code != api.Locked || op.Admitted() || w.locks[op.UUID] != first.ID {
		t.Errorf("%+v, %v, %v", op, err, w.locks)
	}
	asked = 0
	closed = true
	insisting := begin("insist", "bob")
	close(let)
	for _, id := range []string{insisting.ID, first.ID} {
		if op, err := await(e, id); err != nil || op.Error != nil || op.Admitted() {
			t.Errorf("%+v, %v", op, err)
		}
	}
	if asked != 0 || len(w.locks) != 0 {
		t.Errorf("%d asked, left %v", asked, w.locks)
	}
	op, err = await(e, begin("stay", "ann").ID)
	if err != nil || op.Error == nil || op.Error.Message != "web is closed" || op.Error.Hint != api.TryOverride || asked != 1 || len(w.locks) != 0 {
		t.Errorf("%+v, %v, %d asked, %v", op, err, asked, w.locks)
	}
}

// TestManyRun: there is an end of operations that run; none of them is forgotten.
func TestManyRun(t *testing.T) {
	w := &world{dir: t.TempDir()}
	ctx, cancel := context.WithCancel(context.Background())
	e := w.open(ctx, t)
	e.o.Dir.Step = nil
	e.Register("stay", func(ctx context.Context, _ *Run) (any, error) { <-ctx.Done(); return nil, ctx.Err() })
	for i := range most {
		e.all[fmt.Sprint(i)] = Operation{ID: fmt.Sprint(i)}
	}
	var code *api.Error
	if _, err := e.Start(Request{Kind: "stay"}); !errors.As(err, &code) || code.Code != api.Locked {
		t.Errorf("%v", err)
	}
	e.forget()
	if n := len(e.List()); n != most {
		t.Errorf("%d are left", n)
	}
	delete(e.all, "0")
	if _, err := e.Start(Request{Kind: "stay"}); err != nil {
		t.Error(err)
	}
	cancel()
	e.Wait()
}
