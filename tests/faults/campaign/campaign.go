package campaign

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// Campaign is a plan that is carried out.
type Campaign struct {
	Plan     Plan
	Settings Settings
	Dir      string // results, logs and report
	Lab      string // name of the labs; others may run beside them
	Labs     int    // how many run side by side
	Cache    *build.Cache
	Checkout build.Checkout
	// Until, if set, is when to begin no further run.
	Until time.Time
	Say   func(line string)
}

// ErrIncomplete says that runs of the plan are missing; the same command makes
// them.
var ErrIncomplete = errors.New("the campaign is not complete")

// mostFailures in a row that a campaign bears: a run that says nothing is the
// lab's failure, not the product's, but it has to be looked at.
const mostFailures = 3

// Run makes the runs that are missing and reports on all that there are.
func (c Campaign) Run(ctx context.Context) error {
	store, err := OpenStore(filepath.Join(c.Dir, "results.jsonl"))
	if err != nil {
		return err
	}
	missing := store.Missing(c.Plan.Keys())
	made, err := c.make(ctx, store, missing)
	if err == nil && made < len(missing) {
		err = fmt.Errorf("%w: %d runs are missing", ErrIncomplete, len(missing)-made)
	}
	return errors.Join(WriteReport(c.Dir, store.Results, c.Settings), err)
}

// make makes runs, in several labs side by side, and returns how many.
func (c Campaign) make(ctx context.Context, store *Store, keys []Key) (made int, err error) {
	first, err := c.open(ctx, keys)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wait     sync.WaitGroup
		lock     sync.Mutex // of what follows
		failures int
	)
	next := func() (key Key, ok bool) {
		lock.Lock()
		defer lock.Unlock()
		if len(keys) == 0 || ctx.Err() != nil || !c.Until.IsZero() && time.Now().After(c.Until) {
			return Key{}, false
		}
		key, keys = keys[0], keys[1:]
		return key, true
	}
	// done keeps what a run gave.
	done := func(key Key, result Result, err error) error {
		lock.Lock()
		defer lock.Unlock()
		if err == nil {
			failures = 0
			made++
			c.Say(describe(result))
			return store.Add(result)
		}
		if ctx.Err() != nil {
			return nil // broken off
		}
		c.Say(fmt.Sprintf("%v: nothing can be said: %v", key, err))
		if failures++; failures == mostFailures {
			return fmt.Errorf("%d runs in a row failed, the last: %w", failures, err)
		}
		return nil
	}
	for i := range max(c.Labs, 1) {
		wait.Add(1)
		go func() {
			defer wait.Done()
			benches := make(map[Mode]*Bench)
			for mode, bench := range first {
				var err error
				if benches[mode], err = bench.Beside(fmt.Sprintf("%s-%d", c.Lab, i+1)); err != nil {
					cancel(err)
					return
				}
			}
			for key, ok := next(); ok; key, ok = next() {
				result, err := benches[key.Mode].Run(ctx, key, c.Settings)
				if err := done(key, result, err); err != nil {
					cancel(err)
				}
			}
		}()
	}
	wait.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return made, cause
	}
	return made, nil
}

// open prepares the lab of each mode that is needed.
func (c Campaign) open(ctx context.Context, keys []Key) (map[Mode]*Bench, error) {
	benches := make(map[Mode]*Bench)
	for _, key := range keys {
		if benches[key.Mode] != nil {
			continue
		}
		c.Say(fmt.Sprintf("prepare the %s lab", key.Mode))
		bench, err := Open(ctx, c.Cache, c.Checkout, key.Mode, c.Lab, filepath.Join(c.Dir, "logs"))
		if err != nil {
			return nil, err
		}
		benches[key.Mode] = bench
	}
	return benches, nil
}

func describe(r Result) string {
	return fmt.Sprintf("%-32s %-9s %-12s %2d/%d faults, %5d restored, %d differ, %d corrupt on disk, guest sees %d; %.0f s (%.1f+%.1f+%.1f+%.1f of the machine's), %.0f s of a processor; %s %s",
		r.Key, r.Ending, r.Class, r.Injected, r.Faults, r.Pages.Restored, len(r.Pages.Mismatches), r.Pages.Corrupt,
		len(r.Seen.Differ), r.Took, r.Phases.Work, r.Phases.Reboot, r.Phases.Compare, r.Phases.See, r.Processor, r.Reboot.Reason, r.Note)
}
