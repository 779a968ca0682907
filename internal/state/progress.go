package state

import (
	"maps"
	"time"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/schedule"
)

// Birth is when a domain was created, by a clock that does not jump: seconds
// since dom0's boot, which may be negative after another one.
type Birth struct {
	Domid ident.Domid `json:"domid"`
	Boot  string      `json:"boot"` // of dom0
	At    float64     `json:"at"`
	// Resumed: it was not created, but restored or migrated in, and At is when the
	// domain that it was before was.
	Resumed bool `json:"resumed,omitempty"`
}

// Memories returns what all rules remember.
func (s *Store) Memories() map[schedule.Key]schedule.Memory { return maps.Clone(s.now().Memory) }

// Remember replaces what some rules remember, all or nothing.
func (s *Store) Remember(changed map[schedule.Key]schedule.Memory) error {
	return s.change(func(k *kept) (bool, error) {
		k.Memory = maps.Clone(k.Memory)
		maps.Copy(k.Memory, changed)
		return len(changed) > 0, nil
	})
}

// Forget forgets what rules remember of domains for which gone says so.
func (s *Store) Forget(gone func(schedule.Key) bool) error {
	return s.change(func(k *kept) (bool, error) {
		before := len(k.Memory)
		k.Memory = maps.Clone(k.Memory)
		maps.DeleteFunc(k.Memory, func(key schedule.Key, _ schedule.Memory) bool { return gone(key) })
		return len(k.Memory) != before, nil
	})
}

// Births returns when the domains that were seen last were created.
func (s *Store) Births() map[ident.UUID]Birth { return maps.Clone(s.now().Births) }

// SetBirths notes when some domains were created.
func (s *Store) SetBirths(changed map[ident.UUID]Birth) error {
	return s.change(func(k *kept) (bool, error) {
		k.Births = maps.Clone(k.Births)
		maps.Copy(k.Births, changed)
		return len(changed) > 0, nil
	})
}

// Began returns how long ago each rule last began a run; that of "" is of any. What
// was before the host's boot was when it began.
func (s *Store) Began(m Moment) map[string]time.Duration {
	all := map[string]time.Duration{}
	for rule, b := range s.now().Began {
		all[rule] = m.since(b.Boot, b.At)
	}
	return all
}

// SetBegan notes that rules begin runs, "" if any of them is more than tried, and
// forgets those for which gone says so.
func (s *Store) SetBegan(m Moment, rules []string, gone func(rule string) bool) error {
	return s.change(func(k *kept) (bool, error) {
		k.Began = maps.Clone(k.Began)
		maps.DeleteFunc(k.Began, func(rule string, _ Began) bool { return rule != "" && gone(rule) })
		for _, rule := range rules {
			k.Began[rule] = Began{m.Boot, m.Up.Seconds()}
		}
		return len(rules) > 0, nil
	})
}

// Stopped returns which of some schedules are stopped, and why, and all that an
// operator or a health check has stopped.
func (s *Store) Stopped(rules ...string) map[string]string {
	k := s.now()
	all := maps.Clone(k.Stopped)
	for _, rule := range rules {
		if _, ok := all[rule]; !ok && k.Lost != nil && !k.Lost.Resumed[rule] {
			all[rule] = k.lostText()
		}
	}
	return all
}

// Stop stops a schedule.
func (s *Store) Stop(rule, why string) error {
	return s.change(func(k *kept) (bool, error) {
		k.Stopped = maps.Clone(k.Stopped)
		k.Stopped[rule] = why
		return true, nil
	})
}

// Resume lets a schedule go on; it reports whether it was stopped.
func (s *Store) Resume(rule string) (was bool, err error) {
	err = s.change(func(k *kept) (bool, error) {
		_, was = k.Stopped[rule]
		k.Stopped = maps.Clone(k.Stopped)
		delete(k.Stopped, rule)
		if k.Lost != nil && !k.Lost.Resumed[rule] {
			was = true
			lost := *k.Lost
			lost.Resumed = maps.Clone(lost.Resumed)
			lost.Resumed[rule] = true
			k.Lost = &lost
		}
		return was, nil
	})
	return was, err
}
