package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"iter"
	"net/url"
	"strconv"
	"time"

	"github.com/warmreboot/warmreboot/ident"
)

// OperationKind is what an operation does.
type OperationKind string

// Kinds.
const (
	KindReboot OperationKind = "reboot"
	// KindSchedule is a run of a schedule, with its hooks, its health check and what
	// follows. Nobody can ask for it.
	KindSchedule OperationKind = "schedule"
	// KindUpdate is a trial of another kernel, see UpdateRequest.
	KindUpdate OperationKind = "update"
)

// OperationRequest asks for something that takes long.
type OperationRequest struct {
	Kind   OperationKind `json:"kind"`
	Domain string        `json:"domain"` // a name, a domid or a UUID
	Mode   Trigger       `json:"mode"`   // graceful, force or cold; not force for an update
	// Update is of KindUpdate.
	Update *UpdateRequest `json:"update,omitempty"`
	// Override: in spite of locks, windows, groups and limits.
	Override bool `json:"override,omitempty"`
	// TimeoutSeconds is how long the operation waits for its end; then it has
	// failed, with code TimedOut, though the domain may still come back. 0: ten minutes.
	TimeoutSeconds float64 `json:"timeout_seconds,omitempty"`
	// Owner is who asks, and Cause why, for those who look at what is going on.
	Owner string `json:"owner,omitempty"`
	Cause string `json:"cause,omitempty"`
	// Key makes it one request, however often it is asked: who asks again with the
	// same key, after a lost connection, gets the operation that there is. "" is
	// no key.
	Key string `json:"key,omitempty"`
}

// OperationState is how far an operation is.
type OperationState string

// States. Those other than Running are the last.
const (
	OperationRunning OperationState = "running"
	OperationDone    OperationState = "done"
	OperationFailed  OperationState = "failed" // Error says why
	// OperationCancelled: it was cancelled before it had done what it was for; Error
	// says how far it was.
	OperationCancelled OperationState = "cancelled"
)

// Operation is something that takes long, which somebody asked for. It is journalled
// step by step: a daemon that is started after one that was killed goes on with it.
type Operation struct {
	ID   string        `json:"id"`
	Kind OperationKind `json:"kind"`
	// Domain was its name when the operation was begun; UUID is what it is known by.
	Domain string     `json:"domain"`
	UUID   ident.UUID `json:"uuid"`
	By     Origin     `json:"by"`
	// Owner is who asked for it, Cause why.
	Owner string `json:"owner"`
	Cause string `json:"cause,omitempty"`
	// Request is what was asked for; nil if a schedule did.
	Request *OperationRequest `json:"request,omitempty"`
	State   OperationState    `json:"state"`
	Begun   time.Time         `json:"begun"`
	Ended   time.Time         `json:"ended,omitzero"`
	// Steps are those that have begun, in that order.
	Steps []OperationStep `json:"steps"`
	// Taken is how often another daemon went on with it.
	Taken int `json:"taken,omitempty"`
	// Cancelled is who cancelled it, and when; nil if nobody did.
	Cancelled *Cancellation `json:"cancelled,omitempty"`
	// Summary is the account of the reboot, as far as it got, once the operation has
	// ended.
	Summary *Summary `json:"summary,omitempty"`
	// Update is the account of an update, once the operation has ended. Its Summary is
	// that of the last of its reboots.
	Update *Update `json:"update,omitempty"`
	Error  *Error  `json:"error,omitempty"`
}

// Cancellation is that somebody has cancelled an operation.
type Cancellation struct {
	By string    `json:"by"`
	At time.Time `json:"at"`
}

// OperationStep is one of an operation.
type OperationStep struct {
	Name  string    `json:"name"`
	Begun time.Time `json:"begun"`
	Ended time.Time `json:"ended,omitzero"` // zero while it is being done
	Error *Error    `json:"error,omitempty"`
}

// Operations is what a daemon does that takes long. Nothing of it depends on who
// asked: he may hang up.
type Operations interface {
	// Plan returns what an operation would do, and does nothing.
	Plan(ctx context.Context, r OperationRequest) (Plan, error)
	// Begin returns at once, with the operation that was begun or, by its key, found.
	// It fails with NotFound if there is no such domain.
	Begin(ctx context.Context, r OperationRequest) (Operation, error)
	// Operation fails with NotFound if there is none of that ID, or if it was long ago.
	Operation(ctx context.Context, id string) (Operation, error)
	// Operations are those that run, and the latest that have ended, in the order in
	// which they were begun.
	Operations(ctx context.Context) ([]Operation, error)
	// Follow yields an operation as it is and whenever it changes, until it has
	// ended. An error is the last.
	Follow(ctx context.Context, id string) iter.Seq2[Operation, error]
	// Cancel has an operation end before it does what it is for, and returns at once;
	// by is who says so. What has been done already, hooks say, stays done, and what is
	// always to be done is. A guest that was asked to go down, and has not taken note of
	// it, is no longer asked. Cancel fails with Locked if it is too late: the domain goes
	// down, or may at any moment, or has rebooted; with BadRequest if the operation has
	// ended; with NotFound as Operation does. To cancel twice is no error.
	Cancel(ctx context.Context, id, by string) (Operation, error)
}

var _ Operations = (*Client)(nil)

// Plan implements Operations.
func (c *Client) Plan(ctx context.Context, r OperationRequest) (Plan, error) {
	q := url.Values{"domain": {r.Domain}, "kind": {string(r.Kind)}, "mode": {string(r.Mode)}, "override": {strconv.FormatBool(r.Override)}}
	if r.Update != nil {
		raw, err := json.Marshal(r.Update)
		if err != nil {
			return Plan{}, err
		}
		q.Set("update", string(raw))
	}
	return call[Plan](ctx, c, "GET", "/v1/plan", q, nil)
}

// Begin implements Operations.
func (c *Client) Begin(ctx context.Context, r OperationRequest) (Operation, error) {
	// JSON has no place for bytes that are no text: a domain of such a name has to be
	// called by its UUID.
	if u := ident.UTF8(r.Domain); u != r.Domain {
		s, err := c.Status(ctx, r.Domain, false)
		if err != nil {
			return Operation{}, err
		}
		r.Domain = s.UUID.String()
	}
	return call[Operation](ctx, c, "POST", "/v1/operations", nil, r)
}

// Operation implements Operations.
func (c *Client) Operation(ctx context.Context, id string) (Operation, error) {
	return call[Operation](ctx, c, "GET", "/v1/operations/"+segment(id), nil, nil)
}

// Operations implements Operations.
func (c *Client) Operations(ctx context.Context) ([]Operation, error) {
	return call[[]Operation](ctx, c, "GET", "/v1/operations", nil, nil)
}

// Follow implements Operations.
func (c *Client) Follow(ctx context.Context, id string) iter.Seq2[Operation, error] {
	return follow[Operation](ctx, c, "/v1/operations/"+segment(id)+"/events", nil)
}

// Cancel implements Operations.
func (c *Client) Cancel(ctx context.Context, id, by string) (Operation, error) {
	return call[Operation](ctx, c, "DELETE", "/v1/operations/"+segment(id), url.Values{"by": {by}}, nil)
}

// Reboot reboots a domain and returns when that has ended. The deadline of ctx is
// the operation's. When ctx is cancelled, what was begun goes on.
func (c *Client) Reboot(ctx context.Context, domain string, mode Trigger) (Summary, error) {
	return Await(ctx, c, OperationRequest{Kind: KindReboot, Domain: domain, Mode: mode})
}

// comeBack is how long a daemon that ended is waited for, and how often it is looked
// for: it is started again within a second or two, and goes on with what was begun.
var comeBack = struct{ wait, every time.Duration }{30 * time.Second, 200 * time.Millisecond}

// Await begins an operation and waits for its end, also through a restart of the
// daemon. With an error, the summary says how far it got. The deadline of ctx is the
// operation's, unless the request has one.
func Await(ctx context.Context, o Operations, r OperationRequest) (Summary, error) {
	op, err := AwaitOperation(ctx, o, r)
	if op.Summary == nil {
		return Summary{}, err
	}
	return *op.Summary, err
}

// AwaitOperation is Await, for what is not in a summary. With an error, the operation
// is as it was seen last; its ID is "" if it was not begun.
func AwaitOperation(ctx context.Context, o Operations, r OperationRequest) (Operation, error) {
	if r.TimeoutSeconds == 0 {
		r.TimeoutSeconds = secondsLeft(ctx)
	}
	if r.Key == "" {
		r.Key = rand.Text()
	}
	ctx, cancel := patience(ctx)
	defer cancel()
	var op Operation
	var ended time.Time // when the daemon did; zero: it answers, or was never asked
	for {
		var err error
		if op.ID == "" {
			op, err = o.Begin(ctx, r) // by its key it is the same one, if it was begun
		}
		if err == nil {
			for now, followed := range o.Follow(ctx, op.ID) {
				if err = followed; err != nil {
					break
				}
				op, ended = now, time.Time{}
				if op.State != OperationRunning {
					if op.Error != nil {
						return op, op.Error
					}
					return op, nil
				}
			}
			if err == nil {
				return op, errors.New("the agent said nothing of its end")
			}
		}
		var e *Error
		var unknown *lostError
		switch down := errors.As(err, &e) && e.Code == AgentDown; {
		case op.ID == "" && ended.IsZero() && !errors.As(err, &unknown):
			return Operation{}, err // it was not asked
		case !down && !errors.As(err, &unknown):
			if e != nil && op.ID != "" { // that of the question, not of what was begun
				err = Errorf(Failed, "%v; how the domain is, its status says", err)
			}
			return op, err
		case ended.IsZero():
			ended = time.Now()
		case time.Since(ended) > comeBack.wait:
			return op, Errorf(Failed, "domain %s: the agent ended during the %s, and is not back (%v): start warmrebootd, which goes on with it", r.Domain, r.Kind, err).Try(TryWait)
		}
		select {
		case <-time.After(comeBack.every):
		case <-ctx.Done():
			return op, ctx.Err()
		}
	}
}
