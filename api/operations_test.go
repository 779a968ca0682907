package api

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"time"
)

// ends is a daemon that ends as soon as something was begun.
type ends struct {
	*Client // of which nothing else is asked
	err     error
}

func (ends) Begin(context.Context, OperationRequest) (Operation, error) {
	return Operation{ID: "1", State: OperationRunning}, nil
}

func (e ends) Follow(context.Context, string) iter.Seq2[Operation, error] {
	return func(yield func(Operation, error) bool) { yield(Operation{}, e.err) }
}

// TestNotBack: that something was begun is not denied by the code of an error, those
// that say that nothing was changed.
func TestNotBack(t *testing.T) {
	was := comeBack
	defer func() { comeBack = was }()
	comeBack.wait, comeBack.every = 20*time.Millisecond, time.Millisecond
	for said, err := range map[string]error{"is not back": Errorf(AgentDown, "refused"), "long ago": Errorf(NotFound, "it was long ago")} {
		_, got := Await(context.Background(), ends{err: err}, OperationRequest{Kind: KindReboot, Domain: "web", Mode: Graceful})
		var e *Error
		if !errors.As(got, &e) || e.Code != Failed || !strings.Contains(e.Message, said) {
			t.Errorf("%v: %v", err, got)
		}
	}
}
