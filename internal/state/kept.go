package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/schedule"
	"github.com/warmreboot/warmreboot/internal/store"
	"github.com/warmreboot/warmreboot/internal/text"
)

// KeptName is the name of the file of locks, stopped schedules and progress.
const KeptName = "schedules.state"

// keptKind bounds the file: some 100 000 domains under one schedule.
var keptKind = store.Kind{Name: "schedules", Version: 1, Limit: 32 << 20}

// kept is what is in that file.
type kept struct {
	Locks   map[ident.UUID]Lock   `json:"locks"`
	Stopped map[string]string     `json:"stopped"` // schedule -> why
	Births  map[ident.UUID]Birth  `json:"births"`
	Began   map[string]Began      `json:"began"` // schedule -> its last run; "": of any
	Seen    map[ident.UUID]uint32 `json:"seen"`  // Observed when the domain was there
	// Observed is for how many hours, in all, a daemon has looked at domains. It is
	// what time is counted by that domains are forgotten after: a clock that is wrong
	// forgets nothing.
	Observed uint32 `json:"observed_hours"`
	// Counted is up to when Observed is.
	Counted Began `json:"counted"`
	Lost    *Loss `json:"lost,omitempty"`

	Memory   map[schedule.Key]schedule.Memory `json:"-"`
	Progress []progress                       `json:"progress"` // Memory, as it is written
}

type progress struct {
	UUID     ident.UUID      `json:"uuid"`
	Schedule string          `json:"schedule"`
	Memory   schedule.Memory `json:"memory"`
}

// Loss is that the file of locks could not be read any more. Nobody knows then
// what was locked and stopped, so everything is, until somebody releases it, or
// longer than any lock lasts.
type Loss struct {
	Why   string `json:"why"`
	Hours uint32 `json:"hours"` // Observed, when it was found
	// Released and Resumed are what operators have looked at since.
	Released map[ident.UUID]bool `json:"released"`
	Resumed  map[string]bool     `json:"resumed"`
}

// MaxLock is how long a lock may last.
const MaxLock = 366 * 24 * time.Hour

// Began is when something began, in seconds of uptime.
type Began struct {
	Boot string  `json:"boot"`
	At   float64 `json:"at"`
}

func newKept() kept {
	return kept{Locks: map[ident.UUID]Lock{}, Stopped: map[string]string{}, Births: map[ident.UUID]Birth{}, Began: map[string]Began{},
		Seen: map[ident.UUID]uint32{}, Memory: map[schedule.Key]schedule.Memory{}}
}

func encodeKept(k kept) ([]byte, error) {
	k.Progress = nil
	for key, m := range k.Memory {
		k.Progress = append(k.Progress, progress{key.UUID, key.Rule, m})
	}
	return text.Marshal(k)
}

func decodeKept(body []byte) (kept, error) {
	k := newKept()
	if err := json.Unmarshal(body, &k); err != nil {
		return kept{}, fmt.Errorf("%w: %w", store.ErrDamaged, err)
	}
	for _, p := range k.Progress {
		k.Memory[schedule.Key{Rule: p.Schedule, UUID: p.UUID}] = p.Memory
	}
	k.Progress = nil
	return k, nil
}

// load reads the file, or takes over what an older database has of it. damaged says
// that there was a database which could not be read, fresh that there was none. lost
// is that locks have been lost, which is no reason not to go on.
func (s *Store) load(fresh, damaged bool) (lost, err error) {
	_, body, err := s.dir.Read(KeptName, keptKind)
	if err == nil {
		var k kept
		k, err = decodeKept(body)
		s.kept.Store(&k)
	}
	path := filepath.Join(s.dir.Path, KeptName)
	switch {
	case err == nil:
		return nil, nil
	case errors.Is(err, store.ErrDamaged):
		to, aside := s.dir.SetAside(KeptName)
		if aside != nil {
			return nil, errors.Join(err, aside)
		}
		lost = fmt.Errorf("%w; it is kept as %s", err, to)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case damaged:
		lost = fmt.Errorf("%s: there is none, and the database that may have had the locks was damaged", path)
	}
	now := newKept()
	old := false
	if lost == nil && !fresh {
		if now, old, err = s.takeOver(); err != nil {
			return nil, err
		}
		if !old {
			lost = fmt.Errorf("%s is gone", path)
		}
	}
	if lost != nil {
		lost = fmt.Errorf("nobody knows what was locked and which schedules were stopped: %w", lost)
		now.Lost = &Loss{Why: lost.Error(), Released: map[ident.UUID]bool{}, Resumed: map[string]bool{}}
	}
	return lost, s.write(now)
}

// takeOver reads locks, stopped schedules and progress from a database of schema 0;
// false if it is of a later one. What cannot be decoded fails closed.
func (s *Store) takeOver() (k kept, old bool, err error) {
	k = newKept()
	err = s.db.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket(metaBucket); b != nil && b.Get(schemaKey) != nil {
			return nil
		}
		old = true
		if b := tx.Bucket(oldLocks); b != nil {
			err := b.ForEach(func(key, raw []byte) error {
				var l Lock
				if len(key) != 16 {
					return nil
				}
				if json.Unmarshal(raw, &l) != nil {
					l = Lock{Owner: "somebody", Reason: "the lock could not be read", TTL: MaxLock.Seconds()}
				}
				l.UUID = ident.UUID(key)
				k.Locks[l.UUID] = l
				return nil
			})
			if err != nil {
				return err
			}
		}
		b := tx.Bucket(oldProgress)
		if b == nil {
			return nil
		}
		return b.ForEach(func(key, raw []byte) error {
			what, rest, _ := bytes.Cut(key, []byte("/"))
			switch {
			case string(what) == "memory" && len(rest) > 16:
				var m schedule.Memory
				if json.Unmarshal(raw, &m) == nil {
					k.Memory[schedule.Key{Rule: string(rest[16:]), UUID: ident.UUID(rest[:16])}] = m
				}
			case string(what) == "birth" && len(rest) == 16:
				var b Birth
				if json.Unmarshal(raw, &b) == nil {
					k.Births[ident.UUID(rest)] = b
				}
			case string(what) == "stopped":
				why := ""
				if json.Unmarshal(raw, &why) != nil {
					why = "the reason could not be read"
				}
				k.Stopped[string(rest)] = why
			}
			return nil
		})
	})
	return k, old, err
}

func (s *Store) write(k kept) error {
	body, err := encodeKept(k)
	if err != nil {
		return err
	}
	if err := s.dir.Write(KeptName, keptKind, body); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	s.kept.Store(&k)
	return nil
}

// change has f make another one of what is kept. f changes no map that it was
// given, but clones it first. If it returns false, or an error, nothing is written.
func (s *Store) change(f func(*kept) (bool, error)) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	k := s.now()
	if changed, err := f(&k); err != nil || !changed {
		return err
	}
	return s.write(k)
}

func (s *Store) now() kept { return *s.kept.Load() }

// Lost says that locks and stopped schedules were lost, and why; "" if not.
func (s *Store) Lost() string {
	if l := s.now().Lost; l != nil {
		return l.Why
	}
	return ""
}

// forgetAfter is how long, in hours that a daemon ran, a domain has not been there
// when it is forgotten; hourly is how often Observe counts.
const (
	forgetAfter = 6 * 7 * 24
	hourly      = time.Hour
)

// Observe counts the time, which locks pass by, and forgets: locks whose time is
// over, and what is known of domains that have not been there for six weeks in
// which daemons ran. It returns those, the domains that are forgotten. It writes
// when there is something to, and once an hour.
func (s *Store) Observe(m Moment, there []ident.UUID) (gone []ident.UUID, err error) {
	err = s.change(func(k *kept) (bool, error) {
		changed := false
		locks := maps.Clone(k.Locks)
		for uuid, l := range locks {
			passed := l.passed(m)
			if passed >= seconds(l.TTL) {
				delete(locks, uuid)
				changed = true
			} else if l.Boot != m.Boot || m.since(l.Boot, l.At) >= hourly/6 {
				l.Passed, l.Boot, l.At = passed.Seconds(), m.Boot, m.Up.Seconds()
				locks[uuid] = l
				changed = true
			}
		}
		k.Locks = locks
		fresh := false
		for _, u := range there {
			_, known := k.Seen[u]
			fresh = fresh || !known
		}
		hours := uint32(min(m.since(k.Counted.Boot, k.Counted.At)/hourly, 1<<20))
		if k.Counted.Boot == "" {
			hours = 0
		}
		if k.Counted.Boot == m.Boot && hours == 0 && !fresh {
			return changed, nil
		}
		if k.Counted.Boot != m.Boot || hours > 0 {
			k.Observed += hours
			k.Counted = Began{m.Boot, m.Up.Seconds()}
		}
		k.Seen = maps.Clone(k.Seen)
		for _, u := range there {
			k.Seen[u] = k.Observed
		}
		gone = k.forget()
		return true, nil
	})
	if err != nil || len(gone) == 0 {
		return gone, err
	}
	return gone, s.db.Update(func(tx *bolt.Tx) error {
		for _, u := range gone {
			if err := tx.Bucket(lastBucket).Delete(u[:]); err != nil {
				return err
			}
		}
		return nil
	})
}

// forget forgets domains that have not been there for long. A lock is kept until
// its time is over: the domain may only be switched off.
func (k *kept) forget() (gone []ident.UUID) {
	for u := range k.Births { // of before there was Seen
		if _, ok := k.Seen[u]; !ok {
			k.Seen[u] = k.Observed
		}
	}
	for key := range k.Memory {
		if _, ok := k.Seen[key.UUID]; !ok {
			k.Seen[key.UUID] = k.Observed
		}
	}
	dead := map[ident.UUID]bool{}
	for u, at := range k.Seen {
		if _, locked := k.Locks[u]; !locked && k.Observed-min(at, k.Observed) > forgetAfter {
			dead[u] = true
			gone = append(gone, u)
			delete(k.Seen, u)
		}
	}
	if len(gone) > 0 {
		k.Births = maps.Clone(k.Births)
		maps.DeleteFunc(k.Births, func(u ident.UUID, _ Birth) bool { return dead[u] })
		k.Memory = maps.Clone(k.Memory)
		maps.DeleteFunc(k.Memory, func(key schedule.Key, _ schedule.Memory) bool { return dead[key.UUID] })
	}
	if k.Lost != nil && time.Duration(k.Observed-min(k.Lost.Hours, k.Observed))*time.Hour > MaxLock {
		k.Lost = nil
	}
	return gone
}

// lostText is what is said of something that may have been locked or stopped.
func (k kept) lostText() string { return strings.TrimSuffix(k.Lost.Why, ".") }
