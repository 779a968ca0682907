// Package operation does what somebody asked for as one sequence of steps that is
// journalled: with an id, an owner and a cause. It is taken up where it was by the
// daemon that is started after the one that was doing it was killed.
//
// What is done is an ordinary function, a Body, that does each of its effects by Do.
// When it is taken up it is called again from its beginning, and what it had done is
// not done again: Do returns what it returned then. So a body must ask nothing that
// may have changed but by Do, and do nothing either.
//
// A step that had begun, and of which nobody knows whether it ended, is done again or
// not, as its How says. None is done twice that must not be.
//
// What is done to a domain is admitted first, see Admit: all operations alike ask the
// same blockers, and hold the domain's lock until they have ended.
package operation

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/store"
	"github.com/warmreboot/warmreboot/internal/text"
)

// Operation is one, as it is journalled.
type Operation struct {
	ID   string            `json:"id"`
	Kind api.OperationKind `json:"kind"` // whose body it is
	// Key is the asker's own name for it: who asks with the same key again is given
	// the same operation.
	Key string `json:"key,omitempty"`
	// By is what kind of an owner asked, Schedule which one if it was a schedule.
	By       api.Origin `json:"by"`
	Schedule string     `json:"schedule,omitempty"`
	// Owner is who asked, Cause why.
	Owner  string     `json:"owner"`
	Cause  string     `json:"cause,omitempty"`
	Domain string     `json:"domain"`
	UUID   ident.UUID `json:"uuid"`
	// Spec is what the body has to know: it may be another program then.
	Spec json.RawMessage `json:"spec,omitempty"`
	Made time.Time       `json:"made"`
	// Boot and Up are the host's boot, and the time since then, when it was made.
	Boot string  `json:"boot"`
	Up   float64 `json:"up_seconds"`
	// Steps are those that have begun, in that order.
	Steps []Step `json:"steps"`
	// Taken is how often it was taken up by another daemon.
	Taken int `json:"taken,omitempty"`
	// Cancelled: somebody does not want it any more; see Engine.Cancel. Told is how many
	// steps had begun when the body was told; nil: it was not, or while it did one.
	Cancelled *api.Cancellation `json:"cancelled,omitempty"`
	Told      *int              `json:"told,omitempty"`
	// Done: nothing will be done any more. Result and Error are what came of it.
	Done   bool            `json:"done"`
	Ended  time.Time       `json:"ended,omitzero"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *api.Error      `json:"error,omitempty"`

	rev uint64 // of what is shown: grows with each change
}

// Step is one of an operation.
type Step struct {
	Name  string    `json:"name"`
	Begun time.Time `json:"begun"`
	// Done: it has ended, with Result, or Error.
	Done   bool            `json:"done"`
	Ended  time.Time       `json:"ended,omitzero"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *api.Error      `json:"error,omitempty"`
}

// Request is what is asked for; see Operation.
type Request struct {
	Kind                 api.OperationKind
	By                   api.Origin
	Key, Schedule        string
	Owner, Cause, Domain string
	UUID                 ident.UUID
	Spec                 any
}

// Body does an operation. If it returns because its context has ended, the operation
// has not: the next daemon takes it up.
type Body func(ctx context.Context, r *Run) (result any, err error)

// Options are what an engine needs.
type Options struct {
	// Dir is a folder of its own.
	Dir   store.Dir
	Locks Locks
	Now   func() time.Time
	// Boot identifies the boot of the host, Uptime is the time since then.
	Boot   string
	Uptime func() time.Duration
	// Failed is told of an operation that could not be journalled, or not be unlocked.
	Failed func(Operation, error)
}

// Engine does operations, each in a goroutine of its own.
type Engine struct {
	o         Options
	ctx       context.Context
	wg        sync.WaitGroup
	bodies    map[api.OperationKind]Body
	blockers  []Blocker
	starting  sync.Mutex // held while one is begun: nobody sees it before it is journalled
	admitting sync.Mutex // held over an admission

	mu      sync.Mutex
	all     map[string]Operation // never changed, but replaced
	runs    map[string]*Run      // of those that have not ended
	changed chan struct{}        // is closed when one of all is
	rev     uint64
}

const (
	suffix = ".op"
	// keep is how many operations that have ended are remembered, most how many may
	// run.
	keep = 256
	most = 1000
)

var kind = store.Kind{Name: "operation", Version: 1, Limit: 1 << 20}

// Open reads the journal; nothing is done before Resume. All is done until ctx ends.
// A file that is damaged is set aside and named in the error, with which there is an
// engine nevertheless; otherwise it is nil.
func Open(ctx context.Context, o Options) (*Engine, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Failed == nil {
		o.Failed = func(Operation, error) {}
	}
	if o.Uptime == nil {
		o.Uptime = func() time.Duration { return 0 }
	}
	e := &Engine{o: o, ctx: ctx, bodies: map[api.OperationKind]Body{}, blockers: []Blocker{o.Locks}, all: map[string]Operation{}, runs: map[string]*Run{}, changed: make(chan struct{})}
	if err := o.Dir.Make(); err != nil {
		return nil, err
	}
	names, err := o.Dir.Names(suffix)
	if err != nil {
		return nil, err
	}
	var damaged []error
	for _, name := range names {
		_, body, err := o.Dir.Read(name, kind)
		var op Operation
		if err == nil && json.Unmarshal(body, &op) != nil || err == nil && op.ID+suffix != name {
			err = fmt.Errorf("%s: %w", name, store.ErrDamaged)
		}
		switch {
		case err == nil:
			e.all[op.ID] = op
		case errors.Is(err, store.ErrDamaged):
			to, aside := o.Dir.SetAside(name)
			if aside != nil {
				return nil, errors.Join(err, aside)
			}
			damaged = append(damaged, fmt.Errorf("an operation is lost: %w; it is kept as %s", err, to))
		default:
			return nil, err
		}
	}
	return e, errors.Join(damaged...)
}

// Register says who does operations of a kind: before Resume, and before any is
// begun.
func (e *Engine) Register(kind api.OperationKind, body Body) { e.bodies[kind] = body }

// Ask has all operations ask some blockers, after those that they ask already:
// before Resume, and before any is begun.
func (e *Engine) Ask(b ...Blocker) { e.blockers = append(e.blockers, b...) }

// Resume takes up what has not ended.
func (e *Engine) Resume() {
	for _, op := range e.List() {
		if !op.Done {
			op.Taken++
			e.start(op)
		}
	}
}

// Find returns the operation that there is of a request's key; ok is false if there is
// none. That it was another request's is an error.
func (e *Engine) Find(q Request) (op Operation, ok bool, err error) {
	spec, err := text.Marshal(q.Spec)
	if err != nil {
		return op, false, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.find(q, spec)
}

// find is Find. e.mu is held.
func (e *Engine) find(q Request, spec []byte) (op Operation, ok bool, err error) {
	if q.Key == "" {
		return op, false, nil
	}
	for _, o := range e.all {
		switch {
		case o.Key != q.Key:
		case o.Kind != q.Kind || !bytes.Equal(o.Spec, spec):
			return o, true, api.Errorf(api.BadRequest, "the key %q is that of operation %s, which is another request", q.Key, o.ID)
		default:
			return o, true, nil
		}
	}
	return op, false, nil
}

// Start begins an operation and returns it at once; it is journalled then. If there
// is one of that key, that is returned.
func (e *Engine) Start(q Request) (Operation, error) {
	if e.bodies[q.Kind] == nil {
		return Operation{}, api.Errorf(api.BadRequest, "there is no kind of operations %q", q.Kind)
	}
	spec, err := text.Marshal(q.Spec)
	if err != nil {
		return Operation{}, err
	}
	e.starting.Lock()
	defer e.starting.Unlock()
	op, there, err := e.make(q, spec)
	if there || err != nil {
		return op, err
	}
	if err := e.write(op); err != nil {
		return Operation{}, api.Errorf(api.Failed, "the operation cannot be journalled, so it is not begun: %v; make room in the state directory", err)
	}
	e.start(op)
	e.forget()
	return op, nil
}

// make makes an operation, or returns the one that is there.
func (e *Engine) make(q Request, spec []byte) (op Operation, there bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if op, there, err = e.find(q, spec); there || err != nil {
		return op, there, err
	}
	running := 0
	for _, o := range e.all {
		if !o.Done {
			running++
		}
	}
	switch {
	case e.ctx.Err() != nil:
		return op, false, api.Errorf(api.AgentDown, "warmrebootd stops")
	case running >= most:
		return op, false, api.Errorf(api.Locked, "%d operations run already", running)
	}
	now := e.o.Now()
	return Operation{ID: newID(now), Kind: q.Kind, Key: q.Key, By: q.By, Schedule: q.Schedule, Owner: q.Owner, Cause: q.Cause,
		Domain: q.Domain, UUID: q.UUID, Spec: spec, Made: now, Boot: e.o.Boot, Up: e.o.Uptime().Seconds(), Steps: []Step{}}, false, nil
}

func newID(now time.Time) string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails
	return fmt.Sprintf("%015x-%s", uint64(now.UnixMilli()), hex.EncodeToString(b[:]))
}

func (e *Engine) start(op Operation) {
	r := &Run{e: e, op: op, there: make(chan struct{})}
	r.arrive = sync.OnceFunc(func() { close(r.there) })
	if op.Taken == 0 {
		r.arrive()
	}
	r.wanted, r.drop = context.WithCancelCause(context.Background())
	if op.Cancelled != nil {
		r.drop(r.wasCancelled())
	}
	e.mu.Lock()
	e.runs[op.ID] = r
	e.mu.Unlock()
	r.show()
	e.wg.Add(1)
	go func() {
		defer e.wg.Done()
		if op.Taken > 0 {
			r.journal()
		}
		body := e.bodies[op.Kind]
		if body == nil {
			body = func(context.Context, *Run) (any, error) {
				return nil, api.Errorf(api.VersionSkew, "this warmrebootd knows no operation %q", op.Kind)
			}
		}
		result, err := body(e.ctx, r)
		if e.ctx.Err() != nil && (err != nil || r.stopped) {
			return // the next daemon goes on
		}
		if r.skew != nil {
			err = r.skew
		}
		r.end(result, err)
	}()
}

// end is that nothing is done any more.
func (r *Run) end(result any, err error) {
	r.arrive()
	r.mu.Lock()
	defer r.mu.Unlock()
	op := r.op
	if err := r.e.o.Locks.Unlock(op); err != nil {
		r.e.o.Failed(op, err)
	}
	op.Done, op.Ended, op.Error = true, r.e.o.Now(), asError(err)
	if op.Result, err = text.Marshal(result); err != nil {
		op.Result = nil
	}
	if err := r.e.write(op); err != nil {
		// It is taken up again, and finds that all has been done.
		r.e.o.Failed(op, err)
	}
	r.e.mu.Lock()
	delete(r.e.runs, op.ID)
	r.e.mu.Unlock()
	r.op = r.e.set(op)
}

func asError(err error) *api.Error {
	var e *api.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e) && e.Message == err.Error():
		return e
	case e != nil:
		return api.Errorf(e.Code, "%v", err).Try(e.Hint)
	}
	return api.Errorf(api.Failed, "%v", err)
}

// Wait waits until nothing is done any more: after the context that they were
// started with has ended.
func (e *Engine) Wait() { e.wg.Wait() }

func (e *Engine) write(op Operation) error {
	raw, err := text.Marshal(op)
	if err != nil {
		return err
	}
	return e.o.Dir.Write(op.ID+suffix, kind, raw)
}

func (e *Engine) set(op Operation) Operation {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rev++
	op.rev = e.rev
	e.all[op.ID] = op
	close(e.changed)
	e.changed = make(chan struct{})
	return op
}

// forget forgets the first of those that have ended, if there are too many.
func (e *Engine) forget() {
	all := e.List()
	all = slices.DeleteFunc(all, func(o Operation) bool { return !o.Done })
	for ; len(all) > keep; all = all[1:] {
		if e.o.Dir.Remove(all[0].ID+suffix) != nil {
			return // there will be another time
		}
		e.mu.Lock()
		delete(e.all, all[0].ID)
		e.mu.Unlock()
	}
}

// List returns all that are remembered, in the order in which they were made.
func (e *Engine) List() []Operation {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.SortedFunc(maps.Values(e.all), func(a, b Operation) int { return strings.Compare(a.ID, b.ID) })
}

// Get returns one, and a channel that is closed when any of them has changed.
func (e *Engine) Get(id string) (op Operation, changed <-chan struct{}, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	op, ok = e.all[id]
	return op, e.changed, ok
}

// Unknown says that there is no operation of that ID.
func Unknown(id string) *api.Error {
	return api.Errorf(api.NotFound, "there is no operation %q, or it was long ago", id)
}

// Follow yields an operation as it is and whenever it has changed, until it is done.
// An error is the last.
func (e *Engine) Follow(ctx context.Context, id string) iter.Seq2[Operation, error] {
	return func(yield func(Operation, error) bool) {
		for shown := uint64(0); ; {
			op, changed, ok := e.Get(id)
			if !ok {
				yield(op, Unknown(id))
				return
			}
			if op.rev != shown || shown == 0 {
				if !yield(op, nil) || op.Done {
					return
				}
				shown = op.rev
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(op, ctx.Err())
				return
			}
		}
	}
}

// How says what becomes of a step of which nobody knows whether it ended.
type How int

const (
	// Again: it is done again; doing it twice is as good as once.
	Again How = iota
	// Once: it is not, and ErrInterrupted says so.
	Once
)

// ErrInterrupted is that a step which is done once only had begun when the daemon was
// stopped: nobody knows how far it got.
var ErrInterrupted = errors.New("warmrebootd was stopped while it ran: nobody knows how far it got, and it is not done again")

// Run is an operation that is being done.
type Run struct {
	e       *Engine
	next    int // of its steps
	stopped bool
	skew    error // the journal is of another version's body: nothing is done any more
	// unwritten: a step could not be journalled, so no other is done after it.
	unwritten error

	// there is closed when the body has come to where an earlier daemon was.
	there  chan struct{}
	arrive func()
	wanted context.Context // ends when it is cancelled
	drop   context.CancelCauseFunc

	mu sync.Mutex // held over what is journalled, and while it is decided whether it is cancelled
	op Operation
	// committed: it is too late to cancel it, unless back takes back what was done.
	committed bool
	back      func() error
}

// Operation returns it as it is now.
func (r *Run) Operation() Operation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.op
}

// journal writes it down as it is, or says that this failed: the next step is journalled
// with it.
func (r *Run) journal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.e.write(r.op); err != nil {
		r.e.o.Failed(r.op, err)
	}
}

// show has others see it as it is.
func (r *Run) show() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.op.rev = r.e.set(r.op).rev
}

// Resumed reports whether the next step is the first that was not begun by an
// earlier daemon, or is not known to have ended there.
func (r *Run) Resumed() bool {
	return r.op.Taken > 0 && (r.next >= len(r.op.Steps) || !r.op.Steps[r.next].Done)
}

// Begun reports whether the next step had begun under an earlier daemon.
func (r *Run) Begun() bool { return r.next < len(r.op.Steps) }

// Do does the next step of an operation, or returns what it returned to an earlier
// daemon. Steps are told apart by their order; a body that does others than those in
// the journal, by their names, is of another version, and does nothing any more.
//
// That it has begun is journalled before, and what it returned after. If the former fails,
// neither it nor any step after it is done: the body has to return. If ctx ends
// meanwhile, and do returns an error, the step has not ended; the body has to return.
func Do[T any](ctx context.Context, r *Run, name string, how How, do func(context.Context) (T, error)) (T, error) {
	var none T
	if ctx.Err() != nil {
		r.stopped = true
		return none, ctx.Err()
	}
	if r.skew != nil {
		return none, r.skew
	}
	if r.unwritten != nil { // the journal would have the steps after it in its place
		return none, r.unwritten
	}
	i := r.next
	r.next++
	interrupted := false
	if i < len(r.op.Steps) {
		s := r.op.Steps[i]
		if s.Name != name {
			r.skew = api.Errorf(api.VersionSkew, "operation %s is at step %q, where this version of warmrebootd has %q: it ends here", r.op.ID, s.Name, name)
			return none, r.skew
		}
		if !s.Done {
			r.arrive()
		} else {
			var v T
			if err := json.Unmarshal(s.Result, &v); err != nil {
				return none, fmt.Errorf("operation %s, step %s: %w", r.op.ID, name, err)
			}
			if s.Error != nil {
				return v, s.Error
			}
			return v, nil
		}
		interrupted = how == Once
	} else {
		r.arrive()
		if err := r.enter(i, Step{Name: name, Begun: r.e.o.Now()}); err != nil {
			r.unwritten = fmt.Errorf("step %s cannot be journalled, so it is not begun: %w", name, err)
			return none, r.unwritten
		}
	}
	v, err := none, error(ErrInterrupted)
	if !interrupted {
		v, err = do(ctx)
		if err != nil && ctx.Err() != nil {
			r.stopped = true
			return v, ctx.Err()
		}
	}
	s := r.op.Steps[i]
	s.Done, s.Ended, s.Error = true, r.e.o.Now(), asError(err)
	var bad error
	if s.Result, bad = text.Marshal(v); bad != nil {
		return v, bad
	}
	if bad := r.enter(i, s); bad != nil {
		// Once more, should the daemon be killed before the next is journalled.
		r.e.o.Failed(r.Operation(), bad)
		r.mu.Lock()
		r.keep(i, s)
		r.mu.Unlock()
	}
	if err != nil && !interrupted {
		return v, err
	}
	if interrupted {
		return v, ErrInterrupted
	}
	return v, nil
}

// enter journals a step.
func (r *Run) enter(i int, s Step) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.op.Steps
	r.keep(i, s)
	if err := r.e.write(r.op); err != nil {
		r.op.Steps = was
		return err
	}
	r.op.rev = r.e.set(r.op).rev
	return nil
}

// keep has it have a step. r.mu is held.
func (r *Run) keep(i int, s Step) {
	steps := slices.Clone(r.op.Steps)
	if i == len(steps) {
		steps = append(steps, s)
	} else {
		steps[i] = s
	}
	r.op.Steps = steps
}

// Spec reads an operation's spec into v.
func Spec(r *Run, v any) error {
	if err := json.Unmarshal(r.op.Spec, v); err != nil {
		return fmt.Errorf("operation %s: %w", r.op.ID, err)
	}
	return nil
}
