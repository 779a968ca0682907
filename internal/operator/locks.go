package operator

import (
	"context"
	"errors"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/state"
)

// Locks are those of the store, which people may take, too.
type Locks struct {
	State  *state.Store
	Moment func() state.Moment
}

var _ operation.Locks = Locks{}

// Blocks implements operation.Blocker.
func (l Locks) Blocks(_ context.Context, t operation.Target) error {
	held, ok := l.State.LockOf(t.UUID, l.Moment())
	if !ok || held.Operation != "" && held.Operation == t.Operation {
		return nil
	}
	held.Domain = t.Domain
	return Held(held)
}

// Held says that somebody else has a lock.
func Held(l state.Lock) *api.Error {
	if l.Operation != "" {
		return api.Errorf(api.Locked, "domain %s is in operation %s of %s (%s), which ends by %s", l.Domain, l.Operation, l.Owner, l.Reason, l.Until.Local().Format("15:04:05")).Try(api.TryOverride)
	}
	return api.Errorf(api.Locked, "domain %s is %s; warmreboot unlock %s releases it", l.Domain, l, ident.Word(l.Domain, l.UUID)).Try(api.TryOverride)
}

// Lock implements operation.Locks.
func (l Locks) Lock(o operation.Operation, ttl time.Duration) error {
	err := l.State.Lock(state.Lock{UUID: o.UUID, Domain: o.Domain, Owner: o.Owner, Reason: o.Cause, TTL: ttl.Seconds(),
		Run: true, Operation: o.ID, Schedule: o.Schedule}, l.Moment())
	var held *state.HeldError
	if errors.As(err, &held) {
		return Held(held.Lock)
	}
	return err
}

// Unlock implements operation.Locks.
func (l Locks) Unlock(o operation.Operation) error {
	return l.State.Release(state.Lock{UUID: o.UUID, Operation: o.ID}, l.Moment())
}
