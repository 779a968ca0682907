// Package custody keeps the account of who has written to a disk: between the
// moment a domain lets go of it and the moment the next domain with the same
// UUID takes it, nobody may have; and while a guest uses it, only that guest.
//
// Nor may the disk have got other contents in another way: what it consists of,
// through all layers, has to be what it was (see disk.Stack).
//
// It is given readings and returns a judgement with the reason. It reads nothing
// itself, so that every case can be tested. Where it cannot
// tell, it says so: the disk then has to be compared with memory in full.
package custody

import (
	"fmt"
	"time"

	"github.com/warmreboot/warmreboot/internal/disk"
)

// Judgement is what can be said of a disk.
type Judgement string

// Judgements.
const (
	// Certain: it is the same disk, and only the guest has written to it.
	Certain Judgement = "certain"
	// Uncertain: nothing speaks against it, but somebody could have written
	// unseen.
	Uncertain Judgement = "uncertain"
	// Broken: it is another disk, or somebody else has written to it.
	Broken Judgement = "broken"
)

// Account is the account of one disk from when a guest was first seen to use
// it until the next boot. It is plain data, to be kept in a journal.
//
// The disk counts the sectors written by all, blkback those of the guest. The
// difference stays what it was (Base) as long as only the guest writes. It is
// less while the guest's writes are under way, and more only if somebody else
// wrote.
type Account struct {
	Identity disk.Identity `json:"identity"`
	Opened   time.Time     `json:"opened"`
	Base     int64         `json:"base"` // sectors
	// Firm: Base is known to be right; it may still rise otherwise.
	Firm bool         `json:"firm"`
	Last disk.Reading `json:"last"`
	// Exact: at Last, every sector written was known to be the guest's.
	Exact bool `json:"exact"`
	// Closed is the last reading taken after the guest's death at which every
	// sector was known to be its own: see Drain.
	Closed *disk.Reading `json:"closed,omitempty"`
	// Traced: a tracer reports every write by others as a breach.
	Traced bool `json:"traced,omitempty"`
	// Doubt is why it can no longer be told, "" if it can; Breach is the proof
	// that somebody else wrote. The first of each is kept.
	Doubt  string `json:"doubt,omitempty"`
	Breach string `json:"breach,omitempty"`
	// Stale is the proof that a page that Xen vouched for was not what the disk had,
	// though nobody is known to have written. Of what has been read since, nothing
	// can be said either.
	Stale string `json:"stale,omitempty"`
}

// settle is how long Base may rise after an account was opened while the guest
// was writing already.
const settle = 2 * time.Second

// Open starts the account of a disk. A reading taken before the guest's first
// write is the best: nothing of the guest's can be under way then.
func Open(id disk.Identity, r disk.Reading) Account {
	a := Account{Identity: id, Opened: r.At, Last: r, Base: int64(r.Written)}
	if r.Guest != nil {
		a.Base -= int64(r.Guest.Written)
	}
	a.Firm = r.Guest == nil || r.Guest.Written == 0
	a.Exact = a.Firm && a.counted()
	a.count(r)
	a.vouch(r)
	return a
}

// vouch enters whether anybody can tell what happens below the disk.
func (a *Account) vouch(r disk.Reading) {
	if r.Stack.Blind != "" {
		a.doubt("%s cannot be vouched for: %s", a.Identity.Name, r.Stack.Blind)
	}
}

// below is the reason that what a disk consists of is no longer what it was.
const below = "%s may have other contents than were written to it: %s"

// notCounted is why a disk whose writes are not counted is uncertain.
const notCounted = "the kernel does not count what is written to %s (queue/iostats is 0)"

// count enters whether the disk's writes are counted at all.
func (a *Account) count(r disk.Reading) {
	if a.counted() && r.Uncounted {
		a.doubt(notCounted, a.Identity.Name)
	}
}

// counted reports whether the disk's writes are counted: those to a plain file
// are not.
func (a *Account) counted() bool { return a.Identity.Block != "" || a.Identity.Loop != "" }

func (a *Account) doubt(format string, args ...any) {
	if a.Doubt == "" {
		a.Doubt = fmt.Sprintf(format, args...)
	}
}

// Question enters why, from whatever source, it cannot be told any longer that
// nobody else wrote.
func (a *Account) Question(format string, args ...any) { a.doubt(format, args...) }

// Resume takes the account up again after the agent was away. What may have
// been under way when it was opened can no longer be told from what somebody
// else has written since.
func (a *Account) Resume() {
	if !a.Firm && a.Closed == nil {
		a.doubt("the agent was away before it was known what of %s was the guest's", a.Identity.Name)
	}
}

// Blame enters the proof, from whatever source, that somebody else wrote.
func (a *Account) Blame(format string, args ...any) {
	if a.Breach == "" {
		a.Breach = fmt.Sprintf(format, args...)
	}
}

// Enter enters a reading taken before the guest is known to be gone.
func (a *Account) Enter(r disk.Reading) {
	last := a.Last
	a.Last = r
	a.vouch(r)
	if why := last.Stack.Differs(r.Stack); why != "" {
		a.doubt(below, a.Identity.Name, why)
		if last.Stack.Anew(r.Stack) { // its counters, too, have begun anew
			a.reopen(r)
			return
		}
	}
	if c, f := last.File, r.File; c != nil && f != nil && f.Ctime < c.Ctime {
		a.doubt("the change time of %s went back: so did its file system, or the clock", a.Identity.Name)
	}
	if !a.counted() {
		return
	}
	a.count(r)
	wasExact := a.Exact
	a.Exact = false
	if r.Written < last.Written || r.Discarded < last.Discarded {
		a.doubt("the counters of %s went back", a.Identity.Name)
		a.reopen(r)
		return
	}
	wrote := r.Written - last.Written
	switch {
	case last.Guest == nil:
		// A backend disconnects only when nothing is under way, so that what
		// the disk counted then is the base of the new connection. But a
		// connection may have come and gone between the readings.
		guest := disk.GuestIO{}
		if r.Guest != nil {
			guest = *r.Guest
		}
		if wrote > guest.Written || r.Discarded != last.Discarded && guest.Discards == 0 {
			a.doubt("%s was written to while no guest was seen to be connected", a.Identity.Name)
			a.reopen(r)
			return
		}
		a.Base, a.Firm = int64(last.Written), true
		a.Exact = wrote == guest.Written
	case r.Guest == nil:
		a.gap(wasExact, last, r, 0)
	case r.Guest.Written < last.Guest.Written || r.Guest.Discards < last.Guest.Discards:
		a.gap(wasExact, last, r, r.Guest.Written)
		exact := a.Exact
		a.reopen(r)
		a.Exact = exact
	default:
		a.books(r)
		a.discards(last, r, last.Guest.Discards)
	}
}

// reopen starts the books anew at r.
func (a *Account) reopen(r disk.Reading) {
	b := Open(a.Identity, r)
	a.Opened, a.Base, a.Firm, a.Exact = b.Opened, b.Base, b.Firm, b.Exact
}

// books compares the disk's books with those of the guest's connection.
func (a *Account) books(r disk.Reading) {
	others := int64(r.Written) - int64(r.Guest.Written)
	if !a.Firm {
		if others > a.Base && !a.Traced {
			a.doubt("%d sectors of %s were under way when it was first looked at: the guest's, or somebody else's",
				others-a.Base, a.Identity.Name)
		}
		a.Base = max(a.Base, others)
		a.Firm = r.At.Sub(a.Opened).Abs() >= settle // whichever way the clock was set
	}
	if others > a.Base {
		a.Blame("%d sectors of %s were written by somebody else than the guest",
			others-a.Base, a.Identity.Name)
	}
	a.Exact = a.Firm && others == a.Base
}

// gap enters that the connection's counters were lost between two readings; a
// later connection has written guest sectors.
func (a *Account) gap(wasExact bool, last, r disk.Reading, guest uint64) {
	wrote := r.Written - last.Written
	switch {
	case wasExact && wrote == guest && r.Discarded == last.Discarded, a.Traced:
		a.Exact = true
	default:
		a.doubt("%d sectors of %s were written in the %v before the guest disconnected: by the guest, or by somebody else",
			wrote-min(guest, wrote), a.Identity.Name, r.At.Sub(last.At).Round(time.Millisecond))
	}
}

// discards enters the discards between two readings; of the connection's
// requests, before were entered earlier.
func (a *Account) discards(last, r disk.Reading, before uint64) {
	if r.Discarded == last.Discarded {
		return
	}
	if r.Guest == nil || r.Guest.Discards == before {
		a.Blame("%d sectors of %s were discarded by somebody else than the guest",
			r.Discarded-last.Discarded, a.Identity.Name)
	}
}

// Drain enters a reading taken after the guest's death and reports whether it
// was the last. That the books balance does not end it: the backend may not
// have come yet to what the guest left in its ring. It has once it has
// disconnected. The account is closed all the same whenever they do, as there
// may be no later reading.
func (a *Account) Drain(r disk.Reading) (last bool) {
	if r.Guest == nil {
		a.Close(r)
		return true
	}
	if a.Enter(r); a.Exact || a.Breach != "" {
		a.Closed = &r
	}
	return a.Breach != ""
}

// Close enters the last reading: the guest is gone, and so is its backend.
func (a *Account) Close(r disk.Reading) {
	a.Enter(r)
	a.Closed = &r
	if a.counted() && !a.Exact && !a.Traced {
		a.doubt("the write counters of %s had not settled when the guest had gone", a.Identity.Name)
	}
}

// Settled reports whether a reading, taken while the new guest may run, has
// nothing under way that somebody else's writes since Close could hide among.
func (a *Account) Settled(r disk.Reading) bool {
	if a.Closed == nil || a.Identity.File != nil || r.Guest == nil || r.Written < a.Closed.Written {
		return true
	}
	return r.Written-a.Closed.Written >= r.Guest.Written
}

// Judge says whether the disk that the next boot is given is as the last guest
// left it. The reading is of the new domain's backend; ran is whether the new
// guest may have run before it was taken.
func (a *Account) Judge(id disk.Identity, r disk.Reading, ran bool) (Judgement, string) {
	if why := a.Identity.Differs(id); why != "" {
		return Broken, why
	}
	if a.Stale != "" {
		return Broken, a.Stale
	}
	if a.Breach != "" {
		return Broken, a.Breach
	}
	if a.Closed == nil {
		return Uncertain, fmt.Sprintf("%s was not being watched when the last guest let go of it", id.Name)
	}
	// The counters of a disk that was away have begun anew.
	if why := a.Identity.Returned(id); why != "" {
		return Uncertain, why
	}
	if j, why := a.since(r, ran); j != Certain {
		return j, why
	}
	if r.Stack.Blind != "" {
		return Uncertain, fmt.Sprintf("%s cannot be vouched for: %s", id.Name, r.Stack.Blind)
	}
	if why := a.Closed.Stack.Differs(r.Stack); why != "" {
		return Uncertain, fmt.Sprintf(below, id.Name, why)
	}
	if a.Doubt != "" {
		return Uncertain, a.Doubt
	}
	return Certain, ""
}

// since judges the time between Close and r.
func (a *Account) since(r disk.Reading, ran bool) (Judgement, string) {
	name := a.Identity.Name
	if a.Identity.File != nil {
		c, f := a.Closed.File, r.File
		if c == nil || f == nil {
			return Uncertain, fmt.Sprintf("the state of %s is not known", name)
		}
		if *c == *f {
			return Certain, ""
		}
		if ran && (r.Guest == nil || *r.Guest != disk.GuestIO{}) {
			return Uncertain, fmt.Sprintf("%s was modified: by the guest that is up again, or before", name)
		}
		return Broken, fmt.Sprintf("%s was modified while the guest was down (at %s)", name,
			time.Unix(0, max(f.Mtime, f.Ctime)).UTC().Format(time.RFC3339))
	}
	var guest disk.GuestIO
	if r.Guest != nil {
		guest = *r.Guest
	} else if ran && r.Written != a.Closed.Written {
		return Uncertain, fmt.Sprintf("%s was written to: by the guest that is up again, or before", name)
	}
	switch {
	case r.Uncounted:
		return Uncertain, fmt.Sprintf(notCounted, name)
	case r.Written < a.Closed.Written || r.Discarded < a.Closed.Discarded:
		return Uncertain, fmt.Sprintf("the counters of %s went back", name)
	case r.Written-a.Closed.Written > guest.Written:
		return Broken, fmt.Sprintf("%d sectors of %s were written while the guest was down",
			r.Written-a.Closed.Written-guest.Written, name)
	case r.Written-a.Closed.Written < guest.Written:
		return Uncertain, fmt.Sprintf("%d sectors that the guest, which is up again, writes to %s are under way: others could hide among them",
			guest.Written-(r.Written-a.Closed.Written), name)
	case r.Discarded != a.Closed.Discarded && guest.Discards == 0:
		return Broken, fmt.Sprintf("%d sectors of %s were discarded while the guest was down",
			r.Discarded-a.Closed.Discarded, name)
	case r.Discarded != a.Closed.Discarded:
		return Uncertain, fmt.Sprintf("sectors of %s were discarded: by the guest that is up again, or before", name)
	}
	return Certain, ""
}
