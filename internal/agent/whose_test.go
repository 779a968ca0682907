package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/toolstack"
	"github.com/warmreboot/warmreboot/xenctl"
)

// now is what the agent says of a domain, without waiting for anything.
func now(t *testing.T, a *Agent, domain string) api.DomainStatus {
	t.Helper()
	s, err := a.Status(ctx(t, time.Second), domain, false)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// suspend is xl save, or the beginning of xl migrate.
func (w *world) suspend(d *fakeDomain) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d.info.Shutdown, d.info.Reason = true, xenctl.ShutdownSuspend
}

// take is xl destroy.
func (w *world) take(d *fakeDomain) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.take1(d)
}

func (w *world) take1(d *fakeDomain) {
	for vbd, k := range w.disks {
		w.store.Remove(fmt.Sprintf("/local/domain/0/backend/vbd/%d/%d", d.info.Domid, vbd))
		delete(k.guest, d.info.Domid)
	}
	for i, x := range w.domains {
		if x == d {
			w.domains = append(w.domains[:i:i], w.domains[i+1:]...)
		}
	}
}

// saved is a domain that was saved, or migrated away, and has left.
func (w *world) saved(d *fakeDomain) {
	time.Sleep(time.Second)
	w.suspend(d)
	time.Sleep(time.Second)
	w.take(d)
	time.Sleep(time.Second)
}

// createWeb is xl create, or xl restore.
func (w *world) createWeb() *fakeDomain {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.create("domU-web", webUUID)
}

// wakes is a domain that was suspended and goes on, as after a checkpoint; the agent was
// started anew meanwhile.
func (w *world) wakes(a *Agent, d *fakeDomain, dir string, meanwhile func()) *Agent {
	w.mu.Lock()
	d.info.Shutdown, d.info.Reason = false, 0
	meanwhile()
	w.mu.Unlock()
	time.Sleep(time.Second)
	a.Stop()
	a = w.agent(dir)
	time.Sleep(time.Second)
	return a
}

// rebootsWarm has an operator reboot a domain, warm, for the first time.
func rebootsWarm(t *testing.T, a *Agent) {
	t.Helper()
	if s, err := a.Reboot(ctx(t, time.Minute), "domU-web", api.Graceful); err != nil || s.Outcome != "warm" || s.Sequence != 1 || s.PagesRestored != 40 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestSuspendIsNoReboot: a domain that is saved or migrated away is in no reboot, and
// nobody is told to create it; when it is restored, nothing is entered into the
// history, and its next reboot is warm.
func TestSuspendIsNoReboot(t *testing.T) {
	for _, looks := range []bool{true, false} { // when it is gone; else the next domain is there at once
		t.Run(fmt.Sprint(looks), bubble(func(t *testing.T) {
			w, a, d, dir := running(t, 20, api.Policy{})
			time.Sleep(time.Second)
			w.suspend(d)
			time.Sleep(time.Second)
			if s := now(t, a, "domU-web"); s.Current != nil {
				t.Errorf("suspended: %+v", s.Current)
			}
			w.mu.Lock()
			w.take1(d)
			if !looks {
				w.create("domU-web", webUUID)
			}
			w.mu.Unlock()
			if looks {
				time.Sleep(time.Hour)
				s := now(t, a, "domU-web")
				if s.State != "gone" || s.Current != nil || s.Last != nil || s.Domid != 0 || !strings.Contains(s.Message, "another host") {
					t.Errorf("%+v", s)
				}
				for _, mode := range []api.Trigger{api.Graceful, api.Force, api.Cold} {
					if _, err := a.Reboot(ctx(t, time.Minute), "domU-web", mode); code(err) != api.NotFound || strings.Contains(err.Error(), "create") {
						t.Errorf("%s: %v", mode, err)
					}
				}
				if s := status(t, a); s.Current != nil { // --wait returns
					t.Errorf("%+v", s)
				}
				all, err := a.Kept(ctx(t, time.Second))
				if err != nil || len(all) != 1 || all[0].State != "gone" {
					t.Errorf("%+v, %v", all, err)
				}
				w.createWeb()
			}
			time.Sleep(5 * time.Second)
			s := now(t, a, "domU-web")
			if s.State != "running" || s.Domid != 2 || !s.Resumed || !s.Enabled || s.Current != nil || s.Last != nil || s.Message != resumed {
				t.Errorf("%+v", s)
			}
			if _, err := a.Reboot(ctx(t, time.Second), "domU-web", api.Graceful); code(err) != api.NotTracked || !strings.Contains(err.Error(), resumed) {
				t.Errorf("%v", err)
			}
			if h := w.state(dir).history(); len(h) != 0 {
				t.Errorf("%+v", h)
			}
			w.mu.Lock()
			d = w.domains[0]
			w.mu.Unlock()
			w.load(d, 20)
			rebootsWarm(t, a)
			if s := now(t, a, "domU-web"); s.Resumed {
				t.Error("it has booted here")
			}
		}))
	}
}

// TestSuspendThatFails: a domain that goes on is the one that it was.
func TestSuspendThatFails(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, dir := running(t, 20, api.Policy{})
		time.Sleep(time.Second)
		w.suspend(d)
		time.Sleep(time.Second)
		a.Stop()
		a = w.agent(dir)
		time.Sleep(time.Second)
		w.mu.Lock()
		d.info.Shutdown, d.info.Reason = false, 0
		w.mu.Unlock()
		time.Sleep(time.Second)
		rebootsWarm(t, a)
	})(t)
}

// TestMigrateWithinTheHost: the one that it is migrated to is no second domain, and
// no reboot; its name is the one that it is given in the end.
func TestMigrateWithinTheHost(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, dir := running(t, 20, api.Policy{})
		time.Sleep(time.Second)
		w.mu.Lock()
		w.unchecked = true
		n := w.create("domU-web--incoming", webUUID)
		n.info.Paused, n.introduced = true, false
		w.mu.Unlock()
		time.Sleep(time.Minute)
		w.suspend(d)
		w.mu.Lock()
		n.introduced = true
		w.mu.Unlock()
		time.Sleep(2 * time.Second)
		w.take(d)
		w.mu.Lock()
		n.info.Paused = false
		w.mu.Unlock()
		time.Sleep(2 * time.Second)
		w.store.Set(fmt.Sprintf("/local/domain/%d/name", n.info.Domid), "domU-web")
		time.Sleep(2 * time.Second)
		w.take(n)
		time.Sleep(time.Second)
		s := now(t, a, "domU-web") // also while it is down
		if h := w.state(dir).history(); len(h) != 0 || s.Domain != "domU-web" {
			t.Errorf("%+v, %+v", s, h)
		}
	})(t)
}

// TestRename: the old name is nobody's.
func TestRename(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		time.Sleep(time.Second)
		w.store.Set("/local/domain/1/name", "shop")
		if _, err := a.Status(ctx(t, time.Second), "domU-web", false); code(err) != api.NotFound {
			t.Errorf("%v", err)
		}
		time.Sleep(time.Second)
		w.recreate = false
		w.die(d, xenctl.ShutdownPoweroff)
		time.Sleep(5 * time.Second)
		if s := now(t, a, "shop"); s.Domain != "shop" || s.State != "down" {
			t.Errorf("%+v", s)
		}
		if _, err := a.Status(ctx(t, time.Second), "domU-web", false); code(err) != api.NotFound {
			t.Errorf("%v", err)
		}
	})(t)
}

// TestOddName: an agent that is started while a domain is in a reboot knows it again by
// its name, whatever bytes that has, and does not take it for one that was kept under
// another; when it is down it is found by that name.
func TestOddName(t *testing.T) {
	bubble(func(t *testing.T) {
		w := newWorld(t)
		w.recreate = false
		d := w.create("caf\xe9", webUUID)
		a := w.agent("kept")
		if _, err := a.Enable(ctx(t, time.Second), "caf\xe9", api.Policy{}); err != nil {
			t.Fatal(err)
		}
		w.load(d, 20)
		w.mu.Lock()
		d.info.Shutdown, d.info.Reason = true, xenctl.ShutdownReboot
		w.mu.Unlock()
		time.Sleep(time.Second)
		a.Stop()
		a = w.agent("kept")
		time.Sleep(time.Second)
		if s := now(t, a, webUUID.String()); s.Current == nil || s.Message != "" {
			t.Errorf("%+v", s)
		}
		w.take(d)
		time.Sleep(time.Second)
		for _, word := range []string{"caf\xe9", `caf\xe9`} {
			if s := now(t, a, word); s.UUID != webUUID || s.State != "down" {
				t.Errorf("%q: %+v", word, s)
			}
		}
	})(t)
}

// TestNumbers: digits are a domid, whatever domains are called.
func TestNumbers(t *testing.T) {
	bubble(func(t *testing.T) {
		w := newWorld(t)
		w.nextID = 7
		w.create("12", ident.UUID{1})
		w.nextID = 12
		w.create("db", ident.UUID{2})
		w.nextID = 20
		w.create("7", ident.UUID{3})
		a := w.agent("kept")
		for word, want := range map[string]ident.Domid{"12": 12, "7": 7, "012": 12, "20": 20} {
			if s := now(t, a, word); s.Domid != want {
				t.Errorf("%s: %d, want %d", word, s.Domid, want)
			}
		}
		if _, err := a.Status(ctx(t, time.Second), "99999", false); code(err) != api.NotFound {
			t.Error(err)
		}
	})(t)
}

// TestSwitchedOff: a domain that was switched off is in no reboot, also not for
// who waits; when it is created again, it is warm.
func TestSwitchedOff(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		w.recreate = false
		time.Sleep(time.Second)
		w.die(d, xenctl.ShutdownPoweroff)
		time.Sleep(5 * time.Second)
		if s := status(t, a); s.Current != nil || s.State != "down" || s.ImagePages != 40 {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Hour)
		w.boots(w.createWeb())
		time.Sleep(5 * time.Second)
		if s := now(t, a, "domU-web"); s.Last == nil || s.Last.Outcome != "warm" {
			t.Errorf("%+v", s.Last)
		}
	})(t)
}

// TestTakenAway: of one that somebody takes away it is not known whether it is to
// come back: after a while it is no longer waited for.
func TestTakenAway(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		time.Sleep(time.Second)
		w.take(d)
		time.Sleep(time.Second)
		if s := now(t, a, "domU-web"); s.Current == nil {
			t.Errorf("%+v", s)
		}
		if s, err := a.Status(ctx(t, time.Hour), "domU-web", true); err != nil || s.Current != nil { // in the end
			t.Errorf("%+v, %v", s, err)
		}
		if _, err := a.Reboot(ctx(t, time.Second), "domU-web", api.Graceful); code(err) != api.NotFound || !strings.Contains(err.Error(), "unless it runs on another host") {
			t.Errorf("%v", err)
		}
	})(t)
}

// TestUnwitnessed: what became of a domain is known by an agent only that has seen it
// since: one that is started when it is down, whatever it reads in the journal, cannot
// tell whether it came back and has left again.
func TestUnwitnessed(t *testing.T) {
	for what, sees := range map[string]bool{"it saw it go down": true, "it had asked it to": false} {
		t.Run(what, bubble(func(t *testing.T) {
			w, a, d, dir := running(t, 20, api.Policy{})
			w.recreate, w.deaf = false, true
			time.Sleep(100 * time.Millisecond)
			if !sees {
				if _, err := a.Reboot(ctx(t, time.Second), "domU-web", api.Graceful); code(err) != api.TimedOut {
					t.Fatal(err)
				}
				a.Stop()
			}
			w.die(d, xenctl.ShutdownReboot)
			time.Sleep(time.Second)
			if sees {
				if s := now(t, a, "domU-web"); s.Current == nil || s.Current.Trigger != api.Guest || s.Unwitnessed {
					t.Errorf("%+v", s)
				}
				a.Stop()
			}
			a = w.agent(dir)
			time.Sleep(time.Second)
			if s := now(t, a, "domU-web"); s.Current == nil || s.Current.Trigger == api.Unknown || !s.Unwitnessed {
				t.Errorf("of an agent that was not there: %+v", s)
			}
			w.boots(w.createWeb())
			time.Sleep(5 * time.Second)
			if s := now(t, a, "domU-web"); s.Domid == 0 || s.Unwitnessed {
				t.Errorf("it is back: %+v", s)
			}
		}))
	}
}

// TestOffInsteadOfReboot: one that was asked to reboot and goes off is not waited for.
func TestOffInsteadOfReboot(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		w.recreate, w.deaf = false, true
		w.going.Go(func() {
			time.Sleep(3 * time.Second)
			w.die(d, xenctl.ShutdownPoweroff)
		})
		begun := time.Now()
		if _, err := a.Reboot(ctx(t, time.Hour), "domU-web", api.Graceful); code(err) != api.Failed || time.Since(begun) > time.Minute {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})(t)
}

// TestTwoOfOneUUID: both are left alone: nothing is tracked of the clone, the
// original's disks go on being watched, nobody reboots either, and when the original
// has rebooted the clone has not taken its place.
func TestTwoOfOneUUID(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, dir := running(t, 20, api.Policy{})
		time.Sleep(time.Second)
		w.mu.Lock()
		w.unchecked = true
		clone := w.create("copy", webUUID)
		w.mu.Unlock()
		time.Sleep(2 * time.Second)
		if clone.st.Enabled {
			t.Error("the clone is tracked")
		}
		s := now(t, a, "domU-web")
		if s.Domid != 1 || s.Twin != 2 || s.Current != nil || !s.Managed || !strings.Contains(s.Message, "same UUID") {
			t.Errorf("%+v", s)
		}
		if s := now(t, a, "copy"); s.Domid != 2 || s.Twin != 1 || s.Managed {
			t.Errorf("%+v", s)
		}
		all, err := a.List(ctx(t, time.Second))
		if err != nil || len(all) != 2 {
			t.Errorf("%+v, %v", all, err)
		}
		for _, name := range []string{"domU-web", "copy"} {
			for _, mode := range []api.Trigger{api.Graceful, api.Force, api.Cold} {
				if _, err := a.Reboot(ctx(t, time.Minute), name, mode); code(err) != api.Failed || !strings.Contains(err.Error(), "domid 2") {
					t.Errorf("%s of %s: %v", mode, name, err)
				}
			}
			if _, err := a.Enable(ctx(t, time.Minute), name, api.Policy{}); code(err) != api.Failed {
				t.Errorf("%v", err)
			}
		}
		// The original reboots by itself.
		w.die(d, xenctl.ShutdownReboot)
		time.Sleep(10 * time.Second)
		s = now(t, a, webUUID.String())
		if s.Domid != 3 || s.Current != nil || s.Last == nil || s.Last.DomidAfter != 3 || clone.st.Enabled {
			t.Errorf("%+v, last %+v", s, s.Last)
		}
		w.take(clone)
		time.Sleep(2 * time.Second)
		if s := now(t, a, "domU-web"); s.Twin != 0 || s.Message != "" || s.Current != nil {
			t.Errorf("%+v", s)
		}
		if h := w.state(dir).history(); len(h) != 1 {
			t.Errorf("%+v", h)
		}
	})(t)
}

// TestStubDomain: what emulates another domain's devices is nobody's to deal with.
func TestStubDomain(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, _, _ := running(t, 20, api.Policy{})
		w.mu.Lock()
		w.create("domU-web-dm", ident.UUID{9})
		w.mu.Unlock()
		w.store.Set("/local/domain/2/target", "1")
		for _, name := range []string{"domU-web-dm", "2", ident.UUID{9}.String()} {
			if _, err := a.Enable(ctx(t, time.Second), name, api.Policy{}); code(err) != api.NotFound {
				t.Errorf("%s: %v", name, err)
			}
		}
		if all, err := a.List(ctx(t, time.Second)); err != nil || len(all) != 1 {
			t.Errorf("%+v, %v", all, err)
		}
	})(t)
}

// TestTrialsClone: a clone that a kernel is tried on is said to be one, so that schedules
// leave it alone; and it can be looked at.
func TestTrialsClone(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, _, _ := running(t, 20, api.Policy{})
		w.mu.Lock()
		w.create("domU-web-trial", ident.TrialUUID("1"))
		w.mu.Unlock()
		all, err := a.List(ctx(t, time.Second))
		if err != nil || len(all) != 2 || all[0].Service != "" || all[1].Service != "trial" {
			t.Errorf("%+v, %v", all, err)
		}
		if s := now(t, a, ident.TrialUUID("1").String()); s.Domid != 2 || s.State != "running" || s.Managed {
			t.Errorf("%+v", s)
		}
	})(t)
}

// TestRestoredAndCold: a domain that was restored was not tracked, which is why it
// comes back cold.
func TestRestoredAndCold(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		w.saved(d)
		d = w.createWeb()
		time.Sleep(time.Second)
		w.die(d, xenctl.ShutdownCrash)
		time.Sleep(10 * time.Second)
		if s := now(t, a, "domU-web"); s.Last == nil || s.Last.Outcome != "cold" || !strings.Contains(s.Last.Reason, "suspended") || s.Resumed || s.Message != "" {
			t.Errorf("%+v, %+v", s, s.Last)
		}
	})(t)
}

// TestGoesOnUntracked: a kernel that was suspended, for a copy say, has let go of all
// that it had registered. Should one register again, it tracks.
func TestGoesOnUntracked(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, dir := running(t, 20, api.Policy{})
		time.Sleep(time.Second)
		w.suspend(d)
		time.Sleep(time.Second)
		a = w.wakes(a, d, dir, func() {
			clear(d.reuse)
			w.count(d)
		})
		if s := now(t, a, "domU-web"); !s.Resumed || s.Attached || s.Message != resumed || s.Current != nil {
			t.Errorf("%+v", s)
		}
		if all, err := a.Kept(ctx(t, time.Second)); err != nil || len(all) != 1 || all[0].Attached {
			t.Errorf("%+v, %v", all, err)
		}
		if _, err := a.Reboot(ctx(t, time.Second), "domU-web", api.Graceful); code(err) != api.NotTracked || !strings.Contains(err.Error(), resumed) {
			t.Errorf("%v", err)
		}
		w.load(d, 20)
		w.mu.Lock()
		d.st.Registered++
		w.mu.Unlock()
		time.Sleep(time.Second)
		if s := now(t, a, "domU-web"); s.Resumed || !s.Attached || s.Message != "" {
			t.Errorf("%+v", s)
		}
		rebootsWarm(t, a)
	})(t)
}

// TestSavedAndBootedAnew: who saves a domain, and creates it all the same, has booted it.
func TestSavedAndBootedAnew(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		w.saved(d)
		d = w.createWeb()
		time.Sleep(time.Second)
		if s := now(t, a, "domU-web"); !s.Resumed {
			t.Errorf("%+v", s)
		}
		w.mu.Lock()
		d.st.Attached = true
		w.mu.Unlock()
		time.Sleep(time.Second)
		if s := now(t, a, "domU-web"); s.Resumed || s.Message != "" || s.Current != nil || s.Last != nil {
			t.Errorf("%+v", s)
		}
	})(t)
}

// owned is running, for a domain of xl's whose configuration says what becomes of it.
func owned(t *testing.T, onReboot string) (*world, *Agent, *fakeDomain, *fakeOwner) {
	t.Helper()
	w := newWorld(t)
	owner := &fakeOwner{Toolstack: toolstack.XL, Process: "xl (3)", OnReboot: onReboot}
	a := w.start("kept", func(o *Options) { o.Owners = owner })
	d := w.create("domU-web", webUUID)
	if _, err := a.Enable(ctx(t, time.Second), "domU-web", api.Policy{}); err != nil {
		t.Fatal(err)
	}
	w.load(d, 20)
	return w, a, d, owner
}

// TestNotCreatedAgain: whether a domain is waited for is up to what its configuration
// says of how it went down.
func TestNotCreatedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		end     string
		reason  xenctl.ShutdownReason
		off     bool
		trigger api.Trigger
	}{
		"a crash, destroy":     {"destroy", xenctl.ShutdownCrash, true, api.Crash},
		"a crash, core dump":   {"coredump-destroy", xenctl.ShutdownCrash, true, api.Crash},
		"a watchdog, preserve": {"preserve", xenctl.ShutdownWatchdog, true, api.Crash},
		"a crash, restart":     {"coredump-restart", xenctl.ShutdownCrash, false, api.Crash},
		"a reboot, destroy":    {"destroy", xenctl.ShutdownReboot, true, api.Guest},
		"nobody says":          {"", xenctl.ShutdownReboot, false, api.Guest},
		"switched off":         {"restart", xenctl.ShutdownPoweroff, true, api.Off},
	} {
		t.Run(name, bubble(func(t *testing.T) {
			w, a, d, owner := owned(t, c.end)
			w.recreate = false
			time.Sleep(time.Second)
			*owner = fakeOwner{} // libxl forgets it before the agent looks
			w.die(d, c.reason)
			time.Sleep(5 * time.Second)
			if s := now(t, a, webUUID.String()); s.Current == nil != c.off || s.State != "down" || s.ImagePages != 40 {
				t.Errorf("%+v", s)
			}
			w.boots(w.createWeb())
			time.Sleep(5 * time.Second)
			if s := now(t, a, "domU-web"); s.Last == nil || s.Last.Outcome != "warm" || s.Last.Trigger != c.trigger {
				t.Errorf("%+v", s.Last)
			}
		}))
	}
}

// TestRenameRestart: a toolstack that keeps the old domain under another name (its UUID
// in Xen stays what it was) keeps its memory, too: that is not tried, and said if a
// guest does it by itself. A creation that fails before the domain runs ends no reboot.
func TestRenameRestart(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := owned(t, "rename-restart")
		if _, err := a.Reboot(ctx(t, time.Second), "domU-web", api.Graceful); code(err) != api.Failed || !strings.Contains(err.Error(), "rename-restart") {
			t.Errorf("%v", err)
		}
		w.mu.Lock()
		if w.asked != 0 {
			t.Error("it was rebooted")
		}
		d.info.Shutdown, d.info.Reason = true, xenctl.ShutdownReboot
		w.mu.Unlock()
		time.Sleep(time.Second)
		if s := now(t, a, webUUID.String()); s.Current == nil || s.Message != "" { // every domain that reboots is like that at first
			t.Errorf("%+v", s)
		}
		w.store.Set("/local/domain/1/name", "domU-web-20261130T1522Z")
		time.Sleep(time.Second)
		for _, word := range []string{webUUID.String(), "domU-web"} {
			if s := now(t, a, word); s.Current == nil || !strings.Contains(s.Message, "rename-restart") {
				t.Errorf("%s: %+v", word, s)
			}
		}
		w.mu.Lock()
		n := w.create("domU-web", webUUID)
		n.info.Paused = true
		w.mu.Unlock()
		time.Sleep(time.Second)
		w.take(n)
		time.Sleep(time.Second)
		s := now(t, a, webUUID.String())
		if s.Current == nil || s.Current.Sequence != 1 || s.Last != nil || !strings.Contains(s.Message, "xl destroy 1 ") {
			t.Errorf("%+v, %+v", s.Current, s.Last)
		}
		w.boots(w.createWeb())
		time.Sleep(5 * time.Second)
		s = now(t, a, "domU-web")
		if s.Last == nil || s.Last.Outcome != "cold" || !strings.Contains(s.Last.Reason, "rename-restart") || s.Last.Sequence != 1 {
			t.Errorf("%+v", s.Last)
		}
	})(t)
}
