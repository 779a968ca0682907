package update

import (
	"fmt"
	"time"
)

// Phases in which a trial on a clone ends; before, it is Trying, Checking, on Probation
// and Confirming, as one of the domain itself.
const (
	Passed  Phase = "passed"
	Against Phase = "against" // there is a reason against the new kernel
	Stopped Phase = "stopped" // it cannot go on, whatever the kernel is like
)

// CloneRecord is what is known of a trial on a clone.
type CloneRecord struct {
	Phase Phase
	// Since is when the phase began, by the host's uptime.
	Since time.Duration
	// Why it was not Passed.
	Why string
}

// CloneView is what is seen of a clone at one look.
type CloneView struct {
	// Gone: it has shut down, or is not there.
	Gone bool
	// Missing is what it lacks to be up, "" if it is.
	Missing string
	// Full is why the trial is not to go on, "" if it is.
	Full   string
	Health *Health // as in Observation
}

// NextClone returns what is known of a trial on a clone after a look, and whether the
// health check is to be made before the next one.
func NextClone(r CloneRecord, t Terms, o CloneView, now time.Duration) (CloneRecord, Action) {
	to := func(p Phase, format string, args ...any) (CloneRecord, Action) {
		return CloneRecord{Phase: p, Since: now, Why: fmt.Sprintf(format, args...)}, Wait
	}
	good := Probation
	if r.Phase == Confirming {
		good = Passed
	}
	switch {
	case r.Phase == Passed || r.Phase == Against || r.Phase == Stopped:
	case o.Full != "":
		return to(Stopped, "%s", o.Full)
	case o.Gone && r.Phase == Trying:
		return to(Against, "the clone went down before it was up")
	case o.Gone:
		return to(Against, "the clone went down when it had been up")
	case r.Phase == Trying && o.Missing == "":
		return to(Checking, "")
	case r.Phase == Trying && now-r.Since > t.Deadline:
		return to(Against, "the clone was not up after %v: %s", t.Deadline, o.Missing)
	case r.Phase == Trying:
	case o.Missing != "":
		return to(Against, "the clone was up, and is not any more: %s", o.Missing)
	case r.Phase == Probation && now-r.Since >= t.Probation:
		return to(Confirming, "")
	case r.Phase == Probation:
	case !t.Checked, o.Health != nil && o.Health.OK:
		return to(good, "")
	case o.Health == nil:
		return r, Check
	default:
		return to(Against, "the clone is not well: %s", o.Health.Detail)
	}
	return r, Wait
}
