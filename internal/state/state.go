// Package state is what the daemon keeps over its restarts beside the agent's
// journal: the history of reboots, locks, and how far each schedule has got.
// It is one file, written by one process at a time.
//
// Nothing here is needed for a warm reboot. If the file is lost, history is.
package state

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrBusy: another process has the file open.
var ErrBusy = errors.New("state: another process has the file open")

// FileName is the store's name in the daemon's state directory.
const FileName = "state.db"

// Limits bound the history; 0 is the default.
type Limits struct {
	Entries   int // of all domains; 10000
	PerDomain int // 1000
}

// Store is the open file. Its methods may be called from several goroutines.
type Store struct {
	db     *bolt.DB
	limits Limits
}

var (
	rebootsBucket = []byte("reboots") // UUID -> ID -> api.HistoryEntry
	lastBucket    = []byte("last")    // UUID -> lastReboot
	locksBucket   = []byte("locks")   // UUID -> Lock
	progress      = []byte("progress")
)

// openWait is how long another process that has the file open is waited for.
const openWait = time.Second

// Open opens or makes the store for writing. A file that is damaged is set
// aside as path.corrupt; then the error says so and the store is a new one.
func Open(path string, limits Limits) (*Store, error) {
	if limits.Entries == 0 {
		limits.Entries = 10000
	}
	if limits.PerDomain == 0 {
		limits.PerDomain = 1000
	}
	db, err := open(path)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s: %w", path, ErrBusy)
	}
	var damaged error
	if err != nil && isDamage(err) {
		damaged = fmt.Errorf("%s is damaged and set aside as .corrupt: %w", path, err)
		if err := os.Rename(path, path+".corrupt"); err != nil {
			return nil, errors.Join(damaged, err)
		}
		db, err = open(path)
	}
	if err != nil {
		return nil, err
	}
	return &Store{db, limits}, damaged
}

// OpenReadOnly opens an existing store while no daemon runs.
func OpenReadOnly(path string) (*Store, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: openWait, ReadOnly: true})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s: %w", path, ErrBusy)
	}
	if err != nil {
		return nil, err
	}
	return &Store{db, Limits{}}, nil
}

func isDamage(err error) bool {
	var path *fs.PathError
	return !errors.As(err, &path) && !errors.Is(err, fs.ErrPermission)
}

// open opens the file and looks through all of it once, as bbolt itself would
// panic later. It may panic here, too.
func open(path string) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a file that was cut off
	defer func() {
		if p := recover(); p != nil {
			if db != nil {
				_ = db.Close()
			}
			db, err = nil, fmt.Errorf("%v", p)
		}
	}()
	if db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: openWait}); err != nil {
		return nil, err
	}
	// Not by Tx.Check: that panics in a goroutine of its own.
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return readAll(b) })
	})
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error {
			for _, name := range [][]byte{rebootsBucket, lastBucket, locksBucket, progress} {
				if _, err := tx.CreateBucketIfNotExists(name); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
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

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

func idKey(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

func put(b *bolt.Bucket, key []byte, v any) error {
	raw, err := json.Marshal(v)
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
