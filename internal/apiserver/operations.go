package apiserver

import (
	"context"
	"crypto/rand"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/api"
)

// Doer does what operations are about. Its context is the operation's, never an
// asker's.
type Doer interface {
	Plan(ctx context.Context, r api.OperationRequest) (api.Plan, error)
	// Reboot returns when the reboot has ended, or ctx has. In the latter case the
	// error is TimedOut and the summary says how far it got.
	Reboot(ctx context.Context, r api.OperationRequest) (api.Summary, error)
}

// Memory is api.Operations that lives as long as the daemon: an operation is known
// until it has ended and many others have, or the daemon stops. A reboot that is
// under way then is the agent's, which goes on with it after a restart; only who
// asked for it is forgotten.
type Memory struct {
	do     Doer
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	all     []*operation // in the order in which they were begun
}

var _ api.Operations = (*Memory)(nil)

type operation struct {
	api.Operation
	changed chan struct{} // closed when it has changed
}

// How many operations there may be, and how many that have ended are remembered.
const (
	maxRunning = 1000
	maxEnded   = 256
)

// NewMemory makes an api.Operations that has do do them.
func NewMemory(do Doer) *Memory {
	ctx, cancel := context.WithCancel(context.Background())
	return &Memory{do: do, ctx: ctx, cancel: cancel}
}

// Stop ends what runs, and waits for it. Nothing is begun any more.
func (m *Memory) Stop() {
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.cancel()
	m.wg.Wait()
}

// Plan implements api.Operations.
func (m *Memory) Plan(ctx context.Context, r api.OperationRequest) (api.Plan, error) {
	if err := check(r); err != nil {
		return api.Plan{}, err
	}
	return m.do.Plan(ctx, r)
}

func check(r api.OperationRequest) error {
	switch {
	case r.Kind != api.KindReboot:
		return api.Errorf(api.BadRequest, "kind is %q, must be %s", r.Kind, api.KindReboot)
	case r.Domain == "":
		return api.Errorf(api.BadRequest, "no domain is named")
	case !slices.Contains([]api.Trigger{api.Graceful, api.Force, api.Cold}, r.Mode):
		return api.Errorf(api.BadRequest, "mode is %q, must be graceful, force or cold", r.Mode)
	case !(r.TimeoutSeconds >= 0 && r.TimeoutSeconds <= 1e6):
		return api.Errorf(api.BadRequest, "the timeout is %g, must be from 0 to 1000000 seconds", r.TimeoutSeconds)
	}
	return nil
}

// Begin implements api.Operations.
func (m *Memory) Begin(_ context.Context, r api.OperationRequest) (api.Operation, error) {
	if err := check(r); err != nil {
		return api.Operation{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	running := 0
	for _, o := range m.all {
		if r.Key != "" && o.Request.Key == r.Key {
			if o.Request != r {
				return api.Operation{}, api.Errorf(api.BadRequest, "key %q is that of operation %s, which is another request", r.Key, o.ID)
			}
			return o.Operation, nil
		}
		if o.State == api.OperationRunning {
			running++
		}
	}
	switch {
	case m.stopped:
		return api.Operation{}, api.Errorf(api.AgentDown, "warmrebootd stops")
	case running >= maxRunning:
		return api.Operation{}, api.Errorf(api.Locked, "%d operations run already", running)
	}
	o := &operation{api.Operation{ID: rand.Text(), Request: r, By: api.ByOperator, State: api.OperationRunning, Begun: time.Now()}, make(chan struct{})}
	m.all = append(m.all, o)
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		m.run(o, r)
	}()
	return o.Operation, nil
}

func (m *Memory) run(o *operation, r api.OperationRequest) {
	ctx := m.ctx
	if r.TimeoutSeconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.TimeoutSeconds*float64(time.Second)))
		defer cancel()
	}
	s, err := m.do.Reboot(ctx, r)
	m.mu.Lock()
	defer m.mu.Unlock()
	o.State, o.Ended = api.OperationDone, time.Now()
	if s.Trigger != "" { // else it was not even begun
		o.Summary, o.UUID = &s, s.UUID
	}
	if err != nil {
		o.State, o.Error = api.OperationFailed, api.AsError(err)
	}
	close(o.changed)
	ended := 0
	for i := len(m.all) - 1; i >= 0; i-- {
		if m.all[i].State == api.OperationRunning {
			continue
		}
		if ended++; ended > maxEnded {
			m.all = slices.Delete(m.all, i, i+1)
		}
	}
}

// Operations implements api.Operations.
func (m *Memory) Operations(context.Context) ([]api.Operation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []api.Operation{}
	for _, o := range m.all {
		all = append(all, o.Operation)
	}
	return all, nil
}

// look returns an operation as it is, and a channel that is closed when it changes.
func (m *Memory) look(id string) (api.Operation, <-chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range m.all {
		if o.ID == id {
			return o.Operation, o.changed, nil
		}
	}
	return api.Operation{}, nil, api.Errorf(api.NotFound, "there is no operation %q, or it was long ago, or warmrebootd was restarted meanwhile: the domain's status says how it is", id)
}

// Operation implements api.Operations.
func (m *Memory) Operation(_ context.Context, id string) (api.Operation, error) {
	o, _, err := m.look(id)
	return o, err
}

// Follow implements api.Operations.
func (m *Memory) Follow(ctx context.Context, id string) iter.Seq2[api.Operation, error] {
	return func(yield func(api.Operation, error) bool) {
		for {
			o, changed, err := m.look(id)
			if !yield(o, err) || err != nil || o.State != api.OperationRunning {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(o, ctx.Err())
				return
			}
		}
	}
}

// ServeOperations serves o beside a Service.
func ServeOperations(o api.Operations) func(*Router) {
	return func(mux *Router) {
		mux.Handle("GET /v1/plan", func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			override, err := strconv.ParseBool(q.Get("override"))
			if err != nil && q.Has("override") {
				answer(w, api.Plan{}, api.Errorf(api.BadRequest, "override is %q, must be true or false", q.Get("override")))
				return
			}
			v, err := o.Plan(r.Context(), api.OperationRequest{Kind: api.OperationKind(q.Get("kind")), Domain: q.Get("domain"), Mode: api.Trigger(q.Get("mode")), Override: override})
			answer(w, v, err)
		})
		mux.Handle("GET /v1/operations", func(w http.ResponseWriter, r *http.Request) {
			v, err := o.Operations(r.Context())
			answer(w, v, err)
		})
		mux.Handle("POST /v1/operations", func(w http.ResponseWriter, r *http.Request) {
			req, err := body[api.OperationRequest](w, r)
			if err != nil {
				answer(w, api.Operation{}, err)
				return
			}
			v, err := o.Begin(r.Context(), req)
			if err == nil {
				w.Header().Set("Location", "/v1/operations/"+v.ID)
			}
			answerWith(w, http.StatusAccepted, v, err)
		})
		mux.Handle("GET /v1/operations/{id}", func(w http.ResponseWriter, r *http.Request) {
			v, err := o.Operation(r.Context(), r.PathValue("id"))
			answer(w, v, err)
		})
		mux.Handle("GET /v1/operations/{id}/events", func(w http.ResponseWriter, r *http.Request) {
			stream(w, o.Follow(r.Context(), r.PathValue("id")))
		})
	}
}
