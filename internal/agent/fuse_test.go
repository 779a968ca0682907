package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl"
)

// TestFuse: a restore that takes the guest down is not tried again, at whatever
// moment the agent is killed meanwhile; the boot after it is cold, and says why. The
// reboot after that is warm again.
func TestFuse(t *testing.T) {
	var all []string
	synctest.Test(t, func(t *testing.T) { all = fuse(t, -1) })
	t.Logf("%d effects: %s", len(all), strings.Join(all, ", "))
	if len(all) < 20 {
		t.Fatalf("only %d effects", len(all))
	}
	for n := range len(all) + 1 {
		t.Run(fmt.Sprint(n), bubble(func(t *testing.T) { fuse(t, n) }))
	}
}

// fuse kills the agent after n effects, or never if n is negative.
func fuse(t *testing.T, n int) []string {
	w, dir := newWorld(t), "kept"
	w.downTime = 150 * time.Millisecond
	d := w.create("domU-web", webUUID)
	w.fatal = true
	tried := map[ident.Domid]bool{} // boots that pages were approved for
	w.approved = func(d *fakeDomain, _ ident.VBD) { tried[d.info.Domid] = true }
	l := newLife()
	a := w.start(dir, l.options)
	defer w.drive(a)()
	if _, err := a.Enable(ctx(t, 20*time.Second), "domU-web", api.Policy{}); err != nil {
		t.Fatal(err)
	}
	w.load(d, 20)
	time.Sleep(100 * time.Millisecond)
	l.die(n)
	w.die(d, xenctl.ShutdownCrash)
	if n >= 0 {
		select {
		case <-l.over:
		case <-time.After(20 * time.Second):
			if l.survived(n) {
				t.Fatalf("the agent goes on, after %v", l.effects)
			}
		}
		a.Stop()
		time.Sleep(time.Duration(n%4) * 200 * time.Millisecond) // it may be up again, or have died once more
		a = w.agent(dir)
		defer w.drive(a)()
	}
	ended := func() (s api.DomainStatus) {
		t.Helper()
		for range 1000 {
			time.Sleep(20 * time.Millisecond)
			if s = a.keeper(webUUID).status(); s.Last != nil && s.Current == nil && s.Last.Done {
				return s
			}
		}
		t.Fatalf("not over: %+v", s.Current)
		return s
	}
	last := ended().Last
	w.mu.Lock()
	boots, now := len(tried), w.domains[0]
	w.mu.Unlock()
	if boots != 1 || !tried[2] || now.info.Domid != 3 {
		t.Errorf("boots that something was restored in: %v; the last is %d", tried, now.info.Domid)
	}
	if last.Outcome != "cold" || last.PagesRestored != 0 || !strings.Contains(last.Reason, "did not end well") {
		t.Errorf("%+v", last)
	}
	for _, v := range last.VBDs {
		if v.Verdict != "refused" || len(v.Refusals) != 1 || v.Refusals[0].Reason != api.RestoreFailed || v.Refusals[0].Pages != 20 {
			t.Errorf("%+v", v)
		}
	}
	if n < 0 { // what the agent does from here on is another test's
		all := l.effects
		w.mu.Lock()
		w.fatal = false
		w.mu.Unlock()
		w.load(now, 20)
		s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful)
		if err != nil || s.Outcome != "warm" || s.PagesRestored != 40 {
			t.Errorf("the reboot after it: %+v, %v", s, err)
		}
		if s := a.keeper(webUUID).status(); s.Message != "" {
			t.Errorf("%q", s.Message)
		}
		return all
	}
	return nil
}

// TestFuseIsSaid: while the guest is down, and until it has come back cold, the
// status says so.
func TestFuseIsSaid(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		w.fatal = true
		w.die(d, xenctl.ShutdownCrash)
		soon(t, w, a, "the restore took it down", func() bool {
			return len(w.domains) == 1 && w.domains[0].info.Domid == 2 && w.domains[0].info.Shutdown
		})
		a.Wake()
		time.Sleep(10 * time.Millisecond)
		s, err := a.Status(ctx(t, time.Second), "domU-web", false)
		if err != nil || !strings.Contains(s.Message, "nothing is restored this time") {
			t.Errorf("%q, %v", s.Message, err)
		}
	})(t)
}

// fullDisk takes no record that says that a restore is attempted.
type fullDisk struct{ *fakeState }

func (f fullDisk) Save(r *Record) error {
	if r.Reboot != nil && r.Reboot.Attempted {
		return errors.New("no space left on device")
	}
	return f.fakeState.Save(r)
}

// TestNoRestoreUnlessWrittenDown: what could not be known after a kill is not tried.
func TestNoRestoreUnlessWrittenDown(t *testing.T) {
	bubble(func(t *testing.T) {
		w := newWorld(t)
		d := w.create("domU-web", webUUID)
		w.approved = func(*fakeDomain, ident.VBD) { t.Error("approved") }
		a := w.start("kept", func(o *Options) { o.Journal = fullDisk{w.state("kept")} })
		if _, err := a.Enable(ctx(t, 5*time.Second), "domU-web", api.Policy{}); err != nil {
			t.Fatal(err)
		}
		w.load(d, 20)
		w.die(d, xenctl.ShutdownCrash)
		a.Wake()
		if s := status(t, a); s.Last == nil || s.Last.Outcome != "cold" || !strings.Contains(s.Last.Reason, "no space left") {
			t.Errorf("%+v", s.Last)
		}
	})(t)
}
