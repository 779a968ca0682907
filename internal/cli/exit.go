package cli

import (
	"context"
	"errors"

	"github.com/warmreboot/warmreboot/api"
)

// Exit codes. docs/operations.md has them all.
const (
	ExitOK          = 0 // warm, for a reboot
	ExitFailure     = 1
	ExitUsage       = 2
	ExitCold        = 3   // rebooted, but came back cold though warm was asked
	ExitNoWarmcache = 4   // Xen has no warm cache
	ExitNotTracked  = 5   // not enabled, guest kernel does not track, PV guest
	ExitAgentDown   = 6   // the agent is not running
	ExitTimeout     = 8   // 7 was once ExitCold
	ExitMismatch    = 9   // check found pages that differ from the disk
	ExitNotFound    = 10  // no such domain, or it is down
	ExitLocked      = 11  // something else has the domain now, or it is outside its window
	ExitVersionSkew = 12  // Xen, the agent and this program do not belong together
	ExitFellBack    = 13  // an update ended with the old kernel
	ExitRefused     = 14  // an update was not even tried
	ExitTrial       = 15  // an update's trial on a clone found a reason against
	ExitInterrupted = 130 // by a signal
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
	api.Locked:        ExitLocked,
	api.Cancelled:     ExitFailure,
	api.VersionSkew:   ExitVersionSkew,
	api.FellBack:      ExitFellBack,
	api.UpdateRefused: ExitRefused,
	api.TrialAgainst:  ExitTrial,
}

// hints say how this program is asked for what an error hints at.
var hints = map[api.Hint]string{
	api.TryForce:    "--force reboots it without the guest's help",
	api.TryCold:     "--cold reboots it normally",
	api.TryOverride: "--override reboots it all the same",
	api.TryWait:     "warmreboot status DOMAIN --wait waits until it is back",
}

// hintOf returns what could be done about an error, to be put behind it.
func hintOf(err error) string {
	var e *api.Error
	if errors.As(err, &e) && hints[e.Hint] != "" {
		return "; " + hints[e.Hint]
	}
	return ""
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
	switch {
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return ExitTimeout
	}
	return ExitFailure
}
