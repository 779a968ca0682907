package cli

import (
	"context"
	"errors"

	"github.com/warmreboot/warmreboot/internal/api"
)

// Exit codes. They are documented in docs/operations.md and never change their
// meaning.
const (
	ExitOK          = 0
	ExitFailure     = 1
	ExitUsage       = 2
	ExitNotFound    = 3 // no such domain
	ExitNoWarmcache = 4 // Xen has no warm cache
	ExitNotTracked  = 5 // not enabled, guest kernel does not track, PV guest
	ExitAgentDown   = 6 // the agent is not running
	ExitCold        = 7 // came back cold though warm was asked
	ExitTimeout     = 8
	ExitMismatch    = 9 // check found pages that differ from the disk
)

var exitCodes = map[api.Code]int{
	api.Failed:        ExitFailure,
	api.BadRequest:    ExitUsage,
	api.NotFound:      ExitNotFound,
	api.NoWarmcache:   ExitNoWarmcache,
	api.NotTracked:    ExitNotTracked,
	api.AgentDown:     ExitAgentDown,
	api.CameBackCold:  ExitCold,
	api.TimedOut:      ExitTimeout,
	api.MismatchFound: ExitMismatch,
}

// exitCode returns the exit code of an error.
func exitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	var e *api.Error
	if errors.As(err, &e) {
		if code, ok := exitCodes[e.Code]; ok {
			return code
		}
		return ExitFailure
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return ExitTimeout
	}
	return ExitFailure
}
