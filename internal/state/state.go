// Package state is what the daemon keeps over its restarts beside the agent's
// journal, in two files that one process at a time writes to.
//
// The history of reboots is in a database. If it is lost, history is.
//
// Locks, stopped schedules and how far each schedule has got are apart, in a small
// file that is replaced as a whole: that somebody said "do not touch" must not
// depend on a database being readable. If that file is lost nevertheless, every
// domain counts as locked and every schedule as stopped, until an operator releases
// them; see Loss.
//
// Only what is proved damaged is set aside. What merely cannot be read or written
// now (no memory, no space, an I/O error) is an error of Open, and changes nothing.
package state

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/warmreboot/warmreboot/internal/store"
	"github.com/warmreboot/warmreboot/internal/text"
)

// ErrBusy: another process has the file open.
var ErrBusy = errors.New("state: another process has the file open")

// FileName is the database's name in the daemon's state directory.
const FileName = "state.db"

// Limits bound the history; 0 is the default.
type Limits struct {
	Entries   int // of all domains; 10000
	PerDomain int // 1000
}

// Store is the open files. Its methods may be called from several goroutines.
type Store struct {
	db     *bolt.DB
	limits Limits
	dir    store.Dir

	writing sync.Mutex // held while kept is written and replaced
	// kept is as on the disk, and never changed, but replaced: who reads waits for
	// nobody who writes.
	kept atomic.Pointer[kept]
}

var (
	metaBucket    = []byte("meta")    // "schema" -> number
	rebootsBucket = []byte("reboots") // UUID -> ID -> api.HistoryEntry
	lastBucket    = []byte("last")    // UUID -> lastReboot
	// Of schema 0.
	oldLocks    = []byte("locks")
	oldProgress = []byte("progress")

	schemaKey = []byte("schema")
)

// schema is the version of the database. That of 1 has no locks and no progress.
const schema = 1

// openWait is how long another process that has the file open is waited for.
const openWait = time.Second

// bolting is how the database is opened; tests have its file's calls fail.
var bolting = bolt.Options{Timeout: openWait}

// Open opens or makes the store for writing. A file that is proved damaged is set
// aside, as .corrupt; then there are both a store and an error, which says so.
// After any other error the store is nil, and nothing was changed.
func Open(path string, limits Limits) (*Store, error) {
	if limits.Entries == 0 {
		limits.Entries = 10000
	}
	if limits.PerDomain == 0 {
		limits.PerDomain = 1000
	}
	s := &Store{limits: limits, dir: store.Dir{Path: filepath.Dir(path)}}
	if err := s.dir.Make(); err != nil {
		return nil, err
	}
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	fresh := err != nil
	var damaged error
	s.db, err = open(path, bolting)
	var proof *damage
	if errors.As(err, &proof) {
		to, aside := s.dir.SetAside(filepath.Base(path))
		damaged = fmt.Errorf("%s is damaged: %w; it is kept as %s, and the history begins anew", path, err, to)
		if aside != nil {
			return nil, errors.Join(damaged, aside)
		}
		s.db, err = open(path, bolting)
	}
	if err != nil {
		return nil, err
	}
	lost, err := s.load(fresh, damaged != nil)
	if err == nil {
		err = s.db.Update(func(tx *bolt.Tx) error { return setSchema(tx) })
	}
	if err != nil {
		_ = s.db.Close()
		return nil, errors.Join(damaged, err)
	}
	return s, errors.Join(damaged, lost)
}

// OpenReadOnly opens an existing history while no daemon runs. It changes nothing,
// whatever state the file is in.
func OpenReadOnly(path string) (*Store, error) {
	o := bolting
	o.ReadOnly = true
	db, err := open(path, o)
	if err != nil {
		return nil, err
	}
	return &Store{db: db}, nil
}

// damage is proved: reading again, or later, would find the same.
type damage struct{ err error }

func (d *damage) Error() string { return d.err.Error() }
func (d *damage) Unwrap() error { return d.err }

// open opens the database and looks through all of it once, as bbolt itself would
// panic later. It may panic here, too. The error is a *damage if, and only if, the
// file's content is what is wrong.
func open(path string, o bolt.Options) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a file that was cut off
	defer func() {
		p := recover()
		if p != nil {
			err = &damage{fmt.Errorf("%v", p)}
			if _, fault := p.(interface{ Addr() uintptr }); fault {
				// A page that cannot be had: cut off, or the disk does not answer. The latter
				// is told by reading in the ordinary way.
				if _, unreadable := os.ReadFile(path); unreadable != nil {
					err = unreadable
				}
			}
		}
		if err != nil && db != nil {
			_ = db.Close()
			db = nil
		}
	}()
	if db, err = bolt.Open(path, 0o600, &o); err != nil {
		switch {
		case errors.Is(err, bolterrors.ErrTimeout):
			return nil, fmt.Errorf("%s: %w", path, ErrBusy)
		case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
			return nil, &damage{err}
		case tooSmall(path):
			return nil, &damage{err} // for which bbolt has no error of its own
		}
		return nil, err
	}
	// Not by Tx.Check: that panics in a goroutine of its own.
	err = db.View(func(tx *bolt.Tx) error {
		if err := tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return readAll(b) }); err != nil {
			return err
		}
		return checkSchema(tx, path)
	})
	return db, err
}

// tooSmall reports whether a file has something in it, but not the two pages that
// bbolt begins with.
func tooSmall(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Size() > 0 && st.Size() < int64(2*os.Getpagesize())
}

func checkSchema(tx *bolt.Tx, path string) error {
	if b := tx.Bucket(metaBucket); b != nil {
		if v, err := strconv.Atoi(string(b.Get(schemaKey))); err != nil || v > schema {
			return fmt.Errorf("%s is of version %s, this program knows up to %d: install the version that wrote it, or move the file away", path, b.Get(schemaKey), schema)
		}
	}
	return nil
}

// setSchema makes what a database of this version has, and removes what one of an
// older version had, which has been taken over.
func setSchema(tx *bolt.Tx) error {
	for _, name := range [][]byte{metaBucket, rebootsBucket, lastBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	for _, name := range [][]byte{oldLocks, oldProgress} {
		if tx.Bucket(name) != nil {
			if err := tx.DeleteBucket(name); err != nil {
				return err
			}
		}
	}
	return tx.Bucket(metaBucket).Put(schemaKey, []byte(strconv.Itoa(schema)))
}

// readAll reads all that a bucket leads to.
func readAll(b *bolt.Bucket) error {
	sum := byte(0)
	return b.ForEach(func(k, v []byte) error {
		if v == nil {
			return readAll(b.Bucket(k))
		}
		for _, c := range v {
			sum ^= c
		}
		return nil
	})
}

// Close closes the files.
func (s *Store) Close() error { return s.db.Close() }

func idKey(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

func put(b *bolt.Bucket, key []byte, v any) error {
	raw, err := text.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(key, raw)
}

// get reads a value; false if there is none, or none that can be read.
func get[T any](b *bolt.Bucket, key []byte) (v T, ok bool) {
	if b == nil {
		return v, false
	}
	raw := b.Get(key)
	if raw == nil || json.Unmarshal(raw, &v) != nil {
		var none T
		return none, false
	}
	return v, true
}

// Moment is now, by the clock, which may be wrong, and by the time since a boot of
// the host, which is not.
type Moment struct {
	Wall time.Time
	Boot string // which boot
	Up   time.Duration
}

// since is how long ago something was at an uptime, in seconds, of a boot of the
// host; what was before this boot was when it began.
func (m Moment) since(boot string, at float64) time.Duration {
	if boot != m.Boot {
		return m.Up
	}
	return max(0, m.Up-seconds(at))
}

func seconds(s float64) time.Duration {
	return time.Duration(min(max(s*float64(time.Second), math.MinInt64/2), math.MaxInt64/2))
}
