package cli

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/api"
)

func TestUpdateCommand(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	line := "quiet x=1"
	check := func(h api.HealthCheck) *api.HealthCheck { return &h }
	for _, c := range []struct {
		args []string
		want api.UpdateRequest
		mode api.Trigger
	}{
		{[]string{"--kernel", "/boot/k", "web"}, api.UpdateRequest{Kernel: "/boot/k", DeadlineSeconds: 600, ProbationSeconds: 600}, api.Graceful},
		{[]string{"web", "--kernel", "k", "--initrd", "i", "--cold"}, api.UpdateRequest{Kernel: filepath.Join(dir, "k"), Initrd: filepath.Join(dir, "i"), DeadlineSeconds: 600, ProbationSeconds: 600}, api.Cold},
		{[]string{"web", "--kernel", "/k", "--initrd", "none", "--cmdline", line, "--config", "c"}, api.UpdateRequest{Kernel: "/k", Initrd: "none", Cmdline: &line, Config: filepath.Join(dir, "c"), DeadlineSeconds: 600, ProbationSeconds: 600}, api.Graceful},
		{[]string{"web", "--kernel", "/k", "--health", "http://web/ok", "--health-timeout", "1m", "--deadline", "3m", "--probation", "0s"},
			api.UpdateRequest{Kernel: "/k", Health: check(api.HealthCheck{HTTP: "http://web/ok", TimeoutSeconds: 60}), DeadlineSeconds: 180}, api.Graceful},
		{[]string{"web", "--kernel", "/k", "--health", "tcp:web:80"}, api.UpdateRequest{Kernel: "/k", Health: check(api.HealthCheck{TCP: "web:80", TimeoutSeconds: 120}), DeadlineSeconds: 600, ProbationSeconds: 600}, api.Graceful},
		{[]string{"web", "--kernel", "/k", "--health", "xenstore:data/boot-complete"}, api.UpdateRequest{Kernel: "/k", Health: check(api.HealthCheck{Xenstore: "data/boot-complete", TimeoutSeconds: 120}), DeadlineSeconds: 600, ProbationSeconds: 600}, api.Graceful},
		{[]string{"web", "--kernel", "/k", "--health", "/bin/check {domain}"}, api.UpdateRequest{Kernel: "/k", Health: check(api.HealthCheck{Command: []string{"/bin/check", "{domain}"}, TimeoutSeconds: 120}), DeadlineSeconds: 600, ProbationSeconds: 600}, api.Graceful},
		{[]string{"web", "--kernel", "/k", "--write-config"}, api.UpdateRequest{Kernel: "/k", WriteConfig: true, DeadlineSeconds: 600, ProbationSeconds: 600}, api.Graceful},
		{[]string{"web", "--kernel", "/k", "--trial"}, api.UpdateRequest{Kernel: "/k", Trial: &api.TrialRequest{SpaceBytes: 1 << 30}, DeadlineSeconds: 600, ProbationSeconds: 600}, api.Graceful},
		{[]string{"web", "--kernel", "/k", "--trial-only", "--keep", "--trial-bridge", "br9", "--trial-space", "64"},
			api.UpdateRequest{Kernel: "/k", Trial: &api.TrialRequest{Only: true, Keep: true, Bridge: "br9", SpaceBytes: 64 << 20}, DeadlineSeconds: 600, ProbationSeconds: 600}, api.Graceful},
	} {
		s := &fakeService{}
		r := runCLI(s, nil, append([]string{"update"}, c.args...)...)
		if q := s.request; r.code != 0 || q.Kind != api.KindUpdate || q.Domain != "web" || q.Mode != c.mode || q.TimeoutSeconds != 0 || q.Key == "" || !reflect.DeepEqual(*q.Update, c.want) {
			t.Errorf("%q: %+v, %+v", c.args, r, q.Update)
		}
	}
	for _, args := range [][]string{{"web"}, {"--kernel", "/k"}, {"web", "--kernel", "/k", "--health", "check"}, {"web", "--kernel", "/k", "--health", "tcp:80"}, {"web", "--kernel", "/k", "--health", "xenstore:"}, {"web", "--kernel", "/k", "--deadline", "0s"},
		{"web", "--kernel", "/k", "--keep"}, {"web", "--kernel", "/k", "--trial-only", "--write-config"}, {"web", "--kernel", "/k", "--trial-bridge", "b"}, {"web", "--kernel", "/k", "--trial", "--trial-space", "1"}} {
		s := &fakeService{}
		if r := runCLI(s, nil, append([]string{"update"}, args...)...); r.code != ExitUsage || len(s.asked) > 0 {
			t.Errorf("%q: %+v, asked %q", args, r, s.asked)
		}
	}
}

// TestUpdateAccount: what came of an update is told, with what to do.
func TestUpdateAccount(t *testing.T) {
	sum := warmSummary()
	for _, c := range []struct {
		update api.Update
		err    error
		code   int
		says   []string
	}{
		{api.Update{Outcome: api.Updated, Old: api.BootFiles{Kernel: "/boot/a", Cmdline: "q"}, New: api.BootFiles{Kernel: "/boot/b", Initrd: "/boot/i", Cmdline: "q"}, Config: "/etc/xen/web.cfg"}, nil, 0,
			[]string{"was updated", "/etc/xen/web.cfg is yours to change", `kernel = "/boot/b"`, `ramdisk = "/boot/i"`, "came back warm"}},
		{api.Update{Outcome: api.Updated, New: api.BootFiles{Kernel: "/boot/b"}, Config: "/etc/xen/web.cfg", ConfigError: "twice"}, api.Errorf(api.Failed, "is not changed: twice"), ExitFailure,
			[]string{"was updated", "/etc/xen/web.cfg is yours to change", `kernel = "/boot/b"`}},
		{api.Update{Outcome: api.Updated, New: api.BootFiles{Kernel: "/boot/b"}, Config: "/etc/xen/web.cfg", ConfigWritten: true}, nil, 0,
			[]string{"was updated", "/etc/xen/web.cfg has the new kernel"}},
		{api.Update{Outcome: api.UpdateBack, Why: "it panicked", New: api.BootFiles{Kernel: "/boot/b"}, Console: []string{"Kernel panic\x1b[2J", "end"}, Copies: "/var/lib/x"}, api.Errorf(api.FellBack, "domain web has its old kernel again"), ExitFellBack,
			[]string{"fell back", "it panicked", `| Kernel panic\x1b[2J`, "| end", "copies in /var/lib/x"}},
		{api.Update{Outcome: api.NotTried}, api.Errorf(api.UpdateRefused, "no Xen note"), ExitRefused, []string{"was not updated"}},
		{api.Update{Outcome: api.TrialFailed, Trial: &api.Trial{Domain: "web-trial", Against: true, Why: "it went down", NotChecked: "not by HTTP", Console: []string{"panic\x1b"}, ReadBytes: 1 << 20, Kept: true}},
			api.Errorf(api.TrialAgainst, "it went down"), ExitTrial, []string{"goes on as it was", "trial on the clone web-trial: it went down", "not by HTTP", `| panic\x1b`, "has read 1.0 MiB", "xl destroy it"}},
		{api.Update{Outcome: api.TrialPassed, Trial: &api.Trial{Domain: "web-trial", Passed: true}}, nil, 0, []string{"could be updated", "the clone web-trial came up"}},
		{api.Update{Outcome: api.UpdateLost, Why: "?"}, api.Errorf(api.Failed, "look"), ExitFailure, []string{"nobody foresaw"}},
	} {
		s := &fakeService{update: &c.update, err: c.err, summary: sum}
		r := runCLI(s, nil, "update", "web", "--kernel", "/boot/b")
		if r.code != c.code || c.err != nil && !strings.Contains(r.stderr, c.err.Error()) {
			t.Errorf("%s: %+v", c.update.Outcome, r)
		}
		for _, want := range c.says {
			if !strings.Contains(r.out, want) {
				t.Errorf("%s: no %q in\n%s", c.update.Outcome, want, r.out)
			}
		}
		if strings.Contains(r.out, "kernel = ") != (c.update.Outcome == api.Updated && !c.update.ConfigWritten) {
			t.Errorf("%s: what is to be written down: %s", c.update.Outcome, r.out)
		}
		var got api.Operation
		if runCLI(s, nil, "update", "web", "--kernel", "/boot/b", "-o", "json").json(t, &got); got.Update == nil || got.Update.Outcome != c.update.Outcome {
			t.Errorf("%+v", got)
		}
	}
}

func TestUpdateDryRun(t *testing.T) {
	s := &fakeService{plan: api.Plan{Domain: "web", Domid: 3, Mode: api.Graceful, Pages: 12, Update: &api.Update{Old: api.BootFiles{Kernel: "/boot/a"}, New: api.BootFiles{Kernel: "/boot/b"}, Config: "/etc/xen/web.cfg"}}}
	r := runCLI(s, nil, "update", "web", "--kernel", "/boot/b", "--dry-run")
	for _, want := range []string{"would reboot domain web", "old /boot/a", "new /boot/b", "would preserve 12 pages", "after 10m", "/etc/xen/web.cfg would have to be changed"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in %s", want, r.out)
		}
	}
	if r.code != 0 || !slices.Equal(s.asked, []string{"plan web graceful"}) || s.request.Update.Kernel != "/boot/b" {
		t.Errorf("%+v, asked %q", r, s.asked)
	}
	s.plan.Update.Trial = &api.Trial{Domain: "web-trial", NotChecked: "not by HTTP"}
	if r := runCLI(s, nil, "update", "web", "--kernel", "/boot/b", "--dry-run", "--trial-only"); r.code != 0 || !strings.Contains(r.out, "on a clone first, web-trial") || !strings.Contains(r.out, "not by HTTP") || strings.Contains(r.out, "would reboot") {
		t.Errorf("%+v", r)
	}
	s = &fakeService{err: api.Errorf(api.UpdateRefused, "it is no kernel")}
	if r := runCLI(s, nil, "update", "web", "--kernel", "/boot/b", "--dry-run"); r.code != ExitRefused || r.out != "" {
		t.Errorf("%+v", r)
	}
}
