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
	missing := store.Missing(c.Plan.Keys())
	made, err := c.make(ctx, store, missing)
	if err == nil && made < len(missing) {
		err = fmt.Errorf("%w: %d runs are missing", ErrIncomplete, len(missing)-made)
	}
	return errors.Join(WriteReport(c.Dir, store.Results, c.Settings), err)
}

// make makes runs and returns how many.
func (c Campaign) make(ctx context.Context, store *Store, keys []Key) (made int, err error) {
	benches := make(map[Mode]*Bench)
	failures := 0
	for _, key := range keys {
		if ctx.Err() != nil || !c.Until.IsZero() && time.Now().After(c.Until) {
			return made, nil
		}
		if benches[key.Mode] == nil {
			c.Say(fmt.Sprintf("prepare the %s lab", key.Mode))
			bench, err := Open(ctx, c.Cache, c.Checkout, key.Mode, c.Lab, filepath.Join(c.Dir, "logs"))
			if err != nil {
				return made, err
			}
			benches[key.Mode] = bench
		}
		result, err := benches[key.Mode].Run(ctx, key, c.Settings)
		if err == nil {
			failures = 0
			made++
			c.Say(describe(result))
			if err := store.Add(result); err != nil {
				return made, err
			}
			continue
		}
		c.Say(fmt.Sprintf("%v: nothing can be said: %v", key, err))
		if failures++; failures == mostFailures {
			return made, fmt.Errorf("%d runs in a row failed, the last: %w", failures, err)
		}
	}
	return made, nil
}

func describe(r Result) string {
	return fmt.Sprintf("%-32s %-9s %-12s %2d/%d faults, %5d restored, %d differ, %d corrupt on disk, guest sees %d; %.0f s (%.0f+%.0f+%.0f+%.0f) %s %s",
		r.Key, r.Ending, r.Class, r.Injected, r.Faults, r.Pages.Restored, len(r.Pages.Mismatches), r.Pages.Corrupt,
		len(r.Seen.Differ), r.Took, r.Phases.Load, r.Phases.Work, r.Phases.Reboot, r.Phases.Examine, r.Reboot.Reason, r.Note)
}
