// Package operator does what operators ask for, as operations: it is api.Operations.
// It also has what a schedule's run has in common with that: the lock that an operation
// holds, and a reboot that is asked for once, whoever is killed meanwhile.
package operator

import (
	"context"
	"encoding/json"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/agent"
	"github.com/warmreboot/warmreboot/internal/operation"
)

// Operator begins operations, and shows all that there are.
type Operator struct {
	Rebooter
	Engine *operation.Engine
	Log    *slog.Logger

	updates *Updates // nil: there are none
}

var _ api.Operations = (*Operator)(nil)

// New makes an Operator that does the engine's operations of its kinds.
func New(b Rebooter, e *operation.Engine, log *slog.Logger) *Operator {
	o := &Operator{Rebooter: b, Engine: e, Log: log}
	e.Register(api.KindReboot, o.reboot)
	return o
}

func (o *Operator) check(r api.OperationRequest) error {
	switch {
	case r.Kind != api.KindReboot && (r.Kind != api.KindUpdate || o.updates == nil):
		return api.Errorf(api.BadRequest, "kind is %q, must be %s or %s", r.Kind, api.KindReboot, api.KindUpdate)
	case r.Domain == "":
		return api.Errorf(api.BadRequest, "no domain is named")
	case !slices.Contains([]api.Trigger{api.Graceful, api.Force, api.Cold}, r.Mode):
		return api.Errorf(api.BadRequest, "mode is %q, must be graceful, force or cold", r.Mode)
	case !(r.TimeoutSeconds >= 0 && r.TimeoutSeconds <= api.MaxSeconds):
		return api.Errorf(api.BadRequest, "the timeout is %g, must be from 0 to %d seconds", r.TimeoutSeconds, int(api.MaxSeconds))
	case r.Kind == api.KindUpdate:
		return checkUpdate(r)
	case r.Update != nil:
		return api.Errorf(api.BadRequest, "a %s has no kernel", r.Kind)
	}
	return nil
}

// Plan implements api.Operations.
func (o *Operator) Plan(ctx context.Context, r api.OperationRequest) (api.Plan, error) {
	if err := o.check(r); err != nil {
		return api.Plan{}, err
	}
	var p api.Plan
	var err error
	if r.Kind == api.KindUpdate {
		_, p, err = o.prepare(ctx, r.Domain, "", r)
	} else {
		p, err = o.Agent.Plan(ctx, r.Domain, r.Mode)
	}
	if err != nil || r.Override {
		return p, err
	}
	return p, o.Engine.Blocked(ctx, operation.Target{Domain: p.Domain, UUID: p.UUID})
}

// Begin implements api.Operations. What the domain's name means is decided now, once
// and for all that is done.
func (o *Operator) Begin(ctx context.Context, r api.OperationRequest) (api.Operation, error) {
	if err := o.check(r); err != nil {
		return api.Operation{}, err
	}
	q := operation.Request{Kind: r.Kind, By: api.ByOperator, Key: r.Key, Owner: r.Owner, Cause: r.Cause, Spec: r}
	// It is not asked again what the name means: the domain may be away just now.
	if op, ok, err := o.Engine.Find(q); ok || err != nil {
		return answer(op, err)
	}
	s, err := o.Agent.Status(ctx, r.Domain, false)
	if err != nil {
		return api.Operation{}, err
	}
	q.Domain, q.UUID = s.Domain, s.UUID
	if q.Owner == "" {
		q.Owner = "an operator"
	}
	switch {
	case q.Cause != "":
	case r.Kind == api.KindUpdate:
		q.Cause = "an update to " + r.Update.Kernel
	default:
		q.Cause = "a " + string(r.Mode) + " reboot"
	}
	return answer(o.Engine.Start(q))
}

func answer(op operation.Operation, err error) (api.Operation, error) {
	if err != nil {
		return api.Operation{}, err
	}
	return shown(op), nil
}

// shown is an operation as it is shown.
func shown(op operation.Operation) api.Operation {
	a := api.Operation{ID: op.ID, Kind: op.Kind, Domain: op.Domain, UUID: op.UUID, By: op.By, Owner: op.Owner, Cause: op.Cause,
		State: api.OperationRunning, Begun: op.Made, Ended: op.Ended, Steps: []api.OperationStep{}, Taken: op.Taken, Cancelled: op.Cancelled, Error: op.Error}
	for _, s := range op.Steps {
		a.Steps = append(a.Steps, api.OperationStep{Name: s.Name, Begun: s.Begun, Ended: s.Ended, Error: s.Error})
	}
	var r api.OperationRequest
	if op.By == api.ByOperator && json.Unmarshal(op.Spec, &r) == nil {
		a.Request = &r
	}
	if !op.Done {
		return a
	}
	a.State = api.OperationDone
	if op.Error != nil {
		a.State = api.OperationFailed
	}
	if op.Error != nil && op.Error.Code == api.Cancelled {
		a.State = api.OperationCancelled
	}
	var sum api.Summary
	if json.Unmarshal(op.Result, &sum) == nil && sum.Trigger != "" { // else it was not even begun
		a.Summary = &sum
	}
	var u struct{ Update *api.Update }
	if op.Kind == api.KindUpdate && json.Unmarshal(op.Result, &u) == nil {
		a.Update = u.Update
	}
	return a
}

// Operations implements api.Operations.
func (o *Operator) Operations(context.Context) ([]api.Operation, error) {
	all := []api.Operation{}
	for _, op := range o.Engine.List() {
		all = append(all, shown(op))
	}
	return all, nil
}

// Operation implements api.Operations.
func (o *Operator) Operation(_ context.Context, id string) (api.Operation, error) {
	op, _, ok := o.Engine.Get(id)
	if !ok {
		return api.Operation{}, operation.Unknown(id)
	}
	return shown(op), nil
}

// Follow implements api.Operations.
func (o *Operator) Follow(ctx context.Context, id string) iter.Seq2[api.Operation, error] {
	return func(yield func(api.Operation, error) bool) {
		for op, err := range o.Engine.Follow(ctx, id) {
			if !yield(shown(op), err) {
				return
			}
		}
	}
}

// Cancel implements api.Operations.
func (o *Operator) Cancel(_ context.Context, id, by string) (api.Operation, error) {
	if by == "" {
		by = "an operator"
	}
	op, err := o.Engine.Cancel(id, by)
	if err == nil {
		o.Log.Info("operation is cancelled", "op", op.Kind, "domain", op.Domain, "uuid", op.UUID, "operation", op.ID, "owner", by)
	}
	return answer(op, err)
}

// defaultTimeout is how long the end of a reboot is waited for, if nobody has said: an
// operation that waited for ever for a guest that hangs would keep others from
// rebooting for as long.
const defaultTimeout = 10 * time.Minute

// reboot is the body of a reboot that an operator asked for.
func (o *Operator) reboot(ctx context.Context, run *operation.Run) (any, error) {
	var r api.OperationRequest
	if err := operation.Spec(run, &r); err != nil {
		return nil, err
	}
	w := Wanted{Asker: agent.Asker{By: api.ByOperator}, Mode: r.Mode, Timeout: time.Duration(r.TimeoutSeconds * float64(time.Second)),
		Override: r.Override}
	if w.Timeout == 0 {
		w.Timeout = defaultTimeout
	}
	w.Longest = w.Timeout + time.Minute
	sum, err := api.Summary{}, operation.Admit(ctx, run, operation.Admission{Override: r.Override, TTL: w.Longest})
	if err == nil {
		sum, err = o.Reboot(ctx, run, w)
	}
	if IsCancelled(err) {
		_, bad := operation.Do(ctx, run, "record", operation.Again, func(context.Context) (bool, error) {
			return true, o.Record(run.Operation(), r.Mode, err, nil)
		})
		o.enter(ctx, run, bad)
	}
	if sum.Sequence != 0 {
		op := run.Operation()
		_, bad := operation.Do(ctx, run, "annotate", operation.Again, func(context.Context) (bool, error) {
			entry, ok := o.State.Of(sum)
			if !ok { // it has not ended
				return false, nil
			}
			return true, o.State.Annotate(op.UUID, entry.ID, func(e *api.HistoryEntry) { e.Operation = op.ID })
		})
		o.enter(ctx, run, bad)
	}
	return sum, err
}

// enter says that something could not be entered into the history, unless the next
// daemon tries again.
func (o *Operator) enter(ctx context.Context, run *operation.Run, err error) {
	if op := run.Operation(); err != nil && ctx.Err() == nil {
		o.Log.Error("what became of an operation cannot be entered into the history", "op", op.Kind, "domain", op.Domain, "uuid", op.UUID, "err", err, "next", "make room in the state directory")
	}
}
