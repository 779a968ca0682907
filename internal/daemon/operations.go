package daemon

import (
	"context"
	"log/slog"
	"time"

	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/operator"
	"github.com/warmreboot/warmreboot/internal/scheduler"
	"github.com/warmreboot/warmreboot/internal/state"
	"github.com/warmreboot/warmreboot/internal/store"
)

// operations is the engine that does them, and what time it is there.
type operations struct {
	*operation.Engine
	moment func() state.Moment
}

// openOperations reads the journal of operations; stop ends those that are under way,
// and leaves the rest of them to the next daemon.
func openOperations(dir string, history *state.Store, boot string, log *slog.Logger) (o operations, stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	// The wall as it is shown, without the monotonic reading, by which Go would compare.
	o.moment = func() state.Moment {
		return state.Moment{Wall: time.Now().Round(0), Boot: boot, Up: scheduler.Uptime()}
	}
	o.Engine, err = operation.Open(ctx, operation.Options{Dir: store.Dir{Path: dir}, Locks: operator.Locks{State: history, Moment: o.moment},
		Boot: boot, Uptime: scheduler.Uptime, Failed: func(o operation.Operation, err error) {
			log.Error("operation cannot be journalled", "op", o.Kind, "domain", o.Domain, "uuid", o.UUID, "err", err, "next", "is there space left in the state directory?")
		}})
	if o.Engine == nil {
		cancel()
		return o, nil, err
	}
	if err != nil {
		log.Error("operations", "op", "state", "err", err, "next", "see whether its domain is well, and do what the hooks would have done")
	}
	return o, func() { cancel(); o.Wait() }, nil
}
