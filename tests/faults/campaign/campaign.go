package campaign

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// Campaign is a plan that is carried out.
type Campaign struct {
	Plan     Plan
	Settings Settings
	Dir      string // results, logs and report
	Lab      string // name of the lab; others may run beside it
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
	var missed error
	for _, mode := range c.Plan.Modes {
		if err := c.runMode(ctx, store, mode); err != nil {
			missed = errors.Join(missed, err)
		}
	}
	return errors.Join(WriteReport(c.Dir, store.Results, c.Settings), missed)
}

func (c Campaign) runMode(ctx context.Context, store *Store, mode Mode) error {
	var bench *Bench
	defer func() {
		if bench != nil {
			_ = bench.Stop() // the lab keeps nothing
		}
	}()
	failures := 0
	missing := store.Missing(c.Plan.Keys(mode))
	for i, key := range missing {
		if ctx.Err() != nil || !c.Until.IsZero() && time.Now().After(c.Until) {
			return fmt.Errorf("%w: %d %s runs are missing", ErrIncomplete, len(missing)-i, mode)
		}
		if bench == nil {
			c.Say(fmt.Sprintf("boot the %s lab", mode))
			var err error
			if bench, err = Open(ctx, c.Cache, c.Checkout, mode, c.Lab, filepath.Join(c.Dir, "logs")); err != nil {
				return err
			}
		}
		result, err := bench.Run(ctx, key, c.Settings)
		if err == nil {
			failures = 0
			c.Say(describe(result))
			if err := store.Add(result); err != nil {
				return err
			}
			continue
		}
		c.Say(fmt.Sprintf("%v: nothing can be said: %v", key, err))
		if failures++; failures == mostFailures {
			return fmt.Errorf("%d runs in a row failed, the last: %w", failures, err)
		}
		// The next run begins with the state that was saved, unless the lab
		// itself has gone.
		if bench.Ping(ctx) != nil {
			if err := bench.Stop(); err != nil {
				return err
			}
			bench = nil
		}
	}
	return nil
}

func describe(r Result) string {
	return fmt.Sprintf("%-32s %-9s %-12s %2d/%d faults, %5d restored, %d differ, %d corrupt on disk, guest sees %d; %.0f s %s %s",
		r.Key, r.Ending, r.Class, r.Injected, r.Faults, r.Pages.Restored, len(r.Pages.Mismatches), r.Pages.Corrupt,
		r.Seen.Differ, r.Took, r.Reboot.Reason, r.Note)
}
