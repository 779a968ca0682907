package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl"
)

type fakeSource struct {
	all []api.DomainStatus
	err error
}

func (f *fakeSource) List(context.Context) ([]api.DomainStatus, error) { return f.all, f.err }

var webUUID = ident.UUID{0x5c}

type fakeSchedules struct {
	f      api.Forecast
	err    error
	counts []api.RunCount
}

func (f *fakeSchedules) Forecast(context.Context, string) (api.Forecast, error) { return f.f, f.err }
func (f *fakeSchedules) RunCounts() []api.RunCount                              { return f.counts }

// example has a domain that is kept and one that is not, and two reboots.
func example() (*fakeSource, *Collector) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	web := api.DomainStatus{Domain: "web", UUID: webUUID, Domid: 7, State: "running", Managed: true, Enabled: true, Attached: true,
		Committed: 600, Held: 20, MemoryPages: 1000,
		Counters: api.Counters{MaxPFN: 1 << 18, Pending: 50, WriteFaults: 3, ForeignWrites: 4, Hypercalls: 5, Registered: 6, Commits: 7, Untrackable: 8},
		Custody:  []api.VBDCustody{{Name: "xvda", State: "certain"}, {Name: "xvdb", State: "uncertain"}},
		Refusals: []api.VBDRefusals{{Name: "xvdb", Refusals: api.Refusals{{Reason: api.Written, Pages: 64806}}}},
		Last: &api.Summary{Started: at, Trigger: api.Crash, Outcome: "warm", DownSeconds: 4, RestoredSeconds: 15,
			PagesBefore: 100, PagesPreserved: 99, PagesRestored: 98}}
	f := &fakeSource{all: []api.DomainStatus{web, {Domain: "other", UUID: ident.UUID{1}, Domid: 8, State: "running"}}}
	now := at.Add(time.Hour)
	planned := api.PlannedRun{Schedule: "nightly", Domain: "web", UUID: webUUID}
	next, due, running := planned, planned, planned
	next.Next = now.Add(time.Minute)
	due.Schedule, due.Due, due.Blocked = "aged", now.Add(-time.Hour), "outside its windows"
	running.UUID, running.Domain, running.Due, running.Running = ident.UUID{2}, "mail", now.Add(-time.Minute), true
	schedules := &fakeSchedules{f: api.Forecast{Now: now, Config: api.ConfigStatus{Loaded: at, Error: "a.toml:3: no"}, Runs: []api.PlannedRun{next, due, running},
		Locks: []api.LockStatus{{Domain: "mail", UUID: ident.UUID{2}}}, Halted: []api.HaltedRules{{Schedule: "of nobody"}, {Schedule: "aged"}}},
		counts: []api.RunCount{{Schedule: "nightly", Domain: "web", UUID: webUUID, Result: api.RunMissed, Times: 3}, {Schedule: "former", Domain: "web", UUID: webUUID, Result: api.RunWarm, Times: 2}}}
	c := New(Options{Source: f, Schedules: schedules, Version: "1.2", Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Warmcache: func() (xenctl.Feature, error) { return xenctl.Yes, nil }})
	c.Finished(api.Summary{UUID: webUUID, Trigger: api.Crash, Outcome: "warm", DownSeconds: 4, RestoredSeconds: 15, Refused: map[string]uint64{"sector": 2}})
	c.Updated(webUUID, api.UpdateBack)
	c.Finished(api.Summary{UUID: webUUID, Trigger: api.Graceful, Outcome: "cold", DownSeconds: 400, RestoredSeconds: 900})
	return f, c
}

func TestMetrics(t *testing.T) {
	_, c := example()
	problems, err := testutil.CollectAndLint(c)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	w := httptest.NewRecorder()
	c.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text := w.Body.String()
	name, uuid := `name="web"`, `uuid="`+webUUID.String()+`"`
	for _, want := range []string{
		`warmreboot_build_info{version="1.2"} 1`,
		`warmreboot_xen_warmcache 1`,
		`warmreboot_domains_success 1`,
		`warmreboot_pages_tracked{ID} 650`,
		`warmreboot_pages_reusable{ID} 600`,
		`warmreboot_coverage_ratio{ID} 0.6`,
		`warmreboot_table_memory_bytes{ID} 26000`,
		`warmreboot_write_faults_total{ID} 3`,
		`warmreboot_hypercalls_total{ID} 5`,
		`warmreboot_disk_custody_certain{ID,vbd="xvda"} 1`,
		`warmreboot_disk_custody_certain{ID,vbd="xvdb"} 0`,
		`warmreboot_refused_pages_total{NAME,reason="written",UUID,vbd="xvdb"} 64806`,
		`warmreboot_guest_refused_pages_total{NAME,reason="sector",UUID} 2`,
		`warmreboot_reboots_total{kind="crash",NAME,result="warm",UUID} 1`,
		`warmreboot_reboots_total{kind="graceful",NAME,result="cold",UUID} 1`,
		`warmreboot_reboots_total{kind="force",NAME,result="failed",UUID} 0`,
		`warmreboot_updates_total{NAME,result="fell_back",UUID} 1`,
		`warmreboot_updates_total{NAME,result="updated",UUID} 0`,
		`warmreboot_reboot_down_seconds_bucket{ID,le="5"} 1`,
		`warmreboot_reboot_down_seconds_sum{ID} 404`,
		`warmreboot_reboot_restore_seconds_count{ID} 1`, // of the warm one only
		`warmreboot_last_reboot_warm{kind="crash",ID} 1`,
		`warmreboot_last_reboot_timestamp_seconds{ID} 1.767323045e+09`,
		`warmreboot_config_success 0`,
		`warmreboot_config_loaded_timestamp_seconds 1.767323045e+09`,
		`warmreboot_schedule_stopped{schedule="nightly"} 0`,
		`warmreboot_schedule_stopped{schedule="aged"} 1`,
		`warmreboot_schedule_stopped{schedule="of nobody"} 1`,
		`warmreboot_domain_locked{ID} 0`,
		`warmreboot_domain_locked{name="mail",uuid="02000000-0000-0000-0000-000000000000"} 1`,
		`warmreboot_schedule_next_run_timestamp_seconds{NAME,schedule="nightly",UUID} 1.767326705e+09`,
		`warmreboot_schedule_due_seconds{NAME,schedule="nightly",UUID} 0`,
		`warmreboot_schedule_due_seconds{NAME,schedule="aged",UUID} 3600`,
		`warmreboot_schedule_running{NAME,schedule="nightly",UUID} 0`,
		`warmreboot_schedule_running{name="mail",schedule="nightly",uuid="02000000-0000-0000-0000-000000000000"} 1`,
		`warmreboot_schedule_due_seconds{name="mail",schedule="nightly",uuid="02000000-0000-0000-0000-000000000000"} 0`,
		`warmreboot_schedule_runs_total{NAME,result="missed",schedule="nightly",UUID} 3`,
		`warmreboot_schedule_runs_total{NAME,result="warm",schedule="nightly",UUID} 0`,
		`warmreboot_schedule_runs_total{NAME,result="warm",schedule="former",UUID} 2`,
	} {
		want = strings.NewReplacer("UUID", uuid, "NAME", name, "ID", name+","+uuid).Replace(want)
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	for _, no := range []string{"domid", `"other"`} {
		if strings.Contains(text, no) {
			t.Errorf("%q in\n%s", no, text)
		}
	}
}

// TestNoXen: what is wrong with Xen is a figure, too.
func TestNoXen(t *testing.T) {
	f, c := example()
	f.err = errors.New("no hypercalls")
	c.Warmcache = func() (xenctl.Feature, error) { return xenctl.Unknown, errors.New("no") }
	want := "# HELP warmreboot_domains_success Whether Xen could be asked for its domains.\n# TYPE warmreboot_domains_success gauge\nwarmreboot_domains_success 0\n" +
		"# HELP warmreboot_xen_warmcache Whether this Xen has the warm cache: 1 yes, 0 no or it cannot be told.\n# TYPE warmreboot_xen_warmcache gauge\nwarmreboot_xen_warmcache 0\n"
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), "warmreboot_domains_success", "warmreboot_xen_warmcache", "warmreboot_pages_reusable"); err != nil {
		t.Error(err)
	}
}

// TestDownDomain: one that is down has no counters, and its reboots stay.
func TestDownDomain(t *testing.T) {
	f, c := example()
	f.all[0].Enabled, f.all[0].State, f.all[0].Domid, f.all[0].ImagePages = false, "down", 0, 600
	if n := testutil.CollectAndCount(c, "warmreboot_write_faults_total"); n != 0 {
		t.Errorf("%d counters of no domain", n)
	}
	if n := testutil.CollectAndCount(c, "warmreboot_reboots_total"); n != len(kinds)*len(results) {
		t.Errorf("%d series of reboots", n)
	}
}

// TestTableLimit: the tables of a domain of 1 GiB, frame by frame: 2048 of
// entries, 512 of companions, 32 of heads, 2·8 of bitmaps, with a pointer each.
func TestTableLimit(t *testing.T) {
	if got := tableLimit(1 << 18); got != (2048+512+32+16)*4104 {
		t.Errorf("%d", got)
	}
	if tableLimit(0) != 0 {
		t.Error("of nothing")
	}
	// Less than 1 % of the guest's memory is what ARCHITECTURE.md promises for
	// entries and companions; with all else it may be little more.
	if share := float64(tableLimit(1<<20)) / (1 << 32); share > 0.0102 {
		t.Errorf("%.2f %%", 100*share)
	}
}

// TestForget: nothing is counted any more for a domain that is gone for good.
func TestForget(t *testing.T) {
	_, c := example()
	if len(c.done) != 1 {
		t.Fatalf("%d domains are counted", len(c.done))
	}
	c.Forget(ident.UUID{1})
	c.Forget(webUUID)
	if len(c.done) != 0 {
		t.Errorf("%d domains are still counted", len(c.done))
	}
}
