package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

func TestPlan(t *testing.T) {
	now := time.Now()
	f := &fakeService{forecast: api.Forecast{Now: now, Config: api.ConfigStatus{Dir: "/etc/warmreboot", Error: "web.toml:3: oh", Loaded: now},
		Locks:  []api.LockStatus{{Domain: "db", Owner: "ann", Reason: "backup", Until: now}},
		Halted: []api.HaltedRules{{Schedule: "nightly", Why: "db was not well"}},
		Runs: []api.PlannedRun{{Schedule: "web", Domain: "web-1", Mode: api.Graceful, Due: now, Blocked: "waits for its turn", Why: "up for 31d"},
			{Schedule: "web", Domain: "web-2", Mode: api.Graceful, Kernel: "/boot/new", Due: now, Running: true, Blocked: "busy", Why: "up for 32d"},
			{Schedule: "web", Domain: "web-3", Mode: api.Cold, DryRun: true, Next: now.Add(time.Hour), Why: "cron @daily"}}}}
	r := runCLI(f, nil, "plan")
	if r.code != 0 || !slices.Equal(f.asked, []string{"forecast "}) {
		t.Errorf("%+v, asked %q", r, f.asked)
	}
	for _, want := range []string{"web.toml:3: oh", "stopped: db was not well; warmreboot resume nightly", "db is locked by ann", "backup",
		"but waits for its turn", "under way", "cold, dry run", clock(now.Add(time.Hour)), "cron @daily", "up for 32d; with /boot/new"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
	var got api.Forecast
	runCLI(f, nil, "plan", "web-1", "-o", "json").json(t, &got)
	if len(got.Runs) != 3 || got.Config.Error == "" || got.Runs[2].Due != (time.Time{}) || f.asked[1] != "forecast web-1" {
		t.Errorf("%+v", got)
	}
	// status says that the configuration is an old one, too.
	if r := runCLI(f, nil, "status"); r.code != 0 || !strings.Contains(r.stderr, "that of "+clock(now)+" is in force\nweb.toml:3: oh") || strings.Contains(r.out, "oh") {
		t.Errorf("%+v", r)
	}
	f.forecast.Locks = lostLocks
	if r := runCLI(f, nil, "plan"); !strings.Contains(r.out, "domain web is locked by warmrebootd until it is released: warmreboot unlock web: nobody knows what was locked\n") {
		t.Errorf("%+v", r)
	}
	f.forecast.Config.Loaded = time.Time{} // it was wrong when the daemon was started
	for _, r := range []result{runCLI(f, nil, "plan"), runCLI(f, nil, "status")} {
		if !strings.Contains(r.out+r.stderr, "/etc/warmreboot is wrong; none is in force: no schedule is done") {
			t.Errorf("%+v", r)
		}
	}
}

func TestConfigCheck(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "web.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("[[schedule]]\nname = \"web\"\ndomains = [\"web-*\"]\nevery = \"30d\"\n")
	if r := runCLI(&fakeService{}, nil, "config", "check", dir); r.code != 0 || !strings.Contains(r.out, "1 files, 1 schedules, no problems") {
		t.Errorf("%+v", r)
	}
	write("[[schedule]]\nname = \"web\"\nevery = \"soon\"\n")
	if r := runCLI(&fakeService{}, nil, "config", "check", dir); r.code != ExitFailure || !strings.HasPrefix(r.out, path+":3: ") || r.stderr == "" {
		t.Errorf("%+v", r)
	}
	r := runCLI(&fakeService{}, nil, "config", "check", dir, "-o", "json")
	var got checked
	r.json(t, &got)
	if r.code != ExitFailure || got.OK || len(got.Problems) != 1 || got.Problems[0].Line != 3 {
		t.Errorf("%+v", got)
	}
	if r := runCLI(&fakeService{}, nil, "config", "check", filepath.Join(dir, "none")); r.code != ExitFailure {
		t.Errorf("%+v", r)
	}
}

func TestLockCommands(t *testing.T) {
	s := &fakeService{}
	if r := runCLI(s, nil, "lock", "web", "--ttl", "2d", "--reason", "backup", "--owner", "ann"); r.code != 0 || s.lock.Owner != "ann" ||
		s.lock.Reason != "backup" || s.lock.TTLSeconds != 2*86400 {
		t.Errorf("%+v, %+v", r, s.lock)
	}
	if r := runCLI(s, nil, "lock", "web"); r.code != 0 || s.lock.Owner == "" || s.lock.TTLSeconds != 3600 {
		t.Errorf("%+v, %+v", r, s.lock)
	}
	if r := runCLI(s, nil, "unlock", "web"); r.code != 0 || !strings.Contains(r.out, "released the lock of ann") {
		t.Errorf("%+v", r)
	}
	if r := runCLI(s, nil, "resume", "weekly", "-o", "json"); r.code != 0 || !strings.Contains(r.out, `"why": "not well"`) {
		t.Errorf("%+v", r)
	}
	r := runCLI(&fakeService{err: api.Errorf(api.Locked, "locked by bob")}, nil, "lock", "web")
	if r.code != ExitLocked {
		t.Errorf("%+v", r)
	}
}

// TestCancel: an operation is named by its id, or by the domain that is in it.
func TestCancel(t *testing.T) {
	web, db := ident.UUID{1}, ident.UUID{2}
	s := &fakeService{status: api.DomainStatus{Domain: "web", UUID: web}, operations: []api.Operation{
		{ID: "a", Domain: "web", UUID: web, State: api.OperationDone}, {ID: "b", Domain: "db", UUID: db, State: api.OperationRunning, Owner: "bob", Cause: "a cold reboot"},
		{ID: "c", Domain: "web", UUID: web, State: api.OperationRunning, Owner: "ann", Cause: "a graceful reboot"}}}
	for arg, id := range map[string]string{"web": "c", "b": "b", "c": "c"} {
		s.asked = nil
		if r := runCLI(s, nil, "cancel", arg); r.code != 0 || s.asked[len(s.asked)-1] != "cancel "+id || !strings.Contains(r.out, "operation "+id+" of ") {
			t.Errorf("%s: %+v, %q", arg, r, s.asked)
		}
	}
	var op api.Operation
	if runCLI(s, nil, "cancel", "web", "-o", "json").json(t, &op); op.ID != "c" {
		t.Errorf("%+v", op)
	}
	for what, all := range map[string][]api.Operation{"in no operation": s.operations[:2], "b or c": {{ID: "b", UUID: web, State: api.OperationRunning}, s.operations[2]}} {
		s := &fakeService{status: s.status, operations: all}
		if r := runCLI(s, nil, "cancel", "web"); r.code != ExitUsage || !strings.Contains(r.stderr, what) {
			t.Errorf("%+v", r)
		}
	}
	s = &fakeService{operations: s.operations, err: api.Errorf(api.Locked, "too late")}
	if r := runCLI(s, nil, "cancel", "c"); r.code != ExitLocked {
		t.Errorf("%+v", r)
	}
}

// TestDryRunChangesNothing: none of the commands that change something asks the
// daemon for more than what it knows.
func TestDryRunChangesNothing(t *testing.T) {
	for _, args := range [][]string{{"enable", "web"}, {"disable", "web"}, {"drop", "web"}, {"lock", "web"}, {"unlock", "web"}, {"cancel", "web"}, {"resume", "weekly"}} {
		s := &fakeService{status: api.DomainStatus{Domain: "web", State: "running"},
			operations: []api.Operation{{ID: "a", State: api.OperationRunning}}, forecast: api.Forecast{Halted: []api.HaltedRules{{Schedule: "weekly"}}}}
		r := runCLI(s, nil, append(args, "--dry-run")...)
		if r.code != 0 || !strings.Contains(r.out, "would ") {
			t.Errorf("%q: %+v", args, r)
		}
		for _, a := range s.asked {
			if a != "status web" && a != "forecast " {
				t.Errorf("%q: asked %q", args, a)
			}
		}
	}
}
