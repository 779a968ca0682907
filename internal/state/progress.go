package state

import (
	"bytes"
	"encoding/json"

	bolt "go.etcd.io/bbolt"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/schedule"
)

// Keys of what schedules remember begin with one of these.
var (
	memoryPrefix  = []byte("memory/")  // UUID, rule -> schedule.Memory
	birthPrefix   = []byte("birth/")   // UUID -> Birth
	stoppedPrefix = []byte("stopped/") // rule -> why
)

// Birth is when a domain was created, by a clock that does not jump: seconds
// since dom0's boot, which may be negative after another one.
type Birth struct {
	Domid ident.Domid `json:"domid"`
	Boot  string      `json:"boot"` // of dom0
	At    float64     `json:"at"`
}

func memoryKey(k schedule.Key) []byte {
	return append(append(bytes.Clone(memoryPrefix), k.UUID[:]...), k.Rule...)
}

// each calls f with what is kept under a prefix.
func each[T any](s *Store, prefix []byte, f func(key []byte, v T)) error {
	return s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(progress)
		if b == nil {
			return nil
		}
		c := b.Cursor()
		for k, raw := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, raw = c.Next() {
			var v T
			if json.Unmarshal(raw, &v) == nil {
				f(bytes.TrimPrefix(k, prefix), v)
			}
		}
		return nil
	})
}

// Memories returns what all rules remember.
func (s *Store) Memories() (map[schedule.Key]schedule.Memory, error) {
	all := map[schedule.Key]schedule.Memory{}
	err := each(s, memoryPrefix, func(k []byte, m schedule.Memory) {
		if len(k) > 16 {
			all[schedule.Key{Rule: string(k[16:]), UUID: ident.UUID(k[:16])}] = m
		}
	})
	return all, err
}

// Remember replaces what some rules remember, all or nothing.
func (s *Store) Remember(changed map[schedule.Key]schedule.Memory) error {
	if len(changed) == 0 {
		return nil
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		for k, m := range changed {
			if err := put(tx.Bucket(progress), memoryKey(k), m); err != nil {
				return err
			}
		}
		return nil
	})
}

// Forget forgets what rules remember of domains for which gone says so.
func (s *Store) Forget(gone func(schedule.Key) bool) error {
	all, err := s.Memories()
	if err != nil {
		return err
	}
	var keys [][]byte
	for k := range all {
		if gone(k) {
			keys = append(keys, memoryKey(k))
		}
	}
	if len(keys) == 0 {
		return nil
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		for _, k := range keys {
			if err := tx.Bucket(progress).Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// Births returns when the domains that were seen last were created.
func (s *Store) Births() (map[ident.UUID]Birth, error) {
	all := map[ident.UUID]Birth{}
	err := each(s, birthPrefix, func(k []byte, b Birth) {
		if len(k) == 16 {
			all[ident.UUID(k)] = b
		}
	})
	return all, err
}

// SetBirth notes when a domain was created.
func (s *Store) SetBirth(uuid ident.UUID, b Birth) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		return put(tx.Bucket(progress), append(bytes.Clone(birthPrefix), uuid[:]...), b)
	})
}

// Stopped returns the schedules that are stopped, and why.
func (s *Store) Stopped() (map[string]string, error) {
	all := map[string]string{}
	err := each(s, stoppedPrefix, func(k []byte, why string) { all[string(k)] = why })
	return all, err
}

// Stop stops a schedule.
func (s *Store) Stop(rule, why string) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		return put(tx.Bucket(progress), append(bytes.Clone(stoppedPrefix), rule...), why)
	})
}

// Resume lets a schedule go on; it reports whether it was stopped.
func (s *Store) Resume(rule string) (was bool, err error) {
	key := append(bytes.Clone(stoppedPrefix), rule...)
	err = s.db.Update(func(tx *bolt.Tx) error {
		was = tx.Bucket(progress).Get(key) != nil
		return tx.Bucket(progress).Delete(key)
	})
	return was, err
}
