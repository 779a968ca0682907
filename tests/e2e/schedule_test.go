package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab"
)

// scheduled is a lab whose agent has schedules.
type scheduled struct{ *bed }

const configFile = "/etc/warmreboot/lab.toml"

// configure writes the configuration as an editor does: a new file over the old.
func (s scheduled) configure(t *testing.T, text string) {
	t.Helper()
	s.dom0(t, "mkdir -p /etc/warmreboot; umask 022; cat >"+configFile+".new <<'END'\n"+text+"END\nmv "+configFile+".new "+configFile)
}

// plan is `warmreboot plan`, as far as it is needed here.
type plan struct {
	Config struct{ Error string }
	Runs   []struct {
		Schedule, Domain, Blocked, Why string
		Next                           time.Time
	}
	Locks   []struct{ Owner string }
	Stopped []struct{ Schedule, Why string }
}

// awaitPlan waits until the plan is as it should be.
func (s scheduled) awaitPlan(t *testing.T, what string, good func(plan) bool) plan {
	t.Helper()
	var p plan
	await(t, what, func() bool {
		p = plan{}
		if err := json.Unmarshal([]byte(s.dom0(t, "warmreboot plan -o json")), &p); err != nil {
			t.Fatal(err)
		}
		return good(p)
	})
	return p
}

// past is an entry of `warmreboot history`.
type past struct {
	By, Schedule, Trigger, Outcome, Reason, Error, Followed, Operation string
	PagesRestored                                                      int `json:"pages_restored"`
	Hooks                                                              []struct {
		Name, What, Detail string
		OK                 bool
	}
	Health *struct {
		OK     bool
		Detail string
	}
}

func (s scheduled) history(t *testing.T, flags string) []past {
	t.Helper()
	var all []past
	if err := json.Unmarshal([]byte(s.dom0(t, "warmreboot history -o json "+flags)), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestSchedule: an operator writes down a schedule, and a warm reboot happens by
// itself, with its hooks and its health check, and is in the history.
func TestSchedule(t *testing.T) {
	t.Parallel()
	s := scheduled{boot(t, lab.Variant{Unthrottled: true})}
	s.create(t, true)
	s.verify(t) // which reads all files
	before := s.dom0(t, "xl domid domU-web")

	// A wrong file is named by line, and not in force.
	s.configure(t, "[[schedule]]\nname = \"lab\"\ncron = \"* * * *\"\n")
	if code, output := s.exitCode(t, "warmreboot config check"); code != 1 || !strings.Contains(output, configFile+":3: ") {
		t.Errorf("config check: %s", output)
	}
	p := s.awaitPlan(t, "the wrong file is noticed", func(p plan) bool { return p.Config.Error != "" })
	if len(p.Runs) != 0 || !strings.Contains(p.Config.Error, configFile+":3: ") {
		t.Errorf("%+v", p)
	}
	if code, output := s.exitCode(t, "warmreboot status"); code != 0 || !strings.Contains(output, configFile+":3: ") {
		t.Errorf("status: %s", output)
	}

	// A right one. Its last hook removes it, so that there is one reboot only.
	const good = `[[schedule]]
name = "lab"
domains = ["domU-*"]
timezone = "UTC"
cron = "* * * * *"
minimum_distance = "0s"
[[schedule.before]]
command = ["/bin/sh", "-c", "echo before $WARMREBOOT_DOMAIN $(xl domid {domain}) >>/tmp/hooks"]
[[schedule.after]]
command = ["/bin/sh", "-c", "echo after $WARMREBOOT_OUTCOME $WARMREBOOT_HEALTH $(xl domid {domain}) >>/tmp/hooks; rm ` + configFile + `"]
[schedule.health]
http = "http://` + lab.DomainAddress + `/"
status = [200, 403, 404]
timeout = "3m"
`
	s.configure(t, good)
	s.awaitPlan(t, "the right file is noticed", func(p plan) bool {
		return p.Config.Error == "" && len(p.Runs) == 1 && p.Runs[0].Schedule == "lab" && p.Runs[0].Domain == "domU-web" && !p.Runs[0].Next.IsZero()
	})
	// What was done around it is entered when all of it has been done; all within
	// some minutes of dom0's clock.
	begun := time.Now()
	if _, err := s.Machine.Dom0().Shell(t.Context(), `for i in $(seq 120); do warmreboot history --by schedule -o json | grep -q '"name": "after"' && exit 0; sleep 2; done; exit 1`); err != nil {
		t.Fatalf("no scheduled reboot; dom0 says:\n%s", s.dom0(t, "date; warmreboot plan; warmreboot history; cat /tmp/hooks || true"))
	}
	entry := s.history(t, "--by schedule")[0]
	t.Logf("after %.0f s: %+v, %+v", time.Since(begun).Seconds(), entry, entry.Health)
	if entry.By != "schedule" || entry.Schedule != "lab" || entry.Trigger != "graceful" || entry.Outcome != "warm" || entry.Error != "" || entry.PagesRestored < 40000 {
		t.Errorf("%+v", entry)
	}
	if len(entry.Hooks) != 2 || !entry.Hooks[0].OK || !entry.Hooks[1].OK || entry.Health == nil || !entry.Health.OK {
		t.Errorf("%+v, %+v", entry.Hooks, entry.Health)
	}
	s.awaitDomU(t)
	after := s.dom0(t, "xl domid domU-web")
	want := fmt.Sprintf("before domU-web %s\nafter warm ok %s", strings.TrimSpace(before), strings.TrimSpace(after))
	if hooks := strings.TrimSpace(s.dom0(t, "cat /tmp/hooks")); hooks != want || after == before {
		t.Errorf("hooks wrote %q, want %q", hooks, want)
	}
	pass := s.read(t)
	if most := pass.Bytes / 100; pass.Disks["xvda"].Bytes > most {
		t.Errorf("%d of %d bytes came from disk", pass.Disks["xvda"].Bytes, pass.Bytes)
	}
	s.verify(t)
	s.check(t)

	// No schedule any more: nothing else happens.
	s.awaitPlan(t, "the removal is noticed", func(p plan) bool { return len(p.Runs) == 0 })
	if text := s.dom0(t, "warmreboot history"); !strings.Contains(text, "schedule lab") {
		t.Errorf("history:\n%s", text)
	}

	// Locks and windows hold an operator up, too, and outlive the daemon.
	s.dom0(t, "warmreboot lock domU-web --ttl 2h --owner ann --reason backup")
	if err := s.StopAgent(t.Context(), "KILL"); err != nil {
		t.Fatal(err)
	}
	if err := s.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code, output := s.exitCode(t, "warmreboot domU-web"); code != 11 || !strings.Contains(output, "locked by ann (backup)") {
		t.Errorf("locked: %s", output)
	}
	s.dom0(t, "warmreboot unlock domU-web")
	s.configure(t, s.dom0(t, `h=$(date -u +%H); h=${h#0}; printf '[[schedule]]\nname = "window"\ndomains = ["domU-web"]\ntimezone = "UTC"\nevery = "30d"\n[[schedule.window]]\nfrom = "%02d:00"\nto = "%02d:00"\n' $(((h + 6) % 24)) $(((h + 7) % 24))`)+"\n")
	s.awaitPlan(t, "the window is noticed", func(p plan) bool { return len(p.Runs) == 1 && p.Runs[0].Schedule == "window" })
	if code, output := s.exitCode(t, "warmreboot domU-web"); code != 11 || !strings.Contains(output, "outside its windows") {
		t.Errorf("outside its window: %s", output)
	}
	if code, output := s.exitCode(t, "warmreboot domU-web --override --dry-run"); code != 0 || !strings.Contains(output, "would preserve") {
		t.Errorf("override: %s", output)
	}
	if now := s.dom0(t, "xl domid domU-web"); now != after {
		t.Errorf("the domain was rebooted all the same: %s, %s", after, now)
	}
	if all := s.history(t, ""); len(all) != 1 {
		t.Errorf("%d entries in the history: %+v", len(all), all)
	}
}
