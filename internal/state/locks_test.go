package state

import (
	"errors"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/internal/schedule"
)

func TestLocks(t *testing.T) {
	s, path := openStore(t, Limits{})
	now := start
	lock := func(owner string, ttl time.Duration) error {
		return s.Lock(Lock{UUID: web, Domain: "web", Owner: owner, Made: now, TTL: ttl.Seconds()})
	}
	if err := lock("ann", time.Hour); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s, err := Open(path, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var held *HeldError
	now = start.Add(59 * time.Minute)
	if err := lock("bob", time.Hour); !errors.As(err, &held) || held.Lock.Owner != "ann" {
		t.Errorf("%v", err)
	}
	if err := lock("ann", 2*time.Minute); err != nil {
		t.Errorf("renewed: %v", err)
	}
	if _, ok, err := s.Unlock(web, "bob"); ok || err != nil {
		t.Errorf("bob released ann's lock: %v", err)
	}
	// Its time is over.
	now = start.Add(62 * time.Minute)
	if all, err := s.Locks(now); len(all) != 0 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	if err := lock("bob", time.Hour); err != nil {
		t.Error(err)
	}
	// The clock is set back by a year: it does not last a year and an hour.
	now = now.Add(-365 * 24 * time.Hour)
	if all, err := s.Locks(now); len(all) != 1 || err != nil || all[0].Until().After(now.Add(time.Hour)) {
		t.Errorf("%v, %v", all, err)
	}
	now = now.Add(61 * time.Minute)
	if all, err := s.Locks(now); len(all) != 0 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	if err := lock("eve", time.Hour); err != nil {
		t.Error(err)
	}
	if l, ok, err := s.Unlock(web, ""); !ok || l.Owner != "eve" || err != nil {
		t.Errorf("%v, %v, %v", l, ok, err)
	}
}

func TestProgress(t *testing.T) {
	s, path := openStore(t, Limits{})
	k := schedule.Key{Rule: "weekly", UUID: web}
	other := schedule.Key{Rule: "weekly", UUID: db}
	if err := s.Remember(map[schedule.Key]schedule.Memory{k: {Handled: start}, other: {Handled: start, Waiting: start}}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SetBirth(web, Birth{3, "boot", -4.5}), s.Stop("weekly", "not well"), s.Stop("daily", "x")); err != nil {
		t.Fatal(err)
	}
	if was, err := s.Resume("daily"); !was || err != nil {
		t.Error(err)
	}
	if was, err := s.Resume("nobody"); was || err != nil {
		t.Error(err)
	}
	s.Close()
	s, err := Open(path, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if all, err := s.Memories(); err != nil || len(all) != 2 || !all[other].Waiting.Equal(start) || !all[k].Waiting.IsZero() {
		t.Errorf("%v, %v", all, err)
	}
	if err := s.Forget(func(k schedule.Key) bool { return k == other }); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Memories(); err != nil || len(all) != 1 || !all[k].Handled.Equal(start) {
		t.Errorf("%v, %v", all, err)
	}
	if all, err := s.Births(); err != nil || all[web] != (Birth{3, "boot", -4.5}) {
		t.Errorf("%v, %v", all, err)
	}
	if all, err := s.Stopped(); err != nil || len(all) != 1 || all["weekly"] != "not well" {
		t.Errorf("%v, %v", all, err)
	}
}
