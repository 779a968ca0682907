package model

import (
	"flag"
	"testing"
	"time"
)

var (
	schedules = flag.Uint64("schedules", 1_000_000, "random schedules to try")
	seed      = flag.Uint64("seed", 1, "first seed")
	replay    = flag.Uint64("replay", 0, "take the schedule of this seed only")
	today     = flag.Bool("today", false, "without the rules that the code does not have: shows a finding")
)

func report(t *testing.T, rules Rules, seed uint64, failure string) {
	t.Helper()
	s := Shrink(rules, Schedule(seed))
	t.Errorf("seed %d: %s; again with -replay=%d. The smallest schedule:", seed, failure, seed)
	for i, step := range s {
		t.Logf("%3d. %v", i+1, step)
	}
}

// TestInvariants is the property: no schedule breaks an invariant.
func TestInvariants(t *testing.T) {
	var w World
	rules := Rules(allRules)
	if *today {
		rules &^= missing
	}
	if *replay != 0 {
		if failure := w.Run(rules, *replay); failure != "" {
			report(t, rules, *replay, failure)
		}
		return
	}
	began := time.Now()
	for n := range *schedules {
		if failure := w.Run(rules, *seed+n); failure != "" {
			report(t, rules, *seed+n, failure)
			return
		}
	}
	t.Logf("%d schedules of %d steps from seed %d, in %v", *schedules, steps, *seed, time.Since(began).Round(time.Millisecond))
}

// prevented are steps that do nothing in a scenario because a rule sees to it.
var prevented = map[string]bool{"restore to its end": true, "rename": true, "stale write": true}

// TestScenarios takes the scenarios as they are: none breaks an invariant, and
// none has become a row of steps that do nothing.
func TestScenarios(t *testing.T) {
	var w World
	for _, s := range scenarios {
		if failure := w.Replay(allRules, s.steps); failure != "" {
			t.Errorf("%s: %s", s.name, failure)
		}
		w.Reset(allRules)
		for i, step := range s.steps {
			before := w
			if w.Apply(step); w == before && !prevented[operations[step.Op].name] {
				t.Errorf("%s: step %d, %v, does nothing", s.name, i+1, step)
			}
		}
	}
}

// TestReplay proves that a seed is a schedule: dealt again it is the same, and
// ends in the same way.
func TestReplay(t *testing.T) {
	var w, again World
	for s := uint64(1); s <= 1000; s++ {
		w.Run(allRules&^missing, s)
		again.Replay(allRules&^missing, Schedule(s))
		if w != again {
			t.Fatalf("seed %d ends in two ways", s)
		}
	}
}
