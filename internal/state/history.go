package state

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"
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

// looked is among how many of a domain's last entries one is looked for.
const looked = 20

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
			same := func(o *api.HistoryEntry) bool { return o.Operation == e.Operation && o.Sequence == 0 }
			if o, ok := latest(b, same); ok {
				id = o.ID
				return nil
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

// latest returns the latest of a domain's last entries that is selected.
func latest(b *bolt.Bucket, is func(*api.HistoryEntry) bool) (e api.HistoryEntry, ok bool) {
	if b == nil {
		return e, false
	}
	c := b.Cursor()
	k, raw := c.Last()
	for n := 0; k != nil && n < looked; n++ {
		var o api.HistoryEntry
		if json.Unmarshal(raw, &o) == nil && is(&o) {
			return o, true
		}
		k, raw = c.Prev()
	}
	return e, false
}

// Latest returns the latest of a domain's last few entries that is selected.
func (s *Store) Latest(uuid ident.UUID, is func(*api.HistoryEntry) bool) (e api.HistoryEntry, ok bool) {
	_ = s.db.View(func(tx *bolt.Tx) error {
		e, ok = latest(tx.Bucket(rebootsBucket).Bucket(uuid[:]), is)
		return nil
	})
	return e, ok
}

// Of returns the entry of a reboot. It need not be the domain's last one: a domain that
// came back may have crashed since.
func (s *Store) Of(r api.Summary) (e api.HistoryEntry, ok bool) {
	return s.Latest(r.UUID, func(e *api.HistoryEntry) bool {
		return r.Sequence != 0 && e.Sequence == r.Sequence && e.Started.Equal(r.Started)
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

// pageSize is how many entries are looked at in one transaction. Whoever shows them
// may be slow, and a transaction that lasts keeps those who write from using space
// again, or from having more.
const pageSize = 256

// History implements api.History. Nothing is held while an entry is yielded: what is
// forgotten meanwhile is left out.
func (s *Store) History(ctx context.Context, q api.HistoryQuery) iter.Seq2[api.HistoryEntry, error] {
	return func(yield func(api.HistoryEntry, error) bool) {
		for before, n := q.Before, 0; ; {
			page, next, err := s.page(q, before)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(api.HistoryEntry{}, err)
				return
			}
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
				if n++; n == q.Limit {
					return
				}
			}
			if next == 0 {
				return
			}
			before = next
		}
	}
}

// page returns those of the next entries below an ID, or the last ones if that is 0,
// that are selected, the latest first; and below which ID to go on, 0 if there are no
// more.
func (s *Store) page(q api.HistoryQuery, before uint64) (page []api.HistoryEntry, next uint64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		domains, err := entriesBelow(tx.Bucket(rebootsBucket), q, before)
		if err != nil {
			return err
		}
		for n := 0; n < pageSize; n++ {
			var last *domainEntries // the one that has the latest of those that are left
			for _, d := range domains {
				if d.id != nil && (last == nil || bytes.Compare(d.id, last.id) > 0) {
					last = d
				}
			}
			if last == nil {
				next = 0
				return nil
			}
			var e api.HistoryEntry
			if json.Unmarshal(last.raw, &e) != nil {
				// That one is lost, and says so; the others are not.
				e = unreadable(last.uuid, last.id)
			}
			if q.Matches(&e) {
				page = append(page, e)
			}
			next = binary.BigEndian.Uint64(last.id)
			last.id, last.raw = last.cursor.Prev()
		}
		return nil
	})
	return page, next, err
}

// domainEntries goes through the entries of a domain, from the latest on. Slices are
// valid while the transaction lasts; id is nil at the end.
type domainEntries struct {
	uuid, id, raw []byte
	cursor        *bolt.Cursor
}

// entriesBelow returns where the entries below an ID begin, for each domain that may be
// selected.
func entriesBelow(all *bolt.Bucket, q api.HistoryQuery, before uint64) (domains []*domainEntries, err error) {
	if all == nil { // made, and never written to
		return nil, nil
	}
	enter := func(uuid []byte, b *bolt.Bucket) {
		d := &domainEntries{uuid: uuid, cursor: b.Cursor()}
		if before == 0 {
			d.id, d.raw = d.cursor.Last()
		} else if id, _ := d.cursor.Seek(idKey(before)); id != nil {
			d.id, d.raw = d.cursor.Prev()
		} else {
			d.id, d.raw = d.cursor.Last()
		}
		domains = append(domains, d)
	}
	if u, err := ident.ParseUUID(q.Domain); q.Domain != "" && err == nil {
		if b := all.Bucket(u[:]); b != nil {
			enter(u[:], b)
		}
		return domains, nil
	}
	err = all.ForEachBucket(func(uuid []byte) error { enter(uuid, all.Bucket(uuid)); return nil })
	return domains, err
}
