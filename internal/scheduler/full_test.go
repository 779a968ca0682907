package scheduler

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/config"
	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/operator"
	"github.com/warmreboot/warmreboot/internal/state"
	"github.com/warmreboot/warmreboot/internal/store"
)

// TestAlertFull: what nobody can be told by a command, as that cannot be journalled, is
// in the log.
func TestAlertFull(t *testing.T) {
	h := newHost(t, "")
	full := false
	e, err := operation.Open(t.Context(), operation.Options{Dir: store.Dir{Path: t.TempDir(), Step: func(string) error {
		if full {
			return syscall.ENOSPC
		}
		return nil
	}}, Locks: operator.Locks{State: h.kept, Moment: func() state.Moment { return state.Moment{} }}, Failed: func(operation.Operation, error) {}})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	e.Register("run", func(ctx context.Context, op *operation.Run) (any, error) {
		full = true
		n := &run{op: op, s: &config.Schedule{}, log: slog.New(slog.NewTextHandler(&log, nil))}
		n.alert(ctx, "the reboot did not take place")
		return nil, errors.New("so")
	})
	if _, err := e.Start(operation.Request{Kind: "run", Domain: "web", UUID: ident.UUID{1}}); err != nil {
		t.Fatal(err)
	}
	e.Wait()
	if !strings.Contains(log.String(), "did not take place") {
		t.Errorf("nobody is told: %s", log.String())
	}
}
