package model

import (
	"flag"
	"testing"
)

// budget is how many schedules a removal must be noticed within. The rarest of
// them needs a tenth of it.
var budget = flag.Uint64("budget", 400_000, "random schedules within which a removed rule must be noticed")

// unseenBudget is what is spent on rules of which it is said that nothing can go
// wrong without them alone.
const unseenBudget = 50_000

// TestRemovals proves that the property is not blind: without any one of the rules
// a schedule breaks an invariant, or it is said here why none can.
func TestRemovals(t *testing.T) {
	var covered Rules
	for _, r := range removals {
		covered |= r.rules
		t.Run(r.where+": "+r.what, func(t *testing.T) {
			var w World
			n := *budget
			if r.unseen != "" {
				n = unseenBudget
			}
			for s := uint64(1); s <= n; s++ {
				failure := w.Run(allRules&^r.rules, s)
				if failure == "" {
					continue
				}
				schedule := Shrink(allRules&^r.rules, Schedule(s))
				if r.unseen != "" {
					t.Errorf("seed %d: %s; and it was said that it is not needed, as %s", s, failure, r.unseen)
				}
				t.Logf("seed %d: %s", s, failure)
				for i, step := range schedule {
					t.Logf("%3d. %v", i+1, step)
				}
				return
			}
			if r.unseen == "" {
				t.Errorf("not noticed in %d schedules", n)
			}
		})
	}
	if covered != allRules {
		t.Errorf("rules without a row in the table: %b", allRules&^covered)
	}
}
