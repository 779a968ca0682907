// Package campaign plans, runs and judges fault injections, and reports on
// them. It is what `make faults` runs.
package campaign

import (
	"fmt"
	"slices"
	"strings"
)

// None is the type of a run in which nothing is injected: what it shows does
// not come from faults.
const None = "none"

// Types are all types of faults, in the order in which they are reported. Each
// is a name that the injector knows.
var Types = []string{
	None,
	"text-flip", "stack-flip", "slab-flip", "page-table-flip",
	"source-operand", "destination-operand", "branch-inverted", "branch-deleted", "loop-bound", "init-skipped",
	"copy-overrun", "wild-write", "page-cache-write", "use-after-free",
	"lock-dropped", "allocation-failure", "io-early", "io-lost",
}

// Mode says which hypervisor the guest runs on.
type Mode string

// Modes.
const (
	Protected Mode = "protected" // as it is meant to be used
	Trusting  Mode = "trusting"  // the ablation: the guest is believed
)

// Key names a run. It decides all that is random in it.
type Key struct {
	Type string `json:"type"`
	Seed uint64 `json:"seed"`
	Mode Mode   `json:"mode"`
}

func (k Key) String() string { return fmt.Sprintf("%s-%d-%s", k.Type, k.Seed, k.Mode) }

// Plan is what a campaign consists of.
type Plan struct {
	Runs  int // of each type, in each mode
	Types []string
	Seed  uint64 // of the first run of each type; the others follow
	Modes []Mode
}

// ParsePlan reads what `make faults` is given. No types, or no mode, is all.
func ParsePlan(runs int, types string, seed uint64, mode string) (Plan, error) {
	p := Plan{Runs: runs, Types: Types, Seed: seed}
	if runs < 1 {
		return p, fmt.Errorf("runs: %d is not a number of runs", runs)
	}
	if types != "" {
		p.Types = strings.Split(types, ",")
	}
	for _, name := range p.Types {
		if !slices.Contains(Types, name) {
			return p, fmt.Errorf("types: there is no type %q; there are %s", name, strings.Join(Types, ", "))
		}
	}
	switch mode {
	case "", "both":
		p.Modes = []Mode{Protected, Trusting}
	case string(Protected), string(Trusting):
		p.Modes = []Mode{Mode(mode)}
	default:
		return p, fmt.Errorf("mode: %q is neither protected, trusting nor both", mode)
	}
	return p, nil
}

// Keys lists the runs. Every type gets its first run, in each mode and with the
// same seed, before any gets its second, so that a campaign that is broken off
// says something of each.
func (p Plan) Keys() []Key {
	var keys []Key
	for i := range p.Runs {
		for _, name := range p.Types {
			for _, mode := range p.Modes {
				keys = append(keys, Key{Type: name, Seed: p.Seed + uint64(i), Mode: mode})
			}
		}
	}
	return keys
}
