package operation

import (
	"context"
	"errors"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

// Target is what an operation is to be done to, and by whom.
type Target struct {
	Domain string
	UUID   ident.UUID
	// Schedule is the one that asks, "" if an operator does.
	Schedule string
	// Operation is its ID: what it holds itself is not in its way. "" is of one that
	// has not begun.
	Operation string
}

// Blocker is one reason for which an operation may not begin now. It returns an error
// for the operator, with what to do next, or nil.
type Blocker interface {
	Blocks(context.Context, Target) error
}

// BlockerFunc is a Blocker.
type BlockerFunc func(context.Context, Target) error

// Blocks implements Blocker.
func (f BlockerFunc) Blocks(ctx context.Context, t Target) error { return f(ctx, t) }

// Locks keep others from a domain. As a Blocker they say who holds it.
type Locks interface {
	Blocker
	// Lock takes the lock of an operation's domain, for that long at most. That
	// somebody else has it is an *api.Error with code Locked; whoever has it himself
	// has it anew.
	Lock(o Operation, ttl time.Duration) error
	// Unlock releases what an operation holds, if it holds anything.
	Unlock(o Operation) error
}

// Blocked asks all blockers of the engine, in their order, and returns the first
// reason.
func (e *Engine) Blocked(ctx context.Context, t Target) error {
	for _, b := range e.blockers {
		if err := b.Blocks(ctx, t); err != nil {
			return err
		}
	}
	// A lock has a time to live, and an operation may have none, or be taken up late.
	for _, o := range e.List() {
		if o.UUID == t.UUID && o.ID != t.Operation && o.Admitted() {
			return api.Errorf(api.Locked, "domain %s is in operation %s of %s (%s), which has not ended", t.Domain, o.ID, o.Owner, o.Cause).Try(api.TryOverride)
		}
	}
	return nil
}

// Admission is what an operation needs before it may do something to its domain.
type Admission struct {
	// Override: in spite of blockers, and of a lock that somebody else has, who keeps
	// it.
	Override bool
	// TTL is for how long it needs the domain to itself, at most.
	TTL time.Duration
}

// admission is the name of the step.
const admission = "admission"

// Admit is the step that comes before all that is done to a domain: no blocker has
// a reason against it, and the domain is locked until the operation has ended. Of
// two that ask at once one is admitted first, and the other's blockers know of it.
func Admit(ctx context.Context, r *Run, a Admission) error {
	if err := r.Cancelled(); err != nil {
		return err
	}
	r.e.admitting.Lock()
	defer r.e.admitting.Unlock()
	_, err := Do(ctx, r, admission, Again, func(ctx context.Context) (bool, error) {
		if !a.Override {
			if err := r.Blocked(ctx); err != nil {
				return false, err
			}
		}
		err := r.e.o.Locks.Lock(r.Operation(), a.TTL)
		var e *api.Error
		if a.Override && errors.As(err, &e) && e.Code == api.Locked {
			err = nil
		}
		return err == nil, err
	})
	return err
}

// Blocked asks all blockers about the operation.
func (r *Run) Blocked(ctx context.Context) error {
	return r.e.Blocked(ctx, Target{Domain: r.op.Domain, UUID: r.op.UUID, Schedule: r.op.Schedule, Operation: r.op.ID})
}

// Admitted reports whether an operation that has not ended was admitted: it has its
// domain to itself.
func (o Operation) Admitted() bool {
	for _, s := range o.Steps {
		if s.Name == admission && s.Done && s.Error == nil {
			return !o.Done
		}
	}
	return false
}
