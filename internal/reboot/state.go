// Package reboot is one reboot of a domain, as a machine: the phases that
// docs/ARCHITECTURE.md names, and what leads from one to the next.
//
// It has no clock and does nothing: Next is given what is known, what is seen and what
// time it is, and says what is known then, and what is to be done. So every moment of
// a reboot can be tested, with every kill between two effects.
package reboot

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl/facts"
)

// Phase is where a domain is in its life.
type Phase string

// Phases. From Down to Restore a reboot is under way, if the domain is to come back.
const (
	Unseen    Phase = "unseen"    // it has not been there since it is looked after
	Running   Phase = "running"   // its pages become reusable
	Down      Phase = "down"      // it has gone down, and is about to be created again
	Off       Phase = "off"       // it has gone down, and is not, as far as one can tell
	Up        Phase = "up"        // the next domain is there, and does not run yet
	Judgement Phase = "judgement" // it runs, and has no verdict yet
	Restore   Phase = "restore"   // it has, and has not said that it is through
	Away      Phase = "away"      // it was suspended, and is still here: it may go on
	Gone      Phase = "gone"      // it was, and has left: it may run elsewhere
)

// State is what is known of a domain. It is journalled as a part of the agent's record.
type State struct {
	UUID    ident.UUID `json:"uuid"`
	Name    string     `json:"name"`
	Enabled bool       `json:"enabled"`
	// Sequence counts the reboots.
	Sequence uint64 `json:"sequence"`
	// Domid is the domain that was last seen under the UUID.
	Domid ident.Domid `json:"domid"`
	// Resumed: that domain was not booted here, but restored or migrated in.
	Resumed bool `json:"resumed,omitempty"`
	// Suspended: it was, to be saved or migrated. Left: and then it went.
	Suspended bool `json:"away,omitempty"`
	Left      bool `json:"gone,omitempty"`
	// Woken: it was suspended, and goes on here, as after a checkpoint. Until the guest
	// registers a page it has not tracked since; Registered is how many it had when it
	// was suspended.
	Woken      bool   `json:"woken,omitempty"`
	Registered uint64 `json:"registered,omitempty"`
	// Clones are other domains that ran under the UUID beside it.
	Clones []ident.Domid `json:"clones,omitempty"`
	// Intent is what an operator asked for, until the domain is gone.
	Intent *Intent `json:"intent,omitempty"`
	// Reboot is the reboot under way: the domain has gone down, and the next
	// one has not finished its restore.
	Reboot *Reboot `json:"reboot,omitempty"`
	// Fuse is the last restore, if it did not end well: the next boot restores
	// nothing.
	Fuse *Fuse `json:"fuse,omitempty"`
	// Last is the last reboot that has ended.
	Last *api.Summary `json:"last,omitempty"`

	// Before is what Xen last said of the domain, Unrun whether the new domain has
	// not been seen to run. Witnessed: a domain of the UUID was seen, and so all that
	// became of it since. Whoever starts anew has not seen anything.
	Before    facts.WarmcacheStatus `json:"-"`
	Unrun     bool                  `json:"-"`
	Witnessed bool                  `json:"-"`
}

// Intent is a reboot that was asked for.
type Intent struct {
	Mode api.Trigger `json:"mode"`
	Asker
	Domid ident.Domid `json:"domid"`
	At    time.Time   `json:"at"`
}

// intentLasts is how long a guest that was asked to reboot may take until it goes
// down: whatever it does later, it does of its own accord.
const intentLasts = 15 * time.Minute

// over reports whether the guest has not done what it was asked for.
func (i *Intent) over(now time.Time) bool { return now.Sub(i.At).Abs() > intentLasts }

// Asker is who asked for a reboot.
type Asker struct {
	By       api.Origin `json:"by"`
	Schedule string     `json:"schedule,omitempty"` // which, if By is api.BySchedule
}

// Fuse says which restore did not end well, and how. What made it end so is not
// known, nor asked: it may be in what was kept, and would come back with it.
type Fuse struct {
	Sequence uint64 `json:"sequence"` // of the reboot
	Why      string `json:"why"`
}

func (f *Fuse) String() string {
	return fmt.Sprintf("nothing is restored this time, as the restore after reboot %d did not end well: %s", f.Sequence, f.Why)
}

// Reboot is a reboot under way.
type Reboot struct {
	Summary api.Summary `json:"summary"`
	// Decided: every vbd has its verdict, or there is nothing to decide.
	Decided bool `json:"decided"`
	// ImagePages is what Xen was seen to keep while the domain was down, Lost
	// why it does not any more.
	ImagePages uint64 `json:"image_pages,omitempty"`
	Lost       string `json:"lost,omitempty"`
	// Off: it was switched off, or is not to be created again after what it did.
	Off bool `json:"off,omitempty"`
	// Attempted: pages have been approved, or are about to be. It is written down
	// before, so that a restore that takes the guest down is never forgotten.
	Attempted bool `json:"attempted,omitempty"`
	// Fuse is why this boot restores nothing, if the last restore did not end well.
	Fuse *Fuse `json:"fuse,omitempty"`
	// Untracked: the guest that went down did not track.
	Untracked bool `json:"untracked,omitempty"`
	// Resumed: it had been suspended since its boot, and so not been tracked.
	Resumed bool `json:"resumed,omitempty"`
	// Seen is when the new domain was first seen, Ran when it first ran.
	Seen time.Time `json:"seen"`
	Ran  time.Time `json:"ran"`
}

// recreateWait is how long after it went down a toolstack that recreates the
// domain has done so, with time to spare.
const recreateWait = 2 * time.Minute

// awaited reports whether a domain that is down is about to come back: not one that
// was switched off, nor one that was taken away by whomever, for whatever purpose.
func (b *Reboot) awaited(now time.Time) bool {
	return !b.Off && (b.Summary.Trigger != api.Unknown || now.Sub(b.Summary.Started).Abs() < recreateWait)
}

// Joinable reports whether the domain is in a reboot of its own that has just begun: a
// forced one has nothing to do but to wait for that.
func (b *Reboot) Joinable(now time.Time) bool {
	return b != nil && !b.Off && now.Sub(b.Summary.Started) < recreateWait
}

// Phase returns where the domain is.
func (s *State) Phase(now time.Time) Phase {
	b := s.Reboot
	switch {
	case s.Left:
		return Gone
	case s.Suspended:
		return Away
	case b == nil && s.Domid == 0:
		return Unseen
	case b == nil:
		return Running
	case s.Domid == 0 && b.awaited(now):
		return Down
	case s.Domid == 0:
		return Off
	case b.Decided:
		return Restore
	case b.Ran.IsZero():
		return Up
	}
	return Judgement
}

// UnderWay reports whether a reboot is.
func (p Phase) UnderWay() bool { return p == Down || p == Up || p == Judgement || p == Restore }

// clone copies what Next changes.
func (s State) clone() State {
	s.Clones = slices.Clone(s.Clones)
	if s.Reboot != nil {
		b := *s.Reboot
		b.Summary = CloneSummary(b.Summary)
		s.Reboot = &b
	}
	return s
}

// CloneSummary copies a summary so that it can be handed out.
func CloneSummary(s api.Summary) api.Summary {
	s.Refused = maps.Clone(s.Refused)
	s.VBDs = slices.Clone(s.VBDs)
	for i := range s.VBDs {
		s.VBDs[i].Refusals = slices.Clone(s.VBDs[i].Refusals)
	}
	return s
}
