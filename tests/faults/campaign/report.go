package campaign

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/warmreboot/warmreboot/tests/faults/hand"
)

// Tally counts the runs of a type in a mode.
type Tally struct {
	Type    string              `json:"type"`
	Mode    Mode                `json:"mode"`
	Runs    int                 `json:"runs"`
	Classes map[Class]int       `json:"classes"`
	Endings map[hand.Ending]int `json:"endings"`
	Faults  int                 `json:"faults"`  // injected
	Pages   uint64              `json:"pages"`   // restored
	Wrong   int                 `json:"wrong"`   // pages that differ from their block, the exceptions among them
	Checked uint64              `json:"checked"` // pages compared
}

func (t *Tally) add(r Result) {
	t.Runs++
	t.Classes[r.Class]++
	t.Endings[r.Ending]++
	t.Faults += r.Injected
	t.Pages += r.Pages.Restored
	t.Wrong += len(r.Pages.Mismatches)
	t.Checked += r.Pages.Checked
}

// wrong counts the runs in which a page came back that should not have.
func (t Tally) wrong() int { return t.Classes[Stale] + t.Classes[Inconsistent] }

// Count sorts results into tallies: by type, in the order of Types, and within
// it by mode. Types without a run are left out.
func Count(results []Result) []Tally {
	var tallies []Tally
	for _, name := range Types {
		for _, mode := range []Mode{Protected, Trusting} {
			t := newTally(name, mode)
			for _, r := range results {
				if r.Type == name && r.Mode == mode {
					t.add(r)
				}
			}
			if t.Runs > 0 {
				tallies = append(tallies, t)
			}
		}
	}
	return tallies
}

func newTally(name string, mode Mode) Tally {
	return Tally{Type: name, Mode: mode, Classes: make(map[Class]int), Endings: make(map[hand.Ending]int)}
}

// Total adds up a mode, without the runs in which nothing was injected.
func Total(results []Result, mode Mode) Tally {
	t := newTally("all", mode)
	for _, r := range results {
		if r.Mode == mode && r.Type != None {
			t.add(r)
		}
	}
	return t
}

// Bound is what runs without a failure say about the probability of one: with
// 95 % confidence it is below. It is the rule of three (Hanley and
// Lippman-Hand, 1983), good from some thirty runs on.
func Bound(runs int) float64 {
	if runs < 3 {
		return 1
	}
	return 3 / float64(runs)
}

// WriteReport writes report.json, table.md and figure.svg.
func WriteReport(dir string, results []Result, settings Settings) error {
	tallies := Count(results)
	text, err := json.MarshalIndent(struct {
		Settings Settings `json:"settings"`
		Tallies  []Tally  `json:"tallies"`
		Total    []Tally  `json:"total"`
		Bound    float64  `json:"bound"` // of the protected mode; meaningless if a run was wrong
	}{settings, tallies, []Tally{Total(results, Protected), Total(results, Trusting)}, Bound(warm(Total(results, Protected)))}, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "report.json"), append(text, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "table.md"), []byte(Table(results)), 0o644),
		os.WriteFile(filepath.Join(dir, "figure.svg"), []byte(Figure(tallies)), 0o644))
}

// warm is the number of runs after which pages came back: only these say
// something.
func warm(t Tally) int { return t.Runs - t.Classes[Cold] - t.Classes[NoBoot] }

// Table is the report as a person reads it.
func Table(results []Result) string {
	var b strings.Builder
	b.WriteString("| type | mode | runs | faults |")
	for _, class := range Classes {
		fmt.Fprintf(&b, " %s |", class)
	}
	b.WriteString(" crashed | forced | pages restored | wrong |\n|---|---|" + strings.Repeat("---|", len(Classes)+6) + "\n")
	rows := slices.Concat(Count(results), []Tally{Total(results, Protected), Total(results, Trusting)})
	for _, t := range rows {
		if t.Runs == 0 {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d |", t.Type, t.Mode, t.Runs, t.Faults)
		for _, class := range Classes {
			fmt.Fprintf(&b, " %d |", t.Classes[class])
		}
		fmt.Fprintf(&b, " %d | %d | %d | %d |\n", t.Endings[hand.Crashed], t.Endings[hand.Forced], t.Pages, t.Wrong)
	}
	if t := Total(results, Protected); t.wrong() == 0 && warm(t) > 0 {
		fmt.Fprintf(&b, "\nProtected, no wrong page came back in %d runs with faults after which pages came back (%d pages): "+
			"with 95 %% confidence fewer than %.1f %% of such runs bring one back.\n", warm(t), t.Pages, math.Ceil(1000*Bound(warm(t)))/10)
	}
	states := make(map[string]int)
	for _, r := range results {
		states[r.State]++
	}
	if len(states) > 1 {
		b.WriteString("\nRuns by the state that they began with:")
		for _, state := range slices.Sorted(maps.Keys(states)) {
			fmt.Fprintf(&b, " %s %d,", state, states[state])
		}
		b.WriteString(" each for another lab, hypervisor, kernel or agent.\n")
	}
	return b.String()
}
