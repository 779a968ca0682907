package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/config"
	"github.com/warmreboot/warmreboot/internal/health"
	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/operator"
	"github.com/warmreboot/warmreboot/internal/schedule"
	"github.com/warmreboot/warmreboot/internal/state"
)

const cronNoon = `[[schedule]]
name = "noon"
domains = ["web"]
timezone = "UTC"
cron = "0 12 * * *"
`

const day = 24 * time.Hour

// toNoon has the runner see the domains before a run is due, and then be due.
func (h *host) toNoon(r *Runner) {
	h.pass(day - time.Minute)
	h.look(r)
	h.pass(time.Minute)
	h.look(r)
}

func TestScheduledReboot(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	hook := func(word string) string {
		return fmt.Sprintf("command = [\"/bin/sh\", \"-c\", \"echo %s {domain} $WARMREBOOT_OUTCOME $WARMREBOOT_HEALTH >>%s\"]\n", word, out)
	}
	h := newHost(t, cronNoon+"[[schedule.before]]\n"+hook("before")+"[[schedule.after]]\n"+hook("after")+
		"[schedule.health]\ncommand = [\"/bin/true\"]\n")
	h.create("web", 10*day)
	h.create("mail", 10*day)
	r := h.runner(nil)
	h.toNoon(r)
	if got := h.asked(); !slices.Equal(got, []string{"graceful web"}) {
		t.Fatalf("%q", got)
	}
	if text, err := os.ReadFile(out); err != nil || string(text) != "before web none\nafter web warm ok\n" {
		t.Errorf("%q, %v", text, err)
	}
	all := h.history()
	if len(all) != 1 {
		t.Fatalf("%+v", all)
	}
	if e := all[0]; e.By != api.BySchedule || e.Schedule != "noon" || e.Outcome != "warm" || e.Error != "" || len(e.Hooks) != 2 ||
		!e.Hooks[0].OK || e.Hooks[1].Name != "after" || e.Health == nil || !e.Health.OK || e.PagesRestored != 7 {
		t.Errorf("%+v", e)
	}
	if locks := h.kept.Locks(h.moment()); len(locks) != 0 {
		t.Errorf("%v", locks)
	}
	wantCounts(t, r, map[api.RunResult]uint64{api.RunWarm: 1})
	// Once.
	h.pass(time.Minute)
	h.look(r)
	r = h.runner(nil) // nor by a daemon that is started again
	h.look(r)
	if got := h.asked(); len(got) != 1 {
		t.Errorf("%q", got)
	}
	h.toNoon(r)
	if got := h.asked(); len(got) != 2 {
		t.Errorf("the day after: %q", got)
	}
}

// TestHookFails: one that counts ends the run before anything is done; what
// always runs does.
func TestHookFails(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	write := func(word string) string {
		return fmt.Sprintf("command = [\"/bin/sh\", \"-c\", \"echo %s $WARMREBOOT_ALERT >>%s\"]\n", word, out)
	}
	for _, c := range []struct {
		policy, after string
		reboots       int
		says          string
	}{
		{"", "", 0, "alert the reboot did not take place: hook /bin/sh -c echo so; exit 3 failed: exit status 3 so\n"},
		{"", "always = true\n", 0, "after\nalert the reboot did not take place: hook /bin/sh -c echo so; exit 3 failed: exit status 3 so\n"},
		{"on_failure = \"continue\"\n", "", 1, "after\n"},
	} {
		os.Remove(out)
		h := newHost(t, cronNoon+"[[schedule.before]]\ncommand = [\"/bin/sh\", \"-c\", \"echo so; exit 3\"]\n"+c.policy+
			"[[schedule.after]]\n"+write("after")+c.after+"[schedule.alert]\n"+write("alert"))
		h.create("web", 10*day)
		r := h.runner(nil)
		h.toNoon(r)
		text, _ := os.ReadFile(out)
		if got := h.asked(); len(got) != c.reboots || string(text) != c.says {
			t.Errorf("%+v: %q, said %q", c, got, text)
		}
		e := h.history()[0]
		if len(e.Hooks) == 0 || e.Hooks[0].OK || !strings.Contains(e.Hooks[0].Detail, "exit status 3") || (e.Outcome == "failed") != (c.reboots == 0) {
			t.Errorf("%+v: %+v", c, e)
		}
		if locks := h.kept.Locks(h.moment()); len(locks) != 0 {
			t.Errorf("%+v: left %v", c, locks)
		}
	}
}

// TestHookTakesTooLong: it is killed with all that it has started.
func TestHookTakesTooLong(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	_, output, err := health.Command(context.Background(), []string{"/bin/sh", "-c", "sleep 600 & echo $!; sleep 600"}, nil, 300*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "took longer than 300ms") {
		t.Errorf("%q, %v", output, err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	// It dies when it comes to run next, and whoever adopts it may not notice at once.
	waitFor(t, func() bool {
		stat, err := os.ReadFile("/proc/" + output + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
	// One that leaves somebody behind has ended all the same, and its output is
	// bounded.
	_, output, err = health.Command(context.Background(), []string{"/bin/sh", "-c", "sleep 20 & head -c 100000 /dev/zero | tr '\\0' x; echo end"}, nil, time.Minute)
	if err != nil || len(output) > health.MaxOutput || !strings.HasSuffix(output, "xend") {
		t.Errorf("%d bytes, %v", len(output), err)
	}
}

// TestHealthFails: each of what may follow.
func TestHealthFails(t *testing.T) {
	for name, c := range map[string]struct {
		follow   string
		well     int // from which attempt on it is well
		asked    []string
		followed string
		stopped  bool
	}{
		"well":                       {`["alert", "cold_reboot", "stop"]`, 1, []string{"graceful web"}, "", false},
		"well in the end":            {`["alert", "cold_reboot", "stop"]`, 4, []string{"graceful web"}, "", false},
		"well after the cold reboot": {`["alert", "cold_reboot", "stop"]`, -1, []string{"graceful web", "cold web"}, "alert; well after a cold reboot", false},
		"never well":                 {`["alert", "cold_reboot", "stop"]`, 1 << 30, []string{"graceful web", "cold web"}, "alert; not well after a cold reboot, either; schedule stopped", true},
		"alert only":                 {`["alert"]`, 1 << 30, []string{"graceful web"}, "alert", false},
		"stop only":                  {`["stop"]`, 1 << 30, []string{"graceful web"}, "schedule stopped", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var attempts atomic.Int64
			var h *host
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				n := int(attempts.Add(1))
				if c.well > 0 && n < c.well || c.well < 0 && len(h.asked()) < 2 {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			}))
			defer s.Close()
			h = newHost(t, cronNoon+"[schedule.health]\nhttp = \""+s.URL+"/{domain}\"\ntimeout = \"400ms\"\ninterval = \"50ms\"\non_failure = "+c.follow+"\n")
			h.create("web", 10*day)
			r := h.runner(nil)
			h.toNoon(r)
			if got := h.asked(); !slices.Equal(got, c.asked) {
				t.Errorf("%q, want %q", got, c.asked)
			}
			all := h.history()
			e := all[0]
			if len(all) != len(c.asked) || e.Followed != c.followed || e.Health == nil || e.Health.OK != (c.well < 1000) || e.Error != "" {
				t.Errorf("%+v, %+v", e, e.Health)
			}
			if len(all) == 2 && (all[1].Health == nil || all[1].Health.OK || all[1].Trigger != api.Graceful) {
				t.Errorf("the first reboot: %+v", all[1])
			}
			result := api.RunWarm
			switch {
			case c.well > 1000:
				result = api.RunUnhealthy
			case c.well < 0:
				result = api.RunCold
			}
			wantCounts(t, r, map[api.RunResult]uint64{result: 1})
			stopped := h.kept.Stopped()
			if _, ok := stopped["noon"]; ok != c.stopped {
				t.Errorf("stopped: %v", stopped)
			}
			if !c.stopped {
				return
			}
			h.toNoon(r)
			if got := h.asked(); len(got) != len(c.asked) {
				t.Errorf("stopped, but: %q", got)
			}
			if _, err := r.Resume(context.Background(), "noon"); err != nil {
				t.Fatal(err)
			}
			h.toNoon(r)
			if got := h.asked(); len(got) == len(c.asked) {
				t.Errorf("resumed, but: %q", got)
			}
		})
	}
}

// TestHealthTCP: nobody listens, and nothing is to follow.
func TestHealthTCP(t *testing.T) {
	t.Parallel()
	h := newHost(t, cronNoon+"[schedule.health]\ntcp = \"127.0.0.1:1\"\ntimeout = \"100ms\"\ninterval = \"50ms\"\non_failure = []\n")
	h.create("web", 10*day)
	r := h.runner(nil)
	h.toNoon(r)
	if e := h.history()[0]; e.Health == nil || e.Health.OK || !strings.Contains(e.Health.Detail, "refused") || e.Followed != "" {
		t.Errorf("%+v", e.Health)
	}
}

// TestHealthXenstore: what the guest says is of the domain that runs after the reboot.
func TestHealthXenstore(t *testing.T) {
	t.Parallel()
	for _, says := range []bool{true, false} {
		h := newHost(t, cronNoon+"[schedule.health]\nxenstore = \"data/boot-complete\"\ntimeout = \"100ms\"\ninterval = \"50ms\"\non_failure = []\n")
		h.create("web", 10*day)
		h.store["/local/domain/1/data/boot-complete"] = "1"
		if says {
			h.store["/local/domain/2/data/boot-complete"] = "1\n"
		}
		r := h.runner(nil)
		h.toNoon(r)
		if e := h.history()[0]; e.Health == nil || e.Health.OK != says || e.Health.What != "xenstore data/boot-complete" {
			t.Errorf("%v: %+v", says, e.Health)
		}
	}
}

// updater reboots domains by the runner's own means, into another kernel if it is let.
type updater struct {
	h       *host
	r       *Runner
	has     bool  // the domain has the kernel
	refuses error // it cannot be updated
	outcome api.UpdateOutcome
	config  string // why it is not changed
	ends    error  // it ends so, and the reboot is not told of
	fills   bool   // nothing can be journalled then
	why     string
	wanted  []operator.ScheduledUpdate
}

func (u *updater) Ready(_ context.Context, _ *operation.Run, s operator.ScheduledUpdate) (bool, error) {
	u.wanted = append(u.wanted, s)
	return !u.has, u.refuses
}

func (u *updater) Update(ctx context.Context, run *operation.Run, s operator.ScheduledUpdate) (api.Summary, api.Update, error) {
	u.wanted = append(u.wanted, s)
	if u.ends != nil {
		u.h.full.Store(u.fills)
		return api.Summary{}, api.Update{Outcome: u.outcome, Why: u.why}, u.ends
	}
	out := api.Update{Outcome: u.outcome, New: api.BootFiles{Kernel: s.Expand(s.Update.Kernel)}, Config: "/etc/xen/web.cfg", ConfigError: u.config}
	sum, err := u.r.Rebooter.Reboot(ctx, run, operator.Wanted{Asker: s.Asker, Mode: s.Mode, Timeout: time.Minute, Longest: time.Hour, Override: true})
	switch {
	case u.outcome == api.UpdateBack:
		out.Why = "it panicked"
		err = api.Errorf(api.FellBack, "it has its old kernel again")
	case u.config != "":
		err = api.Errorf(api.Failed, "not changed")
	}
	return sum, out, err
}

// TestScheduledUpdate: a domain that has not a schedule's kernel is updated to it, one that
// has is rebooted; and where the kernel was not to stay, no other domain is given it.
func TestScheduledUpdate(t *testing.T) {
	for what, c := range map[string]struct {
		u        updater
		asked    int
		result   api.RunResult
		followed string
		failed   string
		health   bool
		stopped  bool
		alerts   int
	}{
		"updated":            {updater{outcome: api.Updated}, 1, api.RunWarm, "update to /boot/web: updated", "", true, false, 0},
		"config not changed": {updater{outcome: api.Updated, config: "twice"}, 1, api.RunWarm, "update to /boot/web: updated; /etc/xen/web.cfg is not changed: twice", "", true, false, 1},
		"fell back":          {updater{outcome: api.UpdateBack}, 1, api.RunFailed, "update to /boot/web: fell back: it panicked; schedule stopped", "old kernel again", false, true, 1},
		"no end":             {updater{ends: api.Errorf(api.Failed, "make room")}, 0, api.RunFailed, "update to /boot/web: did not come to its end: make room; schedule stopped", "make room", false, true, 1},
		"lost":               {updater{outcome: api.UpdateLost, why: "taken away", ends: api.Errorf(api.Failed, "it was taken away")}, 0, api.RunFailed, "update to /boot/web: lost: taken away; schedule stopped", "taken away", false, true, 1},
		"not tried":          {updater{outcome: api.NotTried, why: "x", ends: api.Errorf(api.UpdateRefused, "not well before")}, 0, api.RunFailed, "update to /boot/web: not tried: x", "not well before", false, false, 1},
		"it has it":          {updater{has: true}, 1, api.RunWarm, "", "", true, false, 0},
		"refused":            {updater{refuses: api.Errorf(api.UpdateRefused, "no Xen note")}, 0, api.RunFailed, "", "no Xen note", false, false, 1},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			h := newHost(t, cronNoon+"[schedule.health]\ncommand = [\"/bin/true\"]\n[schedule.update]\nkernel = \"/boot/{domain}\"\n"+
				"[[schedule.after]]\ncommand = [\"/bin/touch\", \""+dir+"/after\"]\n[schedule.alert]\ncommand = [\"/bin/sh\", \"-c\", \"echo $WARMREBOOT_ALERT >>"+dir+"/alerts\"]\n")
			web := h.create("web", 10*day)
			c.u.h = h
			r := h.runner(func(o *Options) { o.Updater = &c.u })
			c.u.r = r
			if f, err := r.Forecast(t.Context(), ""); err != nil || len(f.Runs) != 1 || f.Runs[0].Kernel != "/boot/web" {
				t.Errorf("%+v, %v", f.Runs, err)
			}
			h.toNoon(r)
			for _, w := range c.u.wanted {
				if w.By != api.BySchedule || w.Schedule != "noon" || w.Domain != web || w.Mode != api.Graceful || w.Health == nil || w.Update.Kernel != "/boot/{domain}" || w.Longest < time.Hour {
					t.Errorf("%+v", w)
				}
			}
			all := h.history()
			if len(h.asked()) != c.asked || len(all) != 1 || all[0].Followed != c.followed || !strings.Contains(all[0].Error, c.failed) || c.failed == "" != (all[0].Error == "") || (all[0].Health != nil && all[0].Health.OK) != c.health {
				t.Errorf("asked %q, %+v, %+v", h.asked(), all, all[0].Health)
			}
			wantCounts(t, r, map[api.RunResult]uint64{c.result: 1})
			if _, ok := h.kept.Stopped()["noon"]; ok != c.stopped {
				t.Errorf("stopped: %v", h.kept.Stopped())
			}
			_, err := os.Stat(dir + "/after")
			alerts, _ := os.ReadFile(dir + "/alerts")
			untried := what == "refused" || what == "not tried"
			if (err == nil) != c.health || bytes.Count(alerts, []byte("\n")) != c.alerts || bytes.Contains(alerts, []byte("did not take place")) != untried {
				t.Errorf("hook after: %v, alerts %q", err, alerts)
			}
		})
	}
}

// TestUpdateNoRoom: where an update cannot be journalled to its end, no other domain is
// given the kernel.
func TestUpdateNoRoom(t *testing.T) {
	h := newHost(t, cronNoon+"[schedule.update]\nkernel = \"/boot/{domain}\"\n")
	h.create("web", 10*day)
	h.step = func(string) error {
		if h.full.Load() {
			return syscall.ENOSPC
		}
		return nil
	}
	u := updater{h: h, ends: errors.New("no room"), fills: true}
	r := h.runner(func(o *Options) { o.Updater = &u })
	h.toNoon(r)
	if why := h.kept.Stopped()["noon"]; !strings.Contains(why, "the update of web to /boot/web did not come to its end: no room") {
		t.Errorf("stopped: %q", why)
	}
}

func TestRebootFails(t *testing.T) {
	h := newHost(t, strings.Replace(cronNoon, `cron = "0 12 * * *"`, `every = "10d"`, 1)+"retry = \"2h\"\n")
	h.create("web", 10*day)
	r := h.runner(nil)
	h.fail = errors.New("the guest does not react")
	h.look(r)
	if got := h.asked(); len(got) != 0 {
		t.Errorf("just after the file was read: %q", got)
	}
	h.pass(time.Hour)
	h.look(r)
	if e := h.history()[0]; e.Outcome != "failed" || !strings.Contains(e.Error, "does not react") || e.Schedule != "noon" {
		t.Errorf("%+v", e)
	}
	h.fail = nil
	h.pass(119 * time.Minute)
	h.look(r)
	if got := h.asked(); len(got) != 1 {
		t.Errorf("tried again too soon: %q", got)
	}
	h.pass(2 * time.Minute)
	h.look(r)
	if got := h.asked(); len(got) != 2 || len(h.history()) != 2 {
		t.Errorf("not tried again: %q", got)
	}
	wantCounts(t, r, map[api.RunResult]uint64{api.RunFailed: 1, api.RunWarm: 1})
}

// TestMissed: nobody looked at noon, nor for two hours after it.
func TestMissed(t *testing.T) {
	h := newHost(t, cronNoon)
	h.create("web", 10*day)
	r := h.runner(nil)
	h.look(r)
	h.pass(day + 2*time.Hour)
	h.look(r)
	h.look(r)
	if got := h.asked(); len(got) != 0 {
		t.Errorf("%q", got)
	}
	wantCounts(t, r, map[api.RunResult]uint64{api.RunMissed: 1})
}

// wantCounts asserts how the runs of all schedules have ended.
func wantCounts(t *testing.T, r *Runner, want map[api.RunResult]uint64) {
	t.Helper()
	got := map[api.RunResult]uint64{}
	for _, c := range r.RunCounts() {
		if c.Schedule != "noon" || c.Domain != "web" {
			t.Errorf("%+v", c)
		}
		got[c.Result] += c.Times
	}
	if !maps.Equal(got, want) {
		t.Errorf("runs ended: %v, want %v", got, want)
	}
}

func TestWouldBeCold(t *testing.T) {
	for ifCold, want := range map[string][]string{"skip": nil, "reboot": {"cold web"}} {
		h := newHost(t, cronNoon+"if_cold = \""+ifCold+"\"\n[[schedule.before]]\ncommand = [\"/bin/true\"]\n")
		h.cold = true
		h.create("web", 10*day)
		r := h.runner(nil)
		h.toNoon(r)
		e := h.history()[0]
		if got := h.asked(); !slices.Equal(got, want) || (e.Outcome == "failed") != (want == nil) || want == nil && len(e.Hooks) > 0 {
			t.Errorf("%s: %q, %+v", ifCold, got, e)
		}
	}
}

// TestCrashesMeanwhile: a domain that is just going down by itself is left alone.
func TestCrashesMeanwhile(t *testing.T) {
	h := newHost(t, cronNoon+"mode = \"force\"\n[[schedule.before]]\ncommand = [\"/bin/true\"]\n")
	h.crashes = true
	h.create("web", 10*day)
	r := h.runner(nil)
	h.toNoon(r)
	e := h.history()[0]
	if got := h.asked(); got != nil || e.Outcome != "failed" || len(e.Hooks) > 0 || !strings.Contains(e.Error, "going down by itself") {
		t.Errorf("%q, %+v", got, e)
	}
}

// TestDaemonStopped: the next daemon takes a run up where it was: it is not begun
// again, and its hooks after the reboot are made up for.
func TestDaemonStopped(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	hook := func(word string) string {
		return fmt.Sprintf("command = [\"/bin/sh\", \"-c\", \"echo %s $WARMREBOOT_OUTCOME >>%s\"]\n", word, out)
	}
	h := newHost(t, cronNoon+"[[schedule.before]]\n"+hook("before")+"[[schedule.after]]\n"+hook("after"))
	u := h.create("web", 10*day)
	h.hold = make(chan struct{})
	var cancel context.CancelFunc
	h.ctx, cancel = context.WithCancel(context.Background())
	r := h.runner(nil)
	h.ctx = context.Background()
	h.pass(day - time.Minute)
	h.look(r)
	h.pass(time.Minute)
	r.Look(context.Background())
	for len(h.asked()) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	wait(r)
	if locks := h.kept.Locks(h.moment()); len(locks) != 1 || !locks[0].Run {
		t.Errorf("the lock is gone: %v", locks)
	}
	h.mu.Lock()
	h.domains[0].Current = &api.Summary{} // it goes on without us
	h.mu.Unlock()
	r = h.runner(nil)
	h.pass(time.Second)
	r.Look(context.Background())
	if locks := h.kept.Locks(h.moment()); len(locks) != 1 || len(h.history()) != 0 {
		t.Errorf("released while it is coming back: %v", locks)
	}
	// Whoever reads the forecast can tell it from a lock that somebody took.
	if f, err := r.Forecast(context.Background(), ""); err != nil || len(f.Locks) != 1 || f.Locks[0].Operation == "" {
		t.Errorf("%+v, %v", f.Locks, err)
	}
	if got := h.asked(); len(got) != 1 {
		t.Errorf("%q", got)
	}
	close(h.hold) // the agent records it
	for len(h.history()) == 0 {
		time.Sleep(time.Millisecond)
	}
	h.mu.Lock()
	h.domains[0].Current = nil
	h.mu.Unlock()
	wait(r)
	all := h.history()
	if locks := h.kept.Locks(h.moment()); len(locks) != 0 || len(all) != 1 || !strings.Contains(all[0].Followed, "stopped during this run") || len(h.asked()) != 1 ||
		len(all[0].Hooks) != 2 || !all[0].Hooks[1].OK {
		t.Errorf("%v, %+v, %q", locks, all, h.asked())
	}
	if text, err := os.ReadFile(out); err != nil || string(text) != "before\nafter warm\n" {
		t.Errorf("%q, %v", text, err)
	}
	// A lock of an older version's run, which was no operation.
	h.pass(time.Second)
	if err := h.kept.Lock(state.Lock{UUID: u, Domain: "web", Owner: "schedule noon", TTL: 600, Run: true, Schedule: "noon"}, h.moment()); err != nil {
		t.Fatal(err)
	}
	h.look(h.runner(nil))
	if all := h.history(); len(all) != 2 || all[0].Outcome != "failed" {
		t.Errorf("%+v", all)
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	h := newHost(t, cronNoon)
	h.create("web", 10*day)
	r := h.runner(nil)
	plan := func() api.Forecast {
		t.Helper()
		f, err := r.Forecast(context.Background(), "")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if f := plan(); len(f.Runs) != 1 || !f.Runs[0].Next.Equal(noon.Add(day)) || f.Config.Error != "" {
		t.Errorf("%+v", f)
	}
	h.configure("rubbish")
	for end := time.Now().Add(10 * time.Second); plan().Config.Error == "" && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if f := plan(); len(f.Runs) != 1 || !strings.Contains(f.Config.Error, "a.toml:1: ") {
		t.Errorf("a wrong file: %+v", f)
	}
	h.configure(strings.Replace(cronNoon, "0 12", "0 13", 1))
	for end := time.Now().Add(10 * time.Second); plan().Config.Error != "" && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if f := plan(); len(f.Runs) != 1 || !f.Runs[0].Next.Equal(noon.Add(time.Hour)) {
		t.Errorf("a right one: %+v", f)
	}
	// A folder that is gone says nothing; one that is there and empty says: none.
	if err := os.Rename(h.conf, h.conf+".away"); err != nil {
		t.Fatal(err)
	}
	r.Reload()
	if f := plan(); len(f.Runs) != 1 || !strings.Contains(f.Config.Error, "is gone") {
		t.Errorf("the folder is gone: %+v", f)
	}
	if err := os.Mkdir(h.conf, 0o755); err != nil {
		t.Fatal(err)
	}
	r.Reload()
	if f := plan(); len(f.Runs) != 0 || f.Config.Error != "" {
		t.Errorf("the folder is empty: %+v", f)
	}
}

// TestLinked: a file that lies elsewhere, and is only linked to, is read again, too.
func TestLinked(t *testing.T) {
	h := newHost(t, cronNoon)
	h.create("web", 10*day)
	there := filepath.Join(t.TempDir(), "there")
	for _, err := range []error{os.Rename(filepath.Join(h.conf, "a.toml"), there), os.Symlink(there, filepath.Join(h.conf, "a.toml"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r := h.runner(nil)
	h.look(r)
	if err := os.WriteFile(there, []byte(strings.Replace(cronNoon, "0 12", "0 13", 1)+"retry = \"2h\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.look(r)
	h.look(r)
	f, err := r.Forecast(t.Context(), "")
	if err != nil || len(f.Runs) != 1 || !f.Runs[0].Next.Equal(noon.Add(time.Hour)) {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestLockAndClock: a clock that is ahead for a minute takes no lock away.
func TestLockAndClock(t *testing.T) {
	h := newHost(t, cronNoon)
	h.create("web", 10*day)
	r := h.runner(nil)
	h.look(r)
	h.pass(day - 30*time.Minute)
	h.look(r)
	if _, err := r.Lock(context.Background(), "web", api.LockRequest{Owner: "ann", TTLSeconds: 7200}); err != nil {
		t.Fatal(err)
	}
	set := func(by time.Duration) {
		h.mu.Lock()
		h.now = h.now.Add(by)
		h.mu.Unlock()
	}
	set(day)
	h.look(r)
	h.pass(time.Minute)
	h.look(r)
	set(-day)
	h.look(r)
	for range 60 {
		h.pass(time.Minute)
		h.look(r)
	}
	if got := h.asked(); len(got) != 0 {
		t.Errorf("rebooted under ann's hands: %q", got)
	}
	h.pass(time.Hour)
	if l := h.kept.Locks(h.moment()); len(l) != 0 {
		t.Errorf("%v", l)
	}
}

// TestMonotonic: what the runner takes for the time is what the clock shows; see the test
// of that name of package schedule.
func TestMonotonic(t *testing.T) {
	r := newHost(t, "").runner(func(o *Options) { o.Now = time.Now })
	for _, at := range []time.Time{r.Now(), r.moment().Wall} {
		if at != at.Round(0) {
			t.Error(at)
		}
	}
}

// TestServiceDomains: what is there for others is left alone. (The agent does not
// list stub domains at all.)
func TestServiceDomains(t *testing.T) {
	h := newHost(t, strings.Replace(cronNoon, `"web"`, `"*"`, 1)+"mode = \"cold\"\n[limits]\nat_once = 0\n")
	h.create("web", 10*day)
	h.create("Xenstore", 10*day)
	h.domains[1].Service = "xenstore"
	r := h.runner(nil)
	h.toNoon(r)
	if got := h.asked(); !slices.Equal(got, []string{"cold web"}) {
		t.Errorf("%q", got)
	}
	if f, err := r.Forecast(context.Background(), ""); err != nil || len(f.Runs) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestForgotten: nothing is left of domains that have not been there for weeks.
func TestForgotten(t *testing.T) {
	h := newHost(t, strings.Replace(cronNoon, `"web"`, `"*"`, 1)+"[limits]\nat_once = 0\n")
	h.create("web", 10*day)
	for i := range 30 {
		h.create(fmt.Sprint("short", i), 10*day)
	}
	var told []ident.UUID
	r := h.runner(func(o *Options) { o.Forgot = func(u ident.UUID) { told = append(told, u) } })
	h.toNoon(r)
	h.mu.Lock()
	h.domains = h.domains[:1]
	h.mu.Unlock()
	for range 50 {
		h.pass(day - time.Minute)
		h.look(r)
		h.pass(time.Minute)
	}
	for _, c := range r.RunCounts() {
		if c.Domain != "web" {
			t.Errorf("%+v is left", c)
		}
	}
	if len(r.memory) != 1 || len(r.births) != 1 || len(told) != 30 || len(h.kept.Memories()) != 1 {
		t.Errorf("%d memories, %d births are left, %d forgotten", len(r.memory), len(r.births), len(told))
	}
}

func TestDryRun(t *testing.T) {
	for what, change := range map[string]func(*Options){"schedule": nil, "daemon": func(o *Options) { o.DryRun = true }} {
		conf := cronNoon
		if change == nil {
			conf += "dry_run = true\n"
		}
		h := newHost(t, conf)
		h.create("web", 10*day)
		r := h.runner(change)
		h.toNoon(r)
		if got := h.asked(); len(got) != 0 || len(h.history()) != 0 {
			t.Errorf("%s: %q", what, got)
		}
		// Nobody has to wait for his turn because of it.
		if began := h.kept.Began(h.moment()); len(began) != 1 || began["noon"] > time.Hour {
			t.Errorf("%s: %v", what, began)
		}
	}
}

// TestOperator: locks and windows hold operators up, too, unless they insist.
func TestOperator(t *testing.T) {
	ctx := context.Background()
	h := newHost(t, cronNoon+"[[schedule.window]]\nfrom = \"11:30\"\nto = \"12:30\"\n")
	h.create("web", 10*day)
	h.create("mail", 10*day)
	r := h.runner(nil)
	locked := func(err error, says string) {
		t.Helper()
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.Locked || !strings.Contains(e.Message, says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	if err := h.reboot("web", api.Graceful, false); err != nil {
		t.Error(err)
	}
	h.pass(time.Hour)
	err := h.reboot("web", api.Graceful, false)
	locked(err, "opens at 2026-11-22 11:30")
	_, err = h.operator.Plan(ctx, api.OperationRequest{Kind: api.KindReboot, Domain: "web", Mode: api.Graceful})
	locked(err, "opens at")
	if err := h.reboot("web", api.Graceful, true); err != nil {
		t.Error(err)
	}
	if err := h.reboot("mail", api.Graceful, false); err != nil {
		t.Error(err)
	}
	if _, err := r.Lock(ctx, "mail", api.LockRequest{Owner: "ann", Reason: "backup", TTLSeconds: 3600}); err != nil {
		t.Fatal(err)
	}
	_, err = r.Lock(ctx, "mail", api.LockRequest{Owner: "bob", TTLSeconds: 3600})
	locked(err, "locked by ann (backup)")
	err = h.reboot("mail", api.Graceful, false)
	locked(err, "locked by ann (backup)")
	if err := h.reboot("mail", api.Graceful, true); err != nil {
		t.Error(err)
	}
	if l, err := r.Unlock(ctx, "mail"); err != nil || l.Owner != "ann" {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := r.Unlock(ctx, "mail"); err == nil {
		t.Error("unlocked twice")
	}
	if got := h.asked(); len(got) != 4 {
		t.Errorf("%q", got)
	}
	// A locked domain is left alone by schedules.
	if _, err := r.Lock(ctx, "web", api.LockRequest{Owner: "ann", TTLSeconds: 86400}); err != nil {
		t.Fatal(err)
	}
	h.look(r)
	h.pass(23 * time.Hour)
	h.look(r)
	if got := h.asked(); len(got) != 4 {
		t.Errorf("%q", got)
	}
	f, err := r.Forecast(ctx, "web")
	if err != nil || len(f.Runs) != 1 || !strings.Contains(f.Runs[0].Blocked, "locked by ann") || len(f.Locks) != 1 || f.Locks[0].Operation != "" {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestOthers: groups and limits hold all up alike: operators, too, unless they insist,
// and a run whose turn it was when it was decided upon.
func TestOthers(t *testing.T) {
	ctx := context.Background()
	const group = "[[group]]\nname = \"pair\"\ndomains = [\"web\", \"mail\"]\ndistance = \"15m\"\n"
	for what, c := range map[string]struct{ conf, says string }{
		"group":       {group, "web of group pair is being rebooted"},
		"limit":       {"[limits]\nat_once = 1\n", "1 being rebooted, at most 1 at once"},
		"no limit":    {"[limits]\nat_once = 0\n", ""},
		"the default": {"", ""}, // is for schedules
	} {
		h := newHost(t, c.conf+cronNoon)
		h.create("web", 10*day)
		h.create("mail", 10*day)
		r := h.runner(nil)
		h.look(r)
		h.hold = make(chan struct{})
		op, err := h.operator.Begin(ctx, api.OperationRequest{Kind: api.KindReboot, Domain: "web", Mode: api.Graceful, Owner: "ann"})
		if err != nil {
			t.Fatal(err)
		}
		for len(h.asked()) == 0 {
			time.Sleep(time.Millisecond)
		}
		if f, err := r.Forecast(ctx, "web"); err != nil || len(f.Runs) != 1 || f.Runs[0].Running {
			t.Errorf("%s: %+v, %v", what, f, err)
		}
		// What an operation has nobody takes from it.
		if _, err := r.Unlock(ctx, "web"); err == nil || !strings.Contains(err.Error(), "warmreboot cancel "+op.ID) {
			t.Errorf("%s: unlocked: %v", what, err)
		}
		if _, err := r.Lock(ctx, "web", api.LockRequest{Owner: "ann", TTLSeconds: 60}); err == nil || err.(*api.Error).Hint != "" {
			t.Errorf("%s: locked: %v", what, err)
		}
		_, planned := h.operator.Plan(ctx, api.OperationRequest{Kind: api.KindReboot, Domain: "mail", Mode: api.Graceful})
		other, err := h.operator.Begin(ctx, api.OperationRequest{Kind: api.KindReboot, Domain: "mail", Mode: api.Graceful})
		if err != nil {
			t.Fatal(err)
		}
		if c.says == "" {
			for len(h.asked()) == 1 {
				time.Sleep(time.Millisecond)
			}
		} else {
			for other, err = range h.operator.Follow(ctx, other.ID) {
				if err != nil {
					t.Fatal(err)
				}
			}
			if e := other.Error; e == nil || e.Code != api.Locked || e.Hint != api.TryOverride || !strings.Contains(e.Message, c.says) || planned == nil || planned.Error() != e.Message {
				t.Errorf("%s: %+v, planned %v", what, other, planned)
			}
			// A run that was decided upon just before, too.
			if _, err := r.Operations.Start(operation.Request{Kind: api.KindSchedule, By: api.BySchedule, Schedule: "noon", Owner: "schedule noon", Domain: "mail", UUID: h.domains[1].UUID,
				Spec: specOf(r.conf.Schedule("noon"), "cron")}); err != nil {
				t.Fatal(err)
			}
			for len(h.history()) == 0 {
				time.Sleep(time.Millisecond)
			}
			if e := h.history()[0]; e.Outcome != "failed" || !strings.Contains(e.Error, c.says) || e.Domain != "mail" {
				t.Errorf("%s: %+v", what, e)
			}
			if len(h.asked()) != 1 {
				t.Errorf("%s: %q", what, h.asked())
			}
		}
		close(h.hold)
		for _, err := range h.operator.Follow(ctx, op.ID) {
			if err != nil {
				t.Error(err)
			}
		}
		wait(r)
		if err := h.reboot("mail", api.Graceful, true); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if left := h.kept.Locks(h.moment()); len(left) != 0 {
			t.Errorf("%s: left %v", what, left)
		}
	}
}

// TestBothAtOnce: of two of a group that are begun at once one is admitted.
func TestBothAtOnce(t *testing.T) {
	h := newHost(t, "[[group]]\nname = \"pair\"\ndomains = [\"web\", \"mail\"]\n"+cronNoon)
	h.create("web", 10*day)
	h.create("mail", 10*day)
	r := h.runner(nil)
	h.look(r)
	h.hold = make(chan struct{})
	errs := make(chan error, 2)
	for _, name := range []string{"web", "mail"} {
		go func() { errs <- h.reboot(name, api.Graceful, false) }()
	}
	var e *api.Error
	if err := <-errs; !errors.As(err, &e) || e.Code != api.Locked {
		t.Errorf("%v", err)
	}
	close(h.hold)
	if err := <-errs; err != nil || len(h.asked()) != 1 {
		t.Errorf("%v, %q", err, h.asked())
	}
}

// TestUnkept: of a domain that the agent does not keep, its own reboots are in
// the history all the same.
func TestUnkept(t *testing.T) {
	h := newHost(t, cronNoon)
	h.managed = false
	h.create("web", 10*day)
	r := h.runner(nil)
	h.look(r)
	h.mu.Lock()
	h.domains[0].Domid = 9
	h.mu.Unlock()
	h.pass(time.Minute)
	h.look(r)
	h.look(r)
	all := h.history()
	if len(all) != 1 || all[0].By != api.ByGuest || all[0].DomidBefore != 1 || all[0].DomidAfter != 9 || all[0].Outcome != "cold" {
		t.Errorf("%+v", all)
	}
	// One that was asked for is there already.
	if err := h.reboot("web", api.Cold, false); err != nil {
		t.Fatal(err)
	}
	h.look(r)
	h.look(r)
	if all := h.history(); len(all) != 2 || all[0].By != api.ByOperator {
		t.Errorf("%+v", all)
	}
}

// TestAgeAndClock: how old a domain is does not change when the clock is set.
func TestAgeAndClock(t *testing.T) {
	h := newHost(t, strings.Replace(cronNoon, `cron = "0 12 * * *"`, `every = "30d"`, 1))
	h.create("web", 10*day)
	r := h.runner(nil)
	h.look(r)
	h.mu.Lock()
	h.now = h.now.Add(365 * day)
	h.mu.Unlock()
	h.look(r)
	h.look(h.runner(nil)) // nor for a daemon that is started then
	if got := h.asked(); len(got) != 0 {
		t.Fatalf("%q", got)
	}
	h.pass(20*day - time.Minute)
	h.look(r)
	if got := h.asked(); len(got) != 0 {
		t.Fatalf("%q", got)
	}
	h.pass(time.Minute)
	h.look(r)
	if got := h.asked(); len(got) != 1 {
		t.Fatalf("%q", got)
	}
	// A domain that is first seen with a wrong clock is no older than the host.
	h.mu.Lock()
	h.up = time.Hour
	h.mu.Unlock()
	h.create("web2", 0)
	h.mu.Lock()
	h.now = h.now.Add(365 * day)
	h.mu.Unlock()
	r = h.runner(func(o *Options) { o.Boot = "another" })
	h.look(r)
	if got := r.age(h.domains[1], h.up); got != time.Hour {
		t.Errorf("%v", got)
	}
}

// TestFigures: each source, and a trigger that fires.
func TestFigures(t *testing.T) {
	var slow atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/web" {
			w.WriteHeader(http.StatusNotFound)
		}
		time.Sleep(time.Duration(slow.Load()) * time.Millisecond)
	}))
	defer s.Close()
	dir := t.TempDir()
	number := filepath.Join(dir, "number")
	trigger := func(source string) string {
		return "[[schedule.trigger]]\n" + source + "\nsample = \"1m\"\nover = \"30m\"\nabove = 1000000\nslope = 1\n"
	}
	h := newHost(t, strings.Replace(cronNoon, "cron = \"0 12 * * *\"\n", "", 1)+
		trigger("url = \""+s.URL+"/{domain}\"")+trigger("command = [\"/bin/cat\", \""+number+"\"]")+trigger("xenstore = \"data/free\"")+
		trigger("swap_vbd = \"xvdb\"")+trigger("console = \"Out of memory: Killed\"")+trigger("url = \""+s.URL+"/other\"")+
		strings.Replace(trigger("command = [\"/bin/cat\", \""+number+"\"]"), "1000000", "120", 1))
	h.create("web", 10*day)
	swap := filepath.Join(h.dir, "sys/bus/xen-backend/devices/vbd-1-51728/statistics")
	if err := os.MkdirAll(swap, 0o755); err != nil {
		t.Fatal(err)
	}
	console := filepath.Join(h.dir, "guest-web.log")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(console, "Out of memory: Killed process 1 (of an earlier boot)\n")
	write(filepath.Join(swap, "wr_sect"), "0\n")
	r := h.runner(nil)
	h.look(r)
	h.pass(time.Hour) // what was just written does not count yet
	log := "Out of memory: Killed process 1 (of an earlier boot)\n"
	for i := range 20 {
		slow.Store(int64(20 + 2*i))
		write(number, fmt.Sprintf("%d\n", 100+2*i))
		write(filepath.Join(swap, "rd_sect"), fmt.Sprintf("%d\n", 600*i))
		h.mu.Lock()
		h.store["/local/domain/1/data/free"] = fmt.Sprint(5000 - 60*i)
		h.mu.Unlock()
		if i%5 == 4 {
			log += "harmless\nOut of memory: Killed process 7\nOut of mem"
			write(console, log)
			log += "ory\n"
		}
		h.look(r)
		if len(h.asked()) > 0 {
			t.Logf("fired after %d samples", i+1)
			break
		}
		h.pass(time.Minute)
	}
	key := schedule.Key{Rule: "noon", UUID: h.domains[0].UUID}
	trend := func(i int) schedule.Trend { return r.trend(figureKey{key, i}) }
	if got := h.asked(); len(got) != 1 {
		t.Errorf("%q; %+v", got, trend(6))
	}
	for i, want := range []schedule.Trend{{Level: 50, Slope: 120}, {Level: 133, Slope: 120}, {Level: 4000, Slope: -3600}, {Level: 10, Slope: 0}, {Level: 3}} {
		tr := trend(i)
		if tr.Samples < 10 || i < 4 && (tr.Level < 0.5*want.Level || tr.Level > 1.9*want.Level+1 || tr.Slope < want.Slope-90 || tr.Slope > want.Slope+90) || i == 4 && tr.Level < 2 {
			t.Errorf("source %d: %+v, want about %+v", i, tr, want)
		}
	}
	if tr := trend(5); tr.Samples != 0 || !strings.Contains(tr.Failed, "404") {
		t.Errorf("%+v", tr)
	}
	// Another boot, another trend.
	h.pass(time.Second)
	h.look(r)
	if tr := trend(1); tr.Samples > 1 {
		t.Errorf("%+v", tr)
	}
}

// TestConsoleRotated: what a guest says just after its console's log was rotated counts.
func TestConsoleRotated(t *testing.T) {
	r := &Runner{Options: Options{Console: t.TempDir()}}
	var last sourceMemory
	for i, c := range []struct {
		log  string
		want float64
	}{{"oom\noom\n", 0}, {"oom\noom\nfine\noom\n", 1}, {"oom\n", 2}, {"oom\noom\n", 3}, {"", 3}, {"oom\n", 4}} {
		if err := os.WriteFile(filepath.Join(r.Console, "guest-web.log"), []byte(c.log), 0o600); err != nil {
			t.Fatal(err)
		}
		got, ok, err := r.consoleLines(config.Source{Console: regexp.MustCompile("oom")}, api.DomainStatus{Domain: "web"}, &last)
		if got != c.want || !ok || err != nil {
			t.Errorf("reading %d: %v, %v, %v", i, got, ok, err)
		}
	}
}

// TestNobodyWaits: while xenstore does not answer, the plan is shown, and operators
// go on; the service manager learns of it.
func TestNobodyWaits(t *testing.T) {
	ctx := context.Background()
	h := newHost(t, cronNoon)
	h.create("web", 10*day)
	h.hangs, h.asks = make(chan struct{}), make(chan struct{}, 9)
	r := h.runner(nil)
	done := make(chan struct{})
	go func() { defer close(done); h.look(r) }()
	<-h.asks // it hangs in the midst of Look
	if f, err := r.Forecast(ctx, ""); err != nil || len(f.Runs) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := r.Config(ctx); err != nil {
		t.Error(err)
	}
	if err := h.reboot("web", api.Graceful, false); err != nil {
		t.Error(err)
	}
	if _, err := r.Lock(ctx, "web", api.LockRequest{Owner: "ann", TTLSeconds: 60}); err != nil {
		t.Error(err)
	}
	r.Reload()
	r.RunCounts()
	select {
	case <-done:
		t.Error("it did not hang")
	default:
	}
	r.Tick = 0
	if err := r.Alive(0); err == nil {
		t.Error("nobody is told")
	}
	close(h.hangs)
	<-done
	if err := r.Alive(time.Minute); err != nil {
		t.Error(err)
	}
}

// TestLocksLost: when nobody knows what was locked, nothing is begun, until an
// operator has looked.
func TestLocksLost(t *testing.T) {
	ctx := context.Background()
	h := newHost(t, cronNoon)
	h.create("web", 10*day)
	h.kept.Close()
	if err := os.WriteFile(filepath.Join(h.dir, state.KeptName), []byte("no locks"), 0o600); err != nil {
		t.Fatal(err)
	}
	kept, err := state.Open(filepath.Join(h.dir, state.FileName), state.Limits{})
	if kept == nil || err == nil {
		t.Fatal(err)
	}
	h.kept = kept
	t.Cleanup(func() { kept.Close() })
	r := h.runner(nil)
	h.toNoon(r)
	f, err := r.Forecast(ctx, "")
	if err != nil || len(f.Runs) != 1 || !strings.Contains(f.Runs[0].Blocked, "nobody knows") || len(f.Locks) != 1 || f.Locks[0].Domain != "web" || len(f.Halted) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	var e *api.Error
	if err := h.reboot("web", api.Graceful, false); !errors.As(err, &e) || e.Code != api.Locked {
		t.Errorf("%v", err)
	}
	if got := h.asked(); len(got) != 0 {
		t.Fatalf("%q", got)
	}
	if _, err := r.Unlock(ctx, "web"); err != nil {
		t.Error(err)
	}
	h.toNoon(r)
	if got := h.asked(); len(got) != 0 {
		t.Fatalf("the schedule is not resumed, but %q", got)
	}
	if _, err := r.Resume(ctx, "noon"); err != nil {
		t.Error(err)
	}
	h.toNoon(r)
	if got := h.asked(); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

// TestAgeOfTheRestored: one that was restored is as old as it was; one that was booted
// anew, though it had been saved, is not, once that is known.
func TestAgeOfTheRestored(t *testing.T) {
	h := newHost(t, "[[schedule]]\nname = \"rare\"\ndomains = [\"web\"]\nevery = \"300d\"\n")
	h.create("web", 10*day)
	r := h.runner(nil)
	h.look(r)
	web := h.domains[0].UUID
	change := func(f func(*api.DomainStatus)) {
		h.mu.Lock()
		f(&h.domains[0])
		h.mu.Unlock()
		h.look(r)
	}
	aged := func(want time.Duration) {
		t.Helper()
		r.mu.Lock()
		defer r.mu.Unlock()
		if got := r.age(h.domains[0], h.up); (got - want).Abs() > time.Minute {
			t.Errorf("%v old, want %v", got, want)
		}
	}
	h.pass(day)
	h.store["/vm/"+web.String()+"/start_time"] = fmt.Sprintf("%d.00", h.now.Unix())
	change(func(d *api.DomainStatus) { d.Domid, d.Resumed, d.Attached = 9, true, false })
	aged(11 * day)
	h.pass(time.Hour)
	h.look(r)
	aged(11*day + time.Hour)
	change(func(d *api.DomainStatus) { d.Resumed, d.Attached = false, true }) // its kernel has just booted
	aged(time.Hour)
	h.pass(time.Hour)
	h.look(r)
	aged(2 * time.Hour)
	if all := h.history(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

// TestCrashesAfter: what was done around a reboot is entered with that one, also if the
// domain has crashed before it was well, and come back.
func TestCrashesAfter(t *testing.T) {
	var h *host
	var once sync.Once
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			crash := *h.domains[0].Last
			crash.DomidBefore, crash.DomidAfter, crash.Sequence, crash.Trigger, crash.By = crash.DomidAfter, h.nextID, crash.Sequence+1, api.Crash, api.ByGuest
			crash.Schedule, crash.Started = "", h.now.Add(time.Second)
			h.domains[0].Last, h.domains[0].Domid = &crash, h.nextID
			h.nextID++
			if _, err := h.kept.Add(api.HistoryEntry{At: h.now, Summary: crash}); err != nil {
				t.Error(err)
			}
			w.WriteHeader(http.StatusServiceUnavailable)
		})
	}))
	defer s.Close()
	h = newHost(t, cronNoon+"[schedule.health]\nhttp = \""+s.URL+"\"\ntimeout = \"5s\"\ninterval = \"10ms\"\n")
	h.create("web", 10*day)
	r := h.runner(nil)
	h.toNoon(r)
	all := h.history()
	if len(all) != 2 || all[0].Trigger != api.Crash || all[0].Health != nil || all[1].Trigger != api.Graceful || all[1].Health == nil || !all[1].Health.OK || all[1].Operation == "" {
		t.Errorf("%+v", all)
	}
}
