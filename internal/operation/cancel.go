package operation

import (
	"context"

	"github.com/warmreboot/warmreboot/api"
)

// Cancel has an operation end before it does what it is for; see api.Operations. That
// it is cancelled is journalled: a daemon that takes it up goes on with its end.
func (e *Engine) Cancel(id, by string) (Operation, error) {
	e.mu.Lock()
	op, ok := e.all[id]
	r := e.runs[id]
	e.mu.Unlock()
	switch {
	case !ok:
		return op, Unknown(id)
	case op.Done || r == nil:
		return ended(op)
	case e.ctx.Err() != nil:
		return op, stopping(id)
	}
	select {
	case <-r.there: // before, nobody knows what would have to be taken back
		return r.cancel(by)
	case <-e.ctx.Done():
		return op, stopping(id)
	}
}

func stopping(id string) error {
	return api.Errorf(api.AgentDown, "warmrebootd stops; the next one goes on with operation %s: ask it", id)
}

func ended(o Operation) (Operation, error) {
	if o.Error != nil && o.Error.Code == api.Cancelled {
		return o, nil
	}
	return o, api.Errorf(api.BadRequest, "operation %s of domain %s has ended already", o.ID, o.Domain)
}

func (r *Run) cancel(by string) (Operation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.op.Done:
		return ended(r.op)
	case r.op.Cancelled != nil:
		return r.op, nil
	case r.committed && r.back == nil:
		return r.op, api.Errorf(api.Locked, "operation %s of domain %s has come too far to be cancelled: what it is for is done, or cannot be left undone any more", r.op.ID, r.op.Domain)
	case r.committed:
		if err := r.back(); err != nil {
			return r.op, err
		}
	}
	op := r.op
	op.Cancelled = &api.Cancellation{By: by, At: r.e.o.Now()}
	if err := r.e.write(op); err != nil {
		if !r.committed {
			return r.op, api.Errorf(api.Failed, "that operation %s is cancelled cannot be journalled, so it goes on: %v; make room in the state directory", op.ID, err)
		}
		r.e.o.Failed(op, err) // what was taken back is not done any more
	}
	// Field by field: the body reads the others without the lock.
	r.op.Cancelled = op.Cancelled
	r.op.rev = r.e.set(r.op).rev
	r.drop(r.wasCancelled())
	return r.op, nil
}

// Cancelled returns that the operation was cancelled, as an *api.Error, or nil. A body
// asks before it does something that may be left out. One that is called again is told
// where it was told before, and not earlier: it does the same steps.
func (r *Run) Cancelled() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tell()
}

// tell is Cancelled. r.mu is held.
func (r *Run) tell() error {
	switch {
	case r.op.Cancelled == nil, r.op.Told == nil && r.next < len(r.op.Steps):
		return nil
	case r.op.Told == nil:
		n := r.next
		r.op.Told = &n // which is journalled with the next step
	case r.next < *r.op.Told:
		return nil
	}
	return r.wasCancelled()
}

func (r *Run) wasCancelled() *api.Error {
	return api.Errorf(api.Cancelled, "operation %s of domain %s was cancelled by %s", r.op.ID, r.op.Domain, r.op.Cancelled.By)
}

// Commit is what a body says before it does what cannot be left undone. From then on the
// operation is cancelled only if back, which may be nil, has taken back what was done;
// its error is that of whoever cancels. It returns Cancelled's error if it was cancelled
// before.
func (r *Run) Commit(back func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.tell(); err != nil {
		return err
	}
	r.committed, r.back = true, back
	return nil
}

// Settled says that nothing is taken back any more of what was done since Commit.
func (r *Run) Settled() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.back = nil
}

// Unless returns a context that ends with ctx, or when the operation is cancelled: for a
// step that may be broken off. Its cause is then Cancelled's error.
func (r *Run) Unless(ctx context.Context) (context.Context, context.CancelFunc) {
	limited, end := context.WithCancelCause(ctx)
	stop := context.AfterFunc(r.wanted, func() { end(context.Cause(r.wanted)) })
	return limited, func() { stop(); end(nil) }
}
