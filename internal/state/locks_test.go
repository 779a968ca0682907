package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/schedule"
	"github.com/warmreboot/warmreboot/internal/store"
)

// moment is some time after the start, with a clock that is right.
func moment(after time.Duration) Moment {
	return Moment{start.Add(after), "boot", 100*time.Hour + after}
}

func reopen(t *testing.T, s *Store, path string) *Store {
	t.Helper()
	s.Close()
	s, err := Open(path, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestLocks(t *testing.T) {
	s, path := openStore(t, Limits{})
	now := moment(0)
	lock := func(owner string, ttl time.Duration) error {
		return s.Lock(Lock{UUID: web, Domain: "web", Owner: owner, TTL: ttl.Seconds()}, now)
	}
	if err := lock("ann", time.Hour); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, path)
	var held *HeldError
	now = moment(59 * time.Minute)
	if err := lock("bob", time.Hour); !errors.As(err, &held) || held.Lock.Owner != "ann" || !held.Lock.Until.Equal(start.Add(time.Hour)) {
		t.Errorf("%v", err)
	}
	if err := lock("ann", 2*time.Minute); err != nil {
		t.Errorf("renewed: %v", err)
	}
	for _, other := range []Lock{{UUID: web, Owner: "bob"}, {UUID: web, Owner: "ann", Operation: "1"}} {
		if err := s.Release(other, now); err != nil || len(s.Locks(now)) != 1 {
			t.Errorf("%+v released ann's lock: %v", other, err)
		}
	}
	// Its time is over.
	now = moment(62 * time.Minute)
	if all := s.Locks(now); len(all) != 0 {
		t.Errorf("%v", all)
	}
	if err := lock("bob", time.Hour); err != nil {
		t.Error(err)
	}
	if l, ok, err := s.Unlock(web, now); !ok || l.Owner != "bob" || err != nil {
		t.Errorf("%v, %v, %v", l, ok, err)
	}
	// Two operations of one owner are not each other's; nor is he his operation.
	of := func(operation string) Lock {
		return Lock{UUID: web, Domain: "web", Owner: "ann", Operation: operation, TTL: 60, Run: true}
	}
	if err := s.Lock(of("1"), now); err != nil {
		t.Fatal(err)
	}
	if err := s.Lock(of("2"), now); !errors.As(err, &held) || held.Lock.Operation != "1" {
		t.Errorf("%v", err)
	}
	if err := lock("ann", time.Hour); !errors.As(err, &held) {
		t.Errorf("%v", err)
	}
	if err := errors.Join(s.Release(of("2"), now), s.Release(of(""), now)); err != nil || len(s.Locks(now)) != 1 {
		t.Errorf("released by another: %v", err)
	}
	if err := errors.Join(s.Lock(of("1"), now), s.Release(Lock{UUID: web, Operation: "1"}, now)); err != nil || len(s.Locks(now)) != 0 {
		t.Errorf("%v", err)
	}
}

// TestLockAndClock: a lock's time passes as the uptime does, whatever the clock
// shows, and over restarts of the daemon and of the host.
func TestLockAndClock(t *testing.T) {
	s, path := openStore(t, Limits{})
	if err := s.Lock(Lock{UUID: web, Domain: "web", Owner: "ann", TTL: 7200}, moment(0)); err != nil {
		t.Fatal(err)
	}
	has := func(what string, m Moment, want bool) {
		t.Helper()
		if _, err := s.Observe(m, nil); err != nil {
			t.Fatal(err)
		}
		for range 2 { // also for the daemon that is started then
			if l, ok := s.LockOf(web, m); ok != want || ok && l.Owner != "ann" || len(s.Locks(m)) > 0 != want {
				t.Errorf("%s: %v, %v", what, ok, l)
			}
			s = reopen(t, s, path)
		}
	}
	wrong := func(after, by time.Duration) Moment {
		m := moment(after)
		m.Wall = m.Wall.Add(by)
		return m
	}
	has("the clock is ahead by a day", wrong(10*time.Minute, 24*time.Hour), true)
	has("for a minute", moment(11*time.Minute), true)
	has("the clock is set back by a year", wrong(time.Hour, -365*24*time.Hour), true)
	has("just before its end", wrong(119*time.Minute, -365*24*time.Hour), true)
	// The host is off for a week, and boots with whatever clock.
	booted := Moment{start.Add(7 * 24 * time.Hour), "another boot", 30 * time.Second}
	has("the host was off", booted, true)
	booted.Up = 90 * time.Second
	has("its time is over", booted, false)
}

// TestOldLocks: those of a database that had locks by the clock are taken over,
// also if the daemon is killed meanwhile; one that cannot be decoded is a lock.
func TestTakenOver(t *testing.T) {
	for _, at := range append([]string{""}, store.Steps...) {
		path := filepath.Join(t.TempDir(), FileName)
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bolt.Tx) error {
			locks, err1 := tx.CreateBucket(oldLocks)
			rest, err2 := tx.CreateBucket(oldProgress)
			all, err3 := tx.CreateBucket(rebootsBucket)
			if err := errors.Join(err1, err2, err3); err != nil {
				return err
			}
			b, err := all.CreateBucket(web[:])
			return errors.Join(err, locks.Put(web[:], []byte(`{"domain":"web","owner":"ann","made":"2026-03-01T12:00:00Z","ttl_seconds":3600}`)), locks.Put(db2[:], []byte("{")),
				rest.Put(append([]byte("memory/"), append(web[:], "weekly"...)...), []byte(`{"handled":"2026-03-01T12:00:00Z"}`)),
				rest.Put(append([]byte("birth/"), web[:]...), []byte(`{"domid":3,"boot":"boot","at":7}`)),
				rest.Put([]byte("stopped/daily"), []byte(`"not well"`)), rest.Put([]byte("stopped/odd"), []byte(`{`)),
				put(b, idKey(1), entry(web, "web", 1, api.ByGuest)))
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		if at != "" { // killed while it was taken over
			done := make(chan struct{})
			go func() {
				defer close(done)
				s := &Store{dir: store.Dir{Path: filepath.Dir(path), Step: func(step string) error {
					if step == at {
						runtime.Goexit()
					}
					return nil
				}}}
				if s.db, err = open(path, bolting); err != nil {
					t.Error(err)
				}
				defer s.db.Close()
				_, _ = s.load(false, false)
			}()
			<-done
		}
		for range 2 {
			s, err := Open(path, Limits{})
			if err != nil {
				t.Fatalf("%q: %v", at, err)
			}
			locks := s.Locks(moment(59 * time.Minute))
			k := schedule.Key{Rule: "weekly", UUID: web}
			if len(locks) != 2 || locks[1].Owner != "ann" || !locks[1].Until.Equal(start.Add(time.Hour)) || locks[0].UUID != db2 ||
				!s.Memories()[k].Handled.Equal(start) || s.Births()[web] != (Birth{Domid: 3, Boot: "boot", At: 7}) || s.Stopped()["daily"] != "not well" || s.Stopped()["odd"] == "" ||
				len(query(t, s, api.HistoryQuery{})) != 1 || s.Lost() != "" {
				t.Errorf("%q: %v, %+v", at, locks, s.now())
			}
			s.Close()
		}
	}
}

var db2 = ident.UUID{9}

// TestLost: when nobody knows what was locked, everything is; an operator releases
// one after the other.
func TestLost(t *testing.T) {
	for what, harm := range map[string]func(t *testing.T, kept, path string){
		"damaged": func(t *testing.T, kept, _ string) {
			raw, err := os.ReadFile(kept)
			if err == nil {
				raw[len(raw)-3] ^= 1
				err = os.WriteFile(kept, raw, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"cut off": func(t *testing.T, kept, _ string) {
			if err := os.WriteFile(kept, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"gone": func(t *testing.T, kept, _ string) {
			if err := os.Remove(kept); err != nil {
				t.Fatal(err)
			}
		},
		"gone, and the database damaged": func(t *testing.T, kept, path string) {
			if err := errors.Join(os.Remove(kept), os.WriteFile(path, []byte("no database"), 0o600)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		s, path := openStore(t, Limits{})
		if err := errors.Join(s.Lock(Lock{UUID: web, Domain: "web", Owner: "ann", TTL: 7200}, moment(0)), s.Close()); err != nil {
			t.Fatal(err)
		}
		harm(t, filepath.Join(filepath.Dir(path), KeptName), path)
		s, err := Open(path, Limits{})
		if s == nil || err == nil || !strings.Contains(err.Error(), "nobody knows what was locked") {
			t.Fatalf("%s: %v, %v", what, s, err)
		}
		now := moment(0)
		for range 2 {
			for _, u := range []ident.UUID{web, db} {
				if l, ok := s.LockOf(u, now); !ok || !strings.Contains(l.String(), "nobody knows") || s.Lost() == "" {
					t.Errorf("%s: %v, %v", what, ok, l)
				}
			}
			if all := s.Stopped("weekly", "daily"); len(all) != 2 {
				t.Errorf("%s: stopped: %v", what, all)
			}
			s = reopen(t, s, path) // nor does a restart make it better, or say it again
		}
		var held *HeldError
		if err := s.Lock(Lock{UUID: web, Domain: "web", Owner: "schedule weekly", TTL: 60}, now); !errors.As(err, &held) {
			t.Errorf("%s: %v", what, err)
		}
		if _, ok, err := s.Unlock(web, now); !ok || err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if was, err := s.Resume("daily"); !was || err != nil {
			t.Errorf("%s: %v", what, err)
		}
		s = reopen(t, s, path)
		if _, ok := s.LockOf(web, now); ok {
			t.Errorf("%s: still locked", what)
		}
		if _, ok := s.LockOf(db, now); !ok || len(s.Stopped("weekly", "daily")) != 1 {
			t.Errorf("%s: released, too", what)
		}
	}
}

// TestUnreadableLocks: that the file cannot be read now is no reason to go on
// without it.
func TestUnreadableLocks(t *testing.T) {
	s, path := openStore(t, Limits{})
	s.Close()
	kept := filepath.Join(filepath.Dir(path), KeptName)
	if err := errors.Join(os.Remove(kept), os.Mkdir(kept, 0o700)); err != nil { // reading it is EISDIR
		t.Fatal(err)
	}
	if s, err := Open(path, Limits{}); s != nil || err == nil {
		t.Errorf("opened: %v", err)
	}
	newer, err := store.Kind{Name: keptKind.Name, Version: keptKind.Version + 1, Limit: 99}.Encode([]byte("{}"))
	if err := errors.Join(err, os.Remove(kept), os.WriteFile(kept, newer, 0o600)); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(path, Limits{}); s != nil || !errors.Is(err, store.ErrNewer) {
		t.Errorf("a newer one: %v", err)
	}
}

func TestProgress(t *testing.T) {
	s, path := openStore(t, Limits{})
	k := schedule.Key{Rule: "weekly", UUID: web}
	other := schedule.Key{Rule: "weekly", UUID: db}
	if err := s.Remember(map[schedule.Key]schedule.Memory{k: {Handled: start}, other: {Handled: start, Waiting: start}}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SetBirths(map[ident.UUID]Birth{web: {Domid: 3, Boot: "boot", At: -4.5}}), s.Stop("weekly", "not well"), s.Stop("daily", "x"),
		s.SetBegan(moment(0), []string{"weekly", ""}, func(string) bool { return false })); err != nil {
		t.Fatal(err)
	}
	if was, err := s.Resume("daily"); !was || err != nil {
		t.Error(err)
	}
	if was, err := s.Resume("nobody"); was || err != nil {
		t.Error(err)
	}
	s = reopen(t, s, path)
	if all := s.Memories(); len(all) != 2 || !all[other].Waiting.Equal(start) || !all[k].Waiting.IsZero() {
		t.Errorf("%v", all)
	}
	if err := s.Forget(func(k schedule.Key) bool { return k == other }); err != nil {
		t.Fatal(err)
	}
	if all := s.Memories(); len(all) != 1 || !all[k].Handled.Equal(start) {
		t.Errorf("%v", all)
	}
	if all := s.Births(); all[web] != (Birth{Domid: 3, Boot: "boot", At: -4.5}) {
		t.Errorf("%v", all)
	}
	if all := s.Stopped(); len(all) != 1 || all["weekly"] != "not well" {
		t.Errorf("%v", all)
	}
	if all := s.Began(moment(time.Minute)); all["weekly"] != time.Minute || all[""] != time.Minute {
		t.Errorf("%v", all)
	}
	if all := s.Began(Moment{start, "another", time.Second}); all["weekly"] != time.Second {
		t.Errorf("after another boot: %v", all)
	}
}

// TestForgets: what is known of domains that came and went is forgotten after some
// weeks in which the daemon ran, whatever the clock shows; what is there is not.
func TestForgets(t *testing.T) {
	s, path := openStore(t, Limits{})
	births, memory := map[ident.UUID]Birth{}, map[schedule.Key]schedule.Memory{}
	there := []ident.UUID{web}
	for i := range 300 {
		u := ident.UUID{7, byte(i), byte(i >> 8)}
		there = append(there, u)
		births[u], memory[schedule.Key{Rule: "weekly", UUID: u}] = Birth{Domid: 1, Boot: "boot", At: 0}, schedule.Memory{Handled: start}
	}
	births[web] = Birth{Domid: 2, Boot: "boot", At: 0}
	memory[schedule.Key{Rule: "weekly", UUID: web}] = schedule.Memory{Handled: start}
	if err := errors.Join(s.SetBirths(births), s.Remember(memory), s.Lock(Lock{UUID: there[5], Domain: "off", Owner: "ann", TTL: MaxLock.Seconds()}, moment(0))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(entry(there[7], "short", 1, api.ByGuest)); err != nil {
		t.Fatal(err)
	}
	if gone, err := s.Observe(moment(0), there); len(gone) != 0 || err != nil {
		t.Fatalf("%d, %v", len(gone), err)
	}
	ahead := moment(time.Minute)
	ahead.Wall = ahead.Wall.Add(10 * 365 * 24 * time.Hour)
	if gone, err := s.Observe(ahead, there[:1]); len(gone) != 0 || err != nil {
		t.Errorf("the clock is ahead: %d forgotten, %v", len(gone), err)
	}
	total := 0
	for h := 0; h < 50*24; h += 24 {
		if h == 480 {
			s = reopen(t, s, path)
		}
		gone, err := s.Observe(moment(time.Duration(h)*time.Hour), there[:1])
		if err != nil {
			t.Fatal(err)
		}
		if len(gone) > 0 && h < 6*7*24 {
			t.Fatalf("%d forgotten after %d hours", len(gone), h)
		}
		total += len(gone)
	}
	// The one that is locked may only be switched off.
	if len(s.Births()) != 2 || len(s.Memories()) != 2 || total != 299 {
		t.Errorf("%d births, %d memories are left, %d forgotten", len(s.Births()), len(s.Memories()), total)
	}
	if _, ok := s.Last(there[7]); ok {
		t.Error("its last reboot is not forgotten")
	}
	if all := query(t, s, api.HistoryQuery{}); len(all) != 1 { // which has bounds of its own
		t.Errorf("%d entries of the history", len(all))
	}
	if st, err := os.Stat(filepath.Join(filepath.Dir(path), KeptName)); err != nil || st.Size() > 2000 {
		t.Errorf("%v, %v", st.Size(), err)
	}
}

// TestNotWritten: what could not be written has not happened.
func TestNotWritten(t *testing.T) {
	s, path := openStore(t, Limits{})
	full := fmt.Errorf("no space left")
	s.dir.Step = func(string) error { return full }
	err1 := s.Lock(Lock{UUID: web, Domain: "web", Owner: "ann", TTL: 60}, moment(0))
	err2 := s.Stop("weekly", "x")
	err3 := s.Remember(map[schedule.Key]schedule.Memory{{Rule: "weekly", UUID: web}: {Handled: start}})
	for _, err := range []error{err1, err2, err3} {
		if !errors.Is(err, full) {
			t.Errorf("%v", err)
		}
	}
	s.dir.Step = nil
	for range 2 {
		if len(s.Locks(moment(0))) != 0 || len(s.Stopped()) != 0 || len(s.Memories()) != 0 {
			t.Errorf("%+v", s.now())
		}
		s = reopen(t, s, path)
	}
}

// FuzzKept: no content of the file ends the daemon.
func FuzzKept(f *testing.F) {
	raw, err := encodeKept(newKept())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(raw))
	f.Add(`{"locks":{"01000000-0000-0000-0000-000000000000":{"ttl_seconds":1e300,"passed_seconds":-1e300}},"lost":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		k, err := decodeKept([]byte(text))
		if err != nil {
			return
		}
		for u := range k.Locks {
			_, _ = k.live(u, moment(0))
		}
		if _, err := encodeKept(k); err != nil {
			var bad *json.MarshalerError
			if !errors.As(err, &bad) { // a time of the year 10000
				t.Error(err)
			}
		}
	})
}
