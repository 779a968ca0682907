package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// supervisor starts the parts of the daemon in an order, and stops them in the
// reverse one: what a part uses was started before it, and is there until it has
// stopped.
type supervisor struct {
	log   *slog.Logger
	parts []part
	// failed is told why a part that was to run has ended.
	failed chan error
}

type part struct {
	name string
	stop func()
}

func newSupervisor(log *slog.Logger) *supervisor {
	return &supervisor{log: log, failed: make(chan error, 1)}
}

// started enters a part that was started by others; stop may be nil.
func (s *supervisor) started(name string, stop func()) {
	if stop != nil {
		s.parts = append(s.parts, part{name, stop})
	}
}

// run has a part run in a goroutine of its own until it is stopped: its context is
// then cancelled, and its end waited for. Should it end before, with an error or
// without, the daemon is to end.
func (s *supervisor) run(name string, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := f(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = fmt.Errorf("it has ended by itself")
		}
		s.fail(fmt.Errorf("%s: %w", name, err))
	}()
	s.started(name, func() { cancel(); <-ended })
}

// fail has the daemon end; the first reason counts.
func (s *supervisor) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// slowStop is how long a part may take to stop before that is logged: whoever looks
// at a daemon that does not end sees what it waits for.
const slowStop = 5 * time.Second

// stop stops all parts, the last started first.
func (s *supervisor) stop() {
	for _, p := range slices.Backward(s.parts) {
		slow := time.AfterFunc(slowStop, func() {
			s.log.Warn("a part of the daemon takes long to stop", "op", p.name)
		})
		p.stop()
		slow.Stop()
	}
	s.parts = nil
}
