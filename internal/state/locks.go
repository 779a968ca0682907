package state

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/ident"
)

// Lock keeps everybody else from rebooting a domain, until it is released or
// its time is over. Its time passes as the host's uptime does: it does not depend
// on the clock, nor does it pass while the host is off.
type Lock struct {
	UUID   ident.UUID `json:"uuid"`
	Domain string     `json:"domain"`
	// Owner is who may release it, Reason what for.
	Owner  string `json:"owner"`
	Reason string `json:"reason,omitempty"`
	// Made is when, by the clock, to be shown.
	Made time.Time `json:"made"`
	TTL  float64   `json:"ttl_seconds"`
	// Run: it is held for something that the daemon does, which ends with it:
	// Operation has its ID, and Schedule says for which one it is done.
	Run       bool   `json:"run,omitempty"`
	Operation string `json:"operation,omitempty"`
	Schedule  string `json:"schedule,omitempty"`

	// Passed is how much of TTL had passed, in seconds, when the uptime of that boot
	// of the host was At. The store counts these.
	Passed float64 `json:"passed_seconds"`
	Boot   string  `json:"boot"`
	At     float64 `json:"at"`
	// Until is when its time will be over, as the clock is now; zero: it has none.
	Until time.Time `json:"-"`
}

// passed is how much of its time has passed.
func (l Lock) passed(m Moment) time.Duration {
	if l.Boot == "" { // of a version that counted by the clock
		if l.Made.IsZero() {
			return 0
		}
		return max(0, m.Wall.Sub(l.Made))
	}
	return max(0, seconds(l.Passed)) + m.since(l.Boot, l.At)
}

func (l Lock) String() string {
	s := "locked by " + l.Owner
	if l.Reason != "" {
		s += " (" + l.Reason + ")"
	}
	if l.Until.IsZero() {
		return s + " until it is released"
	}
	return fmt.Sprintf("%s until %s", s, l.Until.Local().Format("2006-01-02 15:04:05"))
}

// HeldError is that somebody else has the lock.
type HeldError struct{ Lock Lock }

func (e *HeldError) Error() string { return "domain " + e.Lock.Domain + " is " + e.Lock.String() }

// live returns a domain's lock if its time is not over.
func (k kept) live(uuid ident.UUID, m Moment) (Lock, bool) {
	l, ok := k.Locks[uuid]
	if left := seconds(l.TTL) - l.passed(m); ok && left > 0 {
		l.Until = m.Wall.Add(left)
		return l, true
	}
	if k.Lost != nil && !k.Lost.Released[uuid] {
		return Lock{UUID: uuid, Owner: "warmrebootd", Reason: k.lostText()}, true
	}
	return Lock{}, false
}

// heldBy reports whether a lock is the one of that owner, or of that operation if it is
// one's: two of one owner's are not each other's.
func (l Lock) heldBy(owner, operation string) bool {
	return l.Operation == operation && (operation != "" || l.Owner == owner)
}

// Lock takes a lock, from m on. If somebody else has it the error is a *HeldError;
// its owner takes it anew.
func (s *Store) Lock(l Lock, m Moment) error {
	return s.change(func(k *kept) (bool, error) {
		if held, ok := k.live(l.UUID, m); ok && !held.heldBy(l.Owner, l.Operation) {
			if held.Domain == "" {
				held.Domain = l.Domain
			}
			return false, &HeldError{held}
		}
		l.Made, l.Passed, l.Boot, l.At = m.Wall, 0, m.Boot, m.Up.Seconds()
		k.Locks = maps.Clone(k.Locks)
		k.Locks[l.UUID] = l
		return true, nil
	})
}

// Release releases a lock if its owner, or its operation, still has it.
func (s *Store) Release(l Lock, m Moment) error {
	return s.change(func(k *kept) (bool, error) {
		held, ok := k.live(l.UUID, m)
		if !ok || !held.heldBy(l.Owner, l.Operation) {
			return false, nil
		}
		k.Locks = maps.Clone(k.Locks)
		delete(k.Locks, l.UUID)
		return true, nil
	})
}

// Unlock releases whosever lock, also that of a domain of which nobody knows any more
// whether it was locked. It returns what was released.
func (s *Store) Unlock(uuid ident.UUID, m Moment) (l Lock, ok bool, err error) {
	err = s.change(func(k *kept) (bool, error) {
		if l, ok = k.live(uuid, m); !ok {
			return false, nil
		}
		k.Locks = maps.Clone(k.Locks)
		delete(k.Locks, uuid)
		if k.Lost != nil {
			lost := *k.Lost
			lost.Released = maps.Clone(lost.Released)
			lost.Released[uuid] = true
			k.Lost = &lost
		}
		return true, nil
	})
	return l, ok && err == nil, err
}

// LockOf returns a domain's lock.
func (s *Store) LockOf(uuid ident.UUID, m Moment) (Lock, bool) { return s.now().live(uuid, m) }

// Locks returns the locks whose time is not over, by domain: those that somebody
// took. It changes nothing; Observe forgets the others.
func (s *Store) Locks(m Moment) (all []Lock) {
	k := s.now()
	for uuid := range k.Locks {
		if l, ok := k.live(uuid, m); ok && !l.Until.IsZero() {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b Lock) int { return strings.Compare(a.Domain, b.Domain) })
	return all
}
