package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
)

func warmSummary() api.Summary {
	return api.Summary{Domain: "web", DomidBefore: 3, DomidAfter: 4, Sequence: 7, Trigger: api.Graceful, Outcome: "warm",
		PagesBefore: 1000, PagesPreserved: 990, PagesAdopted: 990, PagesApproved: 980, PagesRestored: 970,
		Refused: map[string]uint64{"sector": 4, "cached": 6}, DownSeconds: 1.2, RestoredSeconds: 9.9, Done: true,
		VBDs: []api.VBDSummary{{VBD: 51712, Name: "xvda", Backing: "/dev/vdb", Verdict: "approved", Held: 980, Checked: 256}}}
}

func TestReboot(t *testing.T) {
	for _, c := range []struct {
		args     []string
		asked    string
		deadline time.Duration
	}{
		{[]string{"web"}, "reboot web graceful", 5 * time.Minute},
		{[]string{"--force", "web"}, "reboot web force", 5 * time.Minute},
		{[]string{"web", "--force"}, "reboot web force", 5 * time.Minute},
		{[]string{"web", "--cold", "--timeout", "10s"}, "reboot web cold", 10 * time.Second},
		{[]string{"web", "--timeout=20s"}, "reboot web graceful", 20 * time.Second},
	} {
		s := &fakeService{summary: warmSummary()}
		r := runCLI(s, nil, c.args...)
		if r.code != 0 || !slices.Equal(s.asked, []string{c.asked}) || s.deadline != c.deadline {
			t.Errorf("%q: %+v, asked %q with %v", c.args, r, s.asked, s.deadline)
		}
		for _, want := range []string{"came back warm", "restored  970 pages", "cached 6, sector 4", "xvda", "down 1.2 s"} {
			if !strings.Contains(r.out, want) {
				t.Errorf("%q: no %q in\n%s", c.args, want, r.out)
			}
		}
		if r.stderr != "" {
			t.Errorf("%q: on stderr, which is no terminal: %q", c.args, r.stderr)
		}
	}
}

func TestRebootJSON(t *testing.T) {
	s := &fakeService{summary: warmSummary(), err: api.Errorf(api.CameBackCold, "cold")}
	r := runCLI(s, nil, "web", "-o", "json")
	var got map[string]any
	r.json(t, &got)
	if r.code != ExitCold || got["pages_restored"] != 970.0 || got["trigger"] != "graceful" {
		t.Errorf("%+v", r)
	}
	for _, key := range []string{"domain", "uuid", "domid_before", "domid_after", "sequence", "trigger", "outcome", "reason",
		"pages_before", "pages_preserved", "pages_adopted", "pages_approved", "pages_restored", "refused", "vbds",
		"down_seconds", "restored_seconds", "done"} {
		if _, ok := got[key]; !ok {
			t.Errorf("no %q", key)
		}
	}
	// One that was not even begun prints no summary.
	r = runCLI(&fakeService{err: api.Errorf(api.NotFound, "no")}, nil, "web", "-o", "json")
	if r.code != ExitNotFound || r.out != "" {
		t.Errorf("%+v", r)
	}
}

func TestDryRun(t *testing.T) {
	s := &fakeService{plan: api.Plan{Domain: "web", Domid: 3, Mode: api.Force, Pages: 12,
		VBDs: []api.PlanVBD{{VBD: 51712, Name: "xvda", Backing: "/dev/vdb", Pages: 12, Check: "sample=256"}}}}
	r := runCLI(s, nil, "web", "--force", "--dry-run")
	if r.code != 0 || !slices.Equal(s.asked, []string{"plan web force"}) || !strings.Contains(r.out, "would preserve 12 pages") {
		t.Errorf("%+v, asked %q", r, s.asked)
	}
	var p api.Plan
	runCLI(s, nil, "web", "--dry-run", "-o", "json").json(t, &p)
	if p.Pages != 12 {
		t.Errorf("%+v", p)
	}
	s = &fakeService{plan: api.Plan{Domain: "web", Domid: 3, Mode: api.Force, Joins: api.Crash}}
	if r := runCLI(s, nil, "web", "--force", "--dry-run"); r.code != 0 || r.out != "would wait for domain web (domid 3), which is going down by itself (crash)\n" {
		t.Errorf("%+v", r)
	}
}

// TestInterrupted: a command that is interrupted says what that means, and has
// the code that shells know.
func TestInterrupted(t *testing.T) {
	r := runCLI(&fakeService{err: fmt.Errorf("asking: %w", context.Canceled)}, nil, "web")
	if r.code != 130 || !strings.Contains(r.stderr, "interrupted") || !strings.Contains(r.stderr, "warmreboot status") {
		t.Errorf("%+v", r)
	}
}
