package state

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

// lastReboot is what tells a reboot that is recorded twice, because the agent
// was killed in between, from the next one. Numbers begin again when a domain
// is disabled and enabled.
type lastReboot struct {
	Sequence uint64    `json:"sequence"`
	Started  time.Time `json:"started"`
	ID       uint64    `json:"id"`
}

// sameOperation is among how many of a domain's last entries it is looked for that of
// an operation.
const sameOperation = 20

// Add makes an entry and returns its ID. The reboot that the domain's last
// entry is about is not entered twice: then it is that entry's.
func (s *Store) Add(e api.HistoryEntry) (id uint64, err error) {
	err = s.db.Update(func(tx *bolt.Tx) error {
		last := tx.Bucket(lastBucket)
		if e.Sequence != 0 {
			if l, ok := get[lastReboot](last, e.UUID[:]); ok && l.Sequence == e.Sequence && l.Started.Equal(e.Started) {
				id = l.ID
				return nil
			}
		}
		all := tx.Bucket(rebootsBucket)
		b, err := all.CreateBucketIfNotExists(e.UUID[:])
		if err != nil {
			return err
		}
		if e.Operation != "" && e.Sequence == 0 { // that a reboot did not take place is entered once, too
			c := b.Cursor()
			k, raw := c.Last()
			for n := 0; k != nil && n < sameOperation; n++ {
				var o api.HistoryEntry
				if json.Unmarshal(raw, &o) == nil && o.Operation == e.Operation && o.Sequence == 0 {
					id = o.ID
					return nil
				}
				k, raw = c.Prev()
			}
		}
		if id, err = all.NextSequence(); err != nil {
			return err
		}
		e.ID = id
		if e.At.IsZero() {
			e.At = time.Now()
		}
		if err := put(b, idKey(id), e); err != nil {
			return err
		}
		if e.Sequence != 0 {
			if err := put(last, e.UUID[:], lastReboot{e.Sequence, e.Started, id}); err != nil {
				return err
			}
		}
		return s.forget(all, e.UUID)
	})
	return id, err
}

// forget keeps the history within its limits: first the domain's own, then
// those that have the most give theirs. So a domain that crashes all the time
// does not push the others out.
func (s *Store) forget(all *bolt.Bucket, uuid ident.UUID) error {
	total, most, mostN := 0, []byte(nil), 0
	own := 0
	err := all.ForEachBucket(func(k []byte) error {
		n := 0 // not Stats(), which knows nothing of this transaction
		if err := all.Bucket(k).ForEach(func(_, _ []byte) error { n++; return nil }); err != nil {
			return err
		}
		total += n
		if n > mostN {
			most, mostN = slices.Clone(k), n
		}
		if ident.UUID(k) == uuid {
			own = n
		}
		return nil
	})
	if err != nil {
		return err
	}
	from, n := uuid[:], own-s.limits.PerDomain
	if n <= 0 {
		from, n = most, total-s.limits.Entries
	}
	if n <= 0 {
		return nil
	}
	c := all.Bucket(from).Cursor()
	for ; n > 0; n-- {
		if k, _ := c.First(); k == nil {
			break
		}
		if err := c.Delete(); err != nil {
			return err
		}
	}
	if k, _ := all.Bucket(from).Cursor().First(); k == nil { // nothing is left of that domain
		return all.DeleteBucket(from)
	}
	return nil
}

// unreadable is what is shown of an entry that cannot be decoded.
func unreadable(uuid, id []byte) api.HistoryEntry {
	e := api.HistoryEntry{Error: "this entry of the history cannot be read any more",
		Summary: api.Summary{Outcome: "failed", Refused: map[string]uint64{}, VBDs: []api.VBDSummary{}}}
	if len(uuid) == len(e.UUID) {
		e.UUID = ident.UUID(uuid)
		e.Domain = e.UUID.String()
	}
	if len(id) == 8 {
		e.ID = binary.BigEndian.Uint64(id)
	}
	return e
}

// Annotate changes the entry of a reboot that has been recorded.
func (s *Store) Annotate(uuid ident.UUID, id uint64, change func(*api.HistoryEntry)) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(rebootsBucket).Bucket(uuid[:])
		e, ok := get[api.HistoryEntry](b, idKey(id))
		if !ok {
			return fmt.Errorf("state: no entry %d of %s", id, uuid)
		}
		change(&e)
		e.ID, e.UUID = id, uuid
		return put(b, idKey(id), e)
	})
}

// Last returns the entry of a domain's last reboot that took place.
func (s *Store) Last(uuid ident.UUID) (e api.HistoryEntry, ok bool) {
	_ = s.db.View(func(tx *bolt.Tx) error {
		if l, found := get[lastReboot](tx.Bucket(lastBucket), uuid[:]); found {
			e, ok = get[api.HistoryEntry](tx.Bucket(rebootsBucket).Bucket(uuid[:]), idKey(l.ID))
		}
		return nil
	})
	return e, ok
}

// History implements api.History.
func (s *Store) History(ctx context.Context, q api.HistoryQuery) ([]api.HistoryEntry, error) {
	found := []api.HistoryEntry{}
	err := s.db.View(func(tx *bolt.Tx) error {
		all := tx.Bucket(rebootsBucket)
		if all == nil { // made, and never written to
			return nil
		}
		return all.ForEachBucket(func(k []byte) error {
			c, n := all.Bucket(k).Cursor(), 0
			for id, raw := c.Last(); id != nil && (q.Limit == 0 || n < q.Limit); id, raw = c.Prev() {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				var e api.HistoryEntry
				if json.Unmarshal(raw, &e) != nil {
					// That one is lost, and says so; the others are not.
					e = unreadable(k, id)
				}
				if q.Matches(&e) {
					found = append(found, e)
					n++
				}
			}
			return nil
		})
	})
	slices.SortFunc(found, func(a, b api.HistoryEntry) int {
		if a.ID > b.ID {
			return -1
		}
		return 1
	})
	if q.Limit > 0 && len(found) > q.Limit {
		found = found[:q.Limit]
	}
	return found, err
}
