package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

// named answers about a domain of that name in all that it says.
func named(name string) *fakeService {
	sum := api.Summary{Domain: name, UUID: ident.UUID{1}, Trigger: api.Graceful, Outcome: "cold", Reason: name, Done: true, Refused: map[string]uint64{name: 1},
		VBDs: []api.VBDSummary{{Name: name, Backing: name, Verdict: "refused", Reason: name, Note: name,
			Refusals: api.Refusals{{Reason: api.Reason(name), Pages: 1, Times: 2, Example: name}}}}}
	st := api.DomainStatus{Domain: name, UUID: ident.UUID{1}, Domid: 3, State: "running", Type: "hvm", Toolstack: name, Managed: true, Enabled: true,
		Policy: &api.Policy{Content: name, Uncertain: name}, Custody: []api.VBDCustody{{Name: name, Backing: name, State: "certain", Reason: name}},
		Refusals: []api.VBDRefusals{{Name: name, Refusals: sum.VBDs[0].Refusals}}, Last: &sum, Message: name}
	running := api.Operation{ID: "op", Domain: name, UUID: ident.UUID{1}, Owner: name, Cause: name, State: api.OperationRunning}
	return &fakeService{status: st, operations: []api.Operation{running}, list: []api.DomainStatus{st}, summary: sum, drop: api.DropResult{Domain: name},
		plan:    api.Plan{Domain: name, VBDs: []api.PlanVBD{{Name: name, Backing: name, Check: name}}},
		entries: []api.HistoryEntry{{Summary: sum, Error: name, Followed: name, Hooks: []api.StepResult{{Name: name}}, Health: &api.StepResult{Detail: name}}},
		forecast: api.Forecast{Config: api.ConfigStatus{Dir: name, Error: name}, Locks: []api.LockStatus{{Domain: name, Owner: name, Reason: name}},
			Halted: []api.HaltedRules{{Schedule: name, Why: name}},
			Runs:   []api.PlannedRun{{Domain: name, Schedule: name, Why: name, Blocked: name, Due: time.Unix(1, 0)}}}}
}

var textCommands = [][]string{{"status"}, {"status", "d"}, {"d"}, {"d", "--dry-run"}, {"enable", "d"}, {"enable", "d", "--dry-run"}, {"disable", "d"},
	{"disable", "--all"}, {"drop", "d"}, {"history"}, {"plan"}, {"lock", "d"}, {"unlock", "d"}, {"cancel", "d"}, {"resume", "s"}, {"top", "--count", "1"}, {"doctor"},
	{"report", "d", "--file", "/nonexistent/x"}}

// TestTerminal: nothing that a name brings along steers a terminal, and none makes
// lines or columns of its own.
func TestTerminal(t *testing.T) {
	lines := map[string]int{}
	for _, name := range []string{"web", "\x1b[2J\x1b]0;owned\x07", "a\rb", "caf\xe9", "\u202ebew", "\u009b2J", "a\nb\tc", "\x00"} {
		for _, args := range textCommands {
			what := strings.Join(args, " ")
			r := runCLI(named(name), healthy().local, args...)
			for _, c := range r.out + r.stderr {
				if !unicode.IsPrint(c) && c != '\n' && c != '\t' {
					t.Errorf("%s of %q shows %q", what, name, c)
				}
			}
			// A configuration's faults are lines by themselves.
			n := strings.Count(r.out, "\n")
			if what == "plan" {
				n -= strings.Count(name, "\n")
			}
			if name == "web" {
				lines[what] = n
			} else if n != lines[what] {
				t.Errorf("%s of %q shows %d lines, want %d:\n%s", what, name, n, lines[what], r.out)
			}
		}
		// JSON is for programs: as it is.
		var got api.DomainStatus
		runCLI(named(name), nil, "status", "d", "-o", "json").json(t, &got)
		if want, _ := json.Marshal(name); got.Domain != strings.ToValidUTF8(name, "\ufffd") {
			t.Errorf("%q as JSON: %q, want %s", name, got.Domain, want)
		}
	}
	if r := runCLI(named("caf\xe9"), nil, "status"); !strings.Contains(r.out, `caf\xe9`) {
		t.Errorf("%s", r.out)
	}
}
