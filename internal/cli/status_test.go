package cli

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
)

func TestStatus(t *testing.T) {
	last := warmSummary()
	st := api.DomainStatus{Domain: "web", Domid: 4, State: "running", Type: "hvm", Managed: true, Enabled: true, Armed: true,
		Attached: true, Committed: 512, Policy: &api.Policy{Content: "full", Uncertain: "full"}, Last: &last,
		Custody: []api.VBDCustody{{Name: "xvda", Backing: "/dev/vdb", State: "uncertain", Reason: "nobody looked"}}}
	st.Refusals = []api.VBDRefusals{{VBD: 51728, Name: "xvdb"}}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	st.Refusals[0].Refusals.Add(at, api.Written, 400, "8 sectors")
	st.Refusals[0].Refusals.Add(at.Add(time.Hour), api.Written, 5, "16 sectors")
	st.Refusals[0].Refusals.Add(at, api.Content, 3, "PFN 0x7")
	s := &fakeService{status: st, list: []api.DomainStatus{st, {Domain: "pv", Domid: 5, State: "running", Type: "pv"}}}
	r := runCLI(s, nil, "status", "web")
	for _, want := range []string{"warm cache: on", "reusable now 512 pages (2.0 MiB)", "custody uncertain: nobody looked", "came back warm",
		"refused of xvdb since it was enabled", "written: 405 pages in 2 reboots or other occasions, the first at 2026-01-02T03:04:05Z: 8 sectors",
		"content: 3 pages: PFN 0x7"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
	r = runCLI(s, nil, "status", "web", "--wait", "--timeout", "3s")
	if r.code != 0 || s.asked[1] != "status web wait" {
		t.Errorf("%+v, asked %q", r, s.asked)
	}
	r = runCLI(s, nil, "status")
	if lines := strings.Split(strings.TrimSpace(r.out), "\n"); len(lines) != 3 || !strings.Contains(lines[1], "warm (graceful), 970 restored") || !strings.Contains(lines[2], "off") {
		t.Errorf("%q", r.out)
	}
	var all []api.DomainStatus
	runCLI(s, nil, "status", "-o", "json").json(t, &all)
	var one map[string]any
	runCLI(s, nil, "status", "-o", "json", "web").json(t, &one)
	if len(all) != 2 || one["write_faults"] != 0.0 || one["image_pages"] != 0.0 || one["last"] == nil {
		t.Errorf("%+v, %+v", all, one)
	}
}

// TestStatusWithoutAgent: Xen itself is asked, and nothing but asked.
func TestStatusWithoutAgent(t *testing.T) {
	x := newFakeXen()
	down := &fakeService{err: api.Errorf(api.AgentDown, "is warmrebootd running?")}
	r := runCLI(down, x.local(), "status")
	if r.code != 0 || !strings.Contains(r.out, "web") || !strings.Contains(r.stderr, "is warmrebootd running?") {
		t.Errorf("%+v", r)
	}
	var got api.DomainStatus
	r = runCLI(down, x.local(), "status", "web", "-o", "json")
	r.json(t, &got)
	if r.code != 0 || got.Committed != 3 || !strings.Contains(got.Message, "warmrebootd") {
		t.Errorf("%+v", r)
	}
	if r := runCLI(down, x.local(), "status", "nobody"); r.code != ExitNotFound {
		t.Errorf("%+v", r)
	}
	if r := runCLI(down, nil, "status"); r.code != ExitAgentDown {
		t.Errorf("%+v", r)
	}
	if r := runCLI(down, x.local(), "status", "web", "--wait"); r.code != ExitAgentDown {
		t.Errorf("%+v", r)
	}
	if len(x.changed) != 0 {
		t.Errorf("changed: %q", slices.Sorted(slices.Values(x.changed)))
	}
}
