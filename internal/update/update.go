// Package update decides how a trial of a new kernel goes on: from what is known, what
// is seen and what time it is. It has no clock, and does nothing.
//
// What it is asked to keep safe is done by the toolstack's loader (package bootonce):
// the new kernel is booted once, and every boot after that is the old one's. So
// whatever is not decided here in time, or at all, leads to the old kernel; only
// Blessed makes the new one the domain's.
package update

import (
	"fmt"
	"time"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/bootonce"
)

// Phase is how far a trial is.
type Phase string

// Phases. The last four are the last ones.
const (
	Trying     Phase = "trying"     // it was asked to reboot; the new kernel is not known to be up
	Checking   Phase = "checking"   // it is up, and is asked whether it is well
	Probation  Phase = "probation"  // it is well
	Confirming Phase = "confirming" // it was for long enough, and is asked once more
	Returning  Phase = "returning"  // it is not wanted, and is to make way for the old one

	Blessed  Phase = "blessed"  // it is to be the domain's kernel
	Returned Phase = "returned" // the domain has its old kernel again
	Untried  Phase = "untried"  // the domain did not go down: nothing has happened
	Lost     Phase = "lost"     // somebody has to look
)

// Last reports whether nothing follows a phase.
func (p Phase) Last() bool { return p == Blessed || p == Returned || p == Untried || p == Lost }

// Record is what is known of a trial.
type Record struct {
	Phase Phase `json:"phase"`
	// Since is when the phase began, by the host's uptime.
	Since time.Duration `json:"since"`
	// Domid is the domain with the new kernel, once it is up.
	Domid ident.Domid `json:"domid,omitempty"`
	// Down is since when there is no domain, by the host's uptime; 0: there is one.
	Down time.Duration `json:"down,omitempty"`
	// Made: it was created again by us, as nobody else did so.
	Made bool `json:"made,omitempty"`
	// Polite: the guest can be asked to go down.
	Polite bool `json:"polite,omitempty"`
	// Why it came to Returning, Returned, Untried or Lost.
	Why string `json:"why,omitempty"`
}

// Terms are what was asked for.
type Terms struct {
	// Deadline is how long it may take until a domain is up.
	Deadline time.Duration
	// Probation is how long the new kernel has to be well.
	Probation time.Duration
	// Checked: there is a health check.
	Checked bool
}

// Gone is for how long nobody may create a domain that went down before its toolstack
// is taken to have failed to: it does so within seconds.
const Gone = time.Minute

// Health is what a check says.
type Health struct {
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"` // what was wrong
}

// Observation is what is seen at one look.
type Observation struct {
	// Rebooted: the host was booted since, and knows nothing of the trial.
	Rebooted bool
	// Domid is the domain's that runs; 0 if there is none, or it has shut down.
	Domid ident.Domid
	// Runs is which kernel it was given, "" if not by the trial's loader.
	Runs bootonce.Which
	// Tried: the loader has handed out the new kernel, or was about to.
	Tried bool
	// Booted: a domain was given the new kernel.
	Booted bool
	// Paused: it does not run. One that Runs nothing is being built then, and its loader
	// is yet to be asked.
	Paused bool
	// Busy: it has not come back from its last reboot yet.
	Busy bool
	// Left is why nobody is to create the domain that is not there, "" if it rebooted or
	// crashed, so that it is to be. If nobody knows, it may run elsewhere on its disks.
	Left string
	// NotAsked is why the domain was not rebooted, "" if it was, or nobody knows.
	NotAsked string
	// Health is what the check said that was asked for at the last look, nil if none was.
	Health *Health
}

// Action is what is to be done besides looking again.
type Action string

// Actions.
const (
	Wait   Action = ""
	Check  Action = "check"  // make the health check, and look again, with what it says
	Create Action = "create" // create the domain, with its old kernel, as nobody else does so
)

// Next returns what is known after a look, and what is to be done.
func Next(r Record, t Terms, o Observation, now time.Duration) (Record, Action) {
	if r.Phase.Last() && r.Phase != Blessed {
		return r, Wait
	}
	if o.Rebooted {
		return r.to(Lost, now, "the host was booted meanwhile: the domain has the kernel that its configuration names"), Wait
	}
	if r.Phase == Trying && !o.Tried && o.NotAsked != "" {
		return r.to(Untried, now, o.NotAsked), Wait
	}
	if o.Domid == 0 {
		return r.absent(t, o, now)
	}
	r.Down = 0
	late := now-r.Since > t.Deadline
	switch {
	case o.Runs != bootonce.New && (o.Tried || r.Made):
		return r.back(o, late, now), Wait
	case !o.Tried && late:
		return r.to(Untried, now, "it has not gone down"), Wait
	case !o.Tried: // it is still the domain from before
	case r.Phase == Trying && !o.Busy:
		r.Domid = o.Domid
		return r.to(Checking, now, ""), Wait
	case r.Phase == Trying && late:
		r.Domid = o.Domid
		return r.to(Returning, now, fmt.Sprintf("the new kernel was not up after %v", t.Deadline)), Wait
	case r.Phase == Returning && late:
		return r.to(Lost, now, r.Why+", and its domain could not be taken down"), Wait
	case r.Phase == Checking || r.Phase == Confirming:
		return r.checked(t, o, now)
	case r.Phase == Probation && now-r.Since >= t.Probation:
		return r.to(Confirming, now, ""), Wait
	}
	return r, Wait
}

// to enters another phase. What is not said anew stays said.
func (r Record) to(p Phase, now time.Duration, why string) Record {
	r.Phase, r.Since = p, now
	if why != "" {
		r.Why = why
	}
	return r
}

// absent is that there is no domain: its toolstack is about to create it, or somebody
// has it elsewhere, or wants it off.
func (r Record) absent(t Terms, o Observation, now time.Duration) (Record, Action) {
	if r.Down == 0 {
		r.Down = max(now, 1)
	}
	switch {
	case r.Made && now-r.Down > t.Deadline:
		return r.to(Lost, now, "the domain went down, and could not be created again"), Wait
	case !r.Made && now-r.Down > Gone && o.Left != "":
		return r.to(Lost, now, o.Left), Wait
	case !r.Made && now-r.Down > Gone:
		r.Made, r.Down = true, max(now, 1)
		return r, Create
	}
	return r, Wait
}

// back is that the domain runs, and not with the new kernel, which was tried.
func (r Record) back(o Observation, late bool, now time.Duration) Record {
	switch {
	case o.Runs == "" && !r.Made && o.Paused:
		return r
	case o.Runs == "" && !r.Made:
		return r.to(Lost, now, fmt.Sprintf("domain %d was not booted by what the update has told the toolstack: it was restored, or created by another configuration. Nobody knows which kernel it has", o.Domid))
	case r.Phase == Returning && o.Busy && !late: // it is not known yet whether it is warm
		return r
	case r.Phase == Returning:
		return r.to(Returned, now, "")
	}
	why := "the new kernel went down while it was on probation"
	switch {
	case r.Made || !o.Booted:
		why = "the new kernel could not be loaded: /var/log/xen has what the toolstack says of it"
	case r.Phase == Trying:
		why = "the new kernel went down before it was up"
	case r.Phase == Checking:
		why = "the new kernel went down while it was asked whether it is well"
	}
	return r.to(Returning, now, why)
}

// checked is what follows a health check, of the domain that was asked.
func (r Record) checked(t Terms, o Observation, now time.Duration) (Record, Action) {
	good := Probation
	if r.Phase == Confirming {
		good = Blessed
	}
	switch {
	case o.Domid != r.Domid: // a new kernel that is not the one which was tried: there is none
		return r.to(Lost, now, fmt.Sprintf("domain %d has the new kernel, which was given to domain %d", o.Domid, r.Domid)), Wait
	case !t.Checked:
		return r.to(good, now, ""), Wait
	case o.Health == nil:
		return r, Check
	case o.Health.OK:
		return r.to(good, now, ""), Wait
	}
	r.Polite = true
	return r.to(Returning, now, "the new kernel is not well: "+o.Health.Detail), Wait
}
