package store

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Policy says which checkpoints are kept, in restic's words: the last n, and of
// each of the last n hours, days, weeks in which there are some, the newest.
type Policy struct{ Last, Hourly, Daily, Weekly int }

// Keep returns those of the checkpoints that a policy keeps, in their order. Hours
// and days are those of zone. A policy that names nothing is an error, since it
// would keep nothing.
func (p Policy) Keep(infos []Info, zone *time.Location) ([]Info, error) {
	if p.Last < 0 || p.Hourly < 0 || p.Daily < 0 || p.Weekly < 0 {
		return nil, errors.New("a number to keep is negative")
	}
	if p == (Policy{}) {
		return nil, errors.New("nothing is said to be kept")
	}
	keep := map[Epoch]bool{}
	for _, rule := range []struct {
		n      int
		bucket func(Info) string
	}{
		{p.Last, func(i Info) string { return fmt.Sprint(i.Epoch) }},
		{p.Hourly, func(i Info) string { return i.Time.In(zone).Format("2006-01-02T15-0700") }},
		{p.Daily, func(i Info) string { return i.Time.In(zone).Format("2006-01-02") }},
		{p.Weekly, func(i Info) string {
			y, w := i.Time.In(zone).ISOWeek()
			return fmt.Sprintf("%d-%d", y, w)
		}},
	} {
		last, n := "", 0
		for _, i := range slices.Backward(infos) {
			b := rule.bucket(i)
			if n == rule.n {
				break
			}
			if b != last {
				keep[i.Epoch], last = true, b
				n++
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(infos), func(i Info) bool { return !keep[i.Epoch] }), nil
}

// Forget takes checkpoints out of the catalogue, at once and for good: no reader
// that is opened from now on sees them. Collect frees what only they had.
func (w *Writer) Forget(epochs []Epoch) error {
	if err := w.Sync(); err != nil {
		return err
	}
	for _, e := range epochs {
		if _, err := w.view.Find(e); err != nil {
			return err
		}
	}
	if err := updateCatalogue(w.dir, w.options, nil, epochs); err != nil {
		return err
	}
	w.options.step("forgotten")
	w.view.infos = slices.DeleteFunc(w.view.infos, func(i Info) bool { return slices.Contains(epochs, i.Epoch) })
	w.kept = 0
	if n := len(w.view.infos); n > 0 {
		w.kept = w.view.infos[n-1].Epoch
	}
	return nil
}
