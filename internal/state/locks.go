package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/ident"
	bolt "go.etcd.io/bbolt"
)

// Lock keeps everybody else from rebooting a domain, until it is released or
// its time is over.
type Lock struct {
	UUID   ident.UUID `json:"uuid"`
	Domain string     `json:"domain"`
	// Owner is who may release it, Reason what for.
	Owner  string    `json:"owner"`
	Reason string    `json:"reason,omitempty"`
	Made   time.Time `json:"made"`
	TTL    float64   `json:"ttl_seconds"`
	// Run: it is held for something that the daemon does, which ends with it;
	// Schedule says for which one.
	Run      bool   `json:"run,omitempty"`
	Schedule string `json:"schedule,omitempty"`
}

// Until is when its time is over.
func (l Lock) Until() time.Time { return l.Made.Add(time.Duration(l.TTL * float64(time.Second))) }

func (l Lock) String() string {
	s := "locked by " + l.Owner
	if l.Reason != "" {
		s += " (" + l.Reason + ")"
	}
	return fmt.Sprintf("%s until %s", s, l.Until().Local().Format("2006-01-02 15:04:05"))
}

// HeldError is that somebody else has the lock.
type HeldError struct{ Lock Lock }

func (e *HeldError) Error() string { return "domain " + e.Lock.Domain + " is " + e.Lock.String() }

// live returns a domain's lock if its time is not over. One that was made in the
// future, as the clock was set back, lasts no longer than one made now.
func live(b *bolt.Bucket, uuid []byte, now time.Time) (Lock, bool) {
	l, ok := get[Lock](b, uuid)
	if ok && l.Made.After(now) {
		l.Made = now
	}
	return l, ok && l.Until().After(now)
}

// Lock takes a lock, at l.Made. If somebody else has it the error is a
// *HeldError; its owner takes it anew.
func (s *Store) Lock(l Lock) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(locksBucket)
		if held, ok := live(b, l.UUID[:], l.Made); ok && held.Owner != l.Owner {
			return &HeldError{held}
		}
		return put(b, l.UUID[:], l)
	})
}

// Unlock releases a lock, if owner has it; "" releases anybody's. It returns
// what was released.
func (s *Store) Unlock(uuid ident.UUID, owner string) (l Lock, ok bool, err error) {
	err = s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(locksBucket)
		if l, ok = get[Lock](b, uuid[:]); !ok || owner != "" && l.Owner != owner {
			ok = false
			return nil
		}
		return b.Delete(uuid[:])
	})
	return l, ok, err
}

// Locks returns the locks whose time is not over, by domain, and forgets the
// others.
func (s *Store) Locks(now time.Time) (all []Lock, err error) {
	var over, moved []Lock
	err = s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(locksBucket)
		return b.ForEach(func(k, raw []byte) error {
			l, ok := live(b, k, now)
			var was Lock
			_ = json.Unmarshal(raw, &was)
			switch {
			case !ok:
				over = append(over, Lock{UUID: ident.UUID(k)})
			case !l.Made.Equal(was.Made):
				moved = append(moved, l)
				fallthrough
			default:
				all = append(all, l)
			}
			return nil
		})
	})
	if err == nil && len(over)+len(moved) > 0 {
		err = s.db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(locksBucket)
			for _, l := range over {
				if _, ok := live(b, l.UUID[:], now); !ok {
					if err := b.Delete(l.UUID[:]); err != nil {
						return err
					}
				}
			}
			for _, l := range moved {
				if err := put(b, l.UUID[:], l); err != nil {
					return err
				}
			}
			return nil
		})
	}
	slices.SortFunc(all, func(a, b Lock) int { return strings.Compare(a.Domain, b.Domain) })
	return all, err
}
