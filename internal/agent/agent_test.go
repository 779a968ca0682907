package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/xenctl"
)

func ctx(t *testing.T, d time.Duration) context.Context {
	c, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return c
}

func code(err error) api.Code {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// running makes a world with a kept domain that has n pages of each disk.
func running(t *testing.T, n int, p api.Policy) (*world, *Agent, *fakeDomain, string) {
	t.Helper()
	w, dir := newWorld(t), "kept"
	d := w.create("domU-web", webUUID)
	a := w.agent(dir)
	s, err := a.Enable(ctx(t, 5*time.Second), "domU-web", p)
	if err != nil || !s.Enabled || !s.Armed || !s.Managed {
		t.Fatalf("enable: %+v, %v", s, err)
	}
	w.load(d, n)
	return w, a, d, dir
}

func vbd(t *testing.T, s api.Summary, v ident.VBD) api.VBDSummary {
	t.Helper()
	for _, x := range s.VBDs {
		if x.VBD == v {
			return x
		}
	}
	t.Fatalf("no vbd %d in %+v", v, s.VBDs)
	return api.VBDSummary{}
}

func TestReboots(t *testing.T) {
	bubble(func(t *testing.T) {
		_, a, _, _ := running(t, 20, api.Policy{})
		for i, mode := range []api.Trigger{api.Graceful, api.Force, api.Graceful} {
			s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", mode)
			if err != nil {
				t.Fatalf("reboot %d: %v, %+v", i, err, s)
			}
			if s.Outcome != "warm" || s.Trigger != mode || s.Sequence != uint64(i+1) || !s.Done ||
				s.PagesBefore != 40 || s.PagesPreserved != 40 || s.PagesApproved != 40 || s.PagesRestored != 40 ||
				s.DomidAfter != s.DomidBefore+1 || s.DownSeconds <= 0 || s.RestoredSeconds < s.DownSeconds {
				t.Fatalf("reboot %d: %+v", i, s)
			}
			if v := vbd(t, s, xvda); v.Verdict != "approved" || v.Checked != 20 || v.Mismatches != 0 || v.Custody != "certain" {
				t.Fatalf("reboot %d: %+v", i, v)
			}
		}
		s, err := a.Status(ctx(t, time.Second), "domU-web", true)
		if err != nil || s.Last == nil || s.Last.Sequence != 3 || s.Current != nil {
			t.Errorf("status %+v, %v", s, err)
		}
	})(t)
}

func TestCrash(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 10, api.Policy{})
		w.die(d, xenctl.ShutdownCrash)
		a.Wake()
		s, err := a.Status(ctx(t, 20*time.Second), webUUID.String(), true)
		if err != nil || s.Last == nil || s.Last.Trigger != api.Crash || s.Last.Outcome != "warm" {
			t.Fatalf("%+v, %v", s.Last, err)
		}
		if got, err := w.store.Read(ctx(t, time.Second), "/local/domain/2/control/warmcache"); got != "51712:approved 51728:approved" {
			t.Errorf("wake node: %q, %v", got, err)
		}
	})(t)
}

// TestRefusals: whatever happens to xvda while the guest is down, it comes back
// cold, with a reason; xvdb comes back warm.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		policy api.Policy
		why    api.Reason
		do     func(w *world, d *fakeDisk)
		reason string
	}{
		"written to":  {api.Policy{}, api.Written, func(_ *world, d *fakeDisk) { d.written += 8 }, "8 sectors of /dev/xvda were written by somebody else"},
		"another":     {api.Policy{}, api.Identity, func(_ *world, d *fakeDisk) { d.identity.Block = "7:7" }, "another disk"},
		"added again": {api.Policy{}, api.Identity, func(_ *world, d *fakeDisk) { d.identity.DiskSeq = 9 }, "added again"},
		"resized":     {api.Policy{}, api.Identity, func(_ *world, d *fakeDisk) { d.identity.Size += 512 }, "resized"},
		"mounted":     {api.Policy{}, api.InUse, func(_ *world, d *fakeDisk) { d.user = "mount /mnt" }, "in use in dom0: mount /mnt"},
		"contents":    {api.Policy{Content: "full"}, api.Content, func(_ *world, d *fakeDisk) { d.data[5000]++ }, "differ from the disk"},
		"vbd removed": {api.Policy{}, api.NoDisk, func(w *world, d *fakeDisk) { delete(w.disks, xvda) }, "no longer has this vbd"},
	} {
		t.Run(name, bubble(func(t *testing.T) {
			w, a, d, _ := running(t, 20, c.policy)
			time.Sleep(100 * time.Millisecond)
			w.die(d, xenctl.ShutdownReboot)
			a.Wake()
			time.Sleep(200 * time.Millisecond)
			w.mu.Lock()
			c.do(w, w.disks[xvda])
			w.mu.Unlock()
			s, err := a.Status(ctx(t, 20*time.Second), "domU-web", true)
			if err != nil || s.Last == nil {
				t.Fatalf("%+v, %v", s, err)
			}
			v := vbd(t, *s.Last, xvda)
			if v.Verdict != "refused" || !strings.Contains(v.Reason, c.reason) || len(v.Refusals) != 1 ||
				v.Refusals[0].Reason != c.why || v.Refusals[0].Pages != 20 || v.Refusals[0].Example != v.Reason {
				t.Errorf("%+v", v)
			}
			if len(s.Refusals) != 1 || s.Refusals[0].Name != "xvda" || len(s.Refusals[0].Refusals) != 1 || s.Refusals[0].Refusals[0].Times != 1 {
				t.Errorf("%+v", s.Refusals)
			}
			if o := vbd(t, *s.Last, xvdb); o.Verdict != "approved" {
				t.Errorf("the other disk: %+v", o)
			}
			if s.Last.PagesApproved != 20 {
				t.Errorf("%+v", s.Last)
			}
		}))
	}
}

// TestForeignWriteWhileRunning: what is known of the disk is dropped at once.
func TestForeignWriteWhileRunning(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		time.Sleep(100 * time.Millisecond)
		w.mu.Lock()
		w.disks[xvda].written += 8
		w.mu.Unlock()
		a.Wake()
		for i := 0; ; i++ {
			w.mu.Lock()
			n := d.st.Committed
			w.mu.Unlock()
			if n == 20 {
				break
			}
			if i == 300 {
				t.Fatalf("%d pages are still known", n)
			}
			time.Sleep(10 * time.Millisecond)
		}
		// The account starts anew: the next reboot is warm for what was read since.
		w.load(d, 20)
		if s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful); err != nil || s.PagesRestored != 40 {
			t.Errorf("%+v, %v", s, err)
		}
	})(t)
}

// TestStructure: pages whose entries contradict each other are dropped, the
// others approved.
func TestStructure(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		w.mu.Lock()
		d.entries[1].Sector = d.entries[0].Sector // of another page of the file
		d.entries[25].Sector = 1 << 40
		w.mu.Unlock()
		s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful)
		if err != nil || s.PagesApproved != 37 || s.PagesRestored != 37 {
			t.Fatalf("%+v, %v", s, err)
		}
		if v := vbd(t, s, xvdb); !strings.Contains(v.Note, "past the end") {
			t.Errorf("%+v", v)
		}
	})(t)
}

// TestAgentAway: an agent that did not see the domain go down vouches only for
// what it has compared in full, or, as told, for nothing.
func TestAgentAway(t *testing.T) {
	for _, uncertain := range []string{"full", "refuse"} {
		t.Run(uncertain, bubble(func(t *testing.T) {
			w, a, d, dir := running(t, 20, api.Policy{Content: "none", Uncertain: uncertain})
			time.Sleep(100 * time.Millisecond)
			a.Stop()
			w.die(d, xenctl.ShutdownReboot)
			time.Sleep(time.Second) // down and up again
			a = w.agent(dir)
			s, err := a.Status(ctx(t, 20*time.Second), "domU-web", true)
			if err != nil || s.Last == nil {
				t.Fatalf("%+v, %v", s, err)
			}
			v := vbd(t, *s.Last, xvda)
			if v.Custody != "uncertain" {
				t.Errorf("%+v", v)
			}
			if uncertain == "full" && (v.Verdict != "approved" || v.Checked != 20) || uncertain == "refuse" && v.Verdict != "refused" {
				t.Errorf("%+v", v)
			}
		}))
	}
}

// TestAgentRestarted: an agent that is killed and started again while the guest
// runs goes on with the accounts, and is as sure as before.
func TestAgentRestarted(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, dir := running(t, 20, api.Policy{})
		time.Sleep(100 * time.Millisecond)
		a.Stop()
		w.mu.Lock()
		w.disks[xvda].written += 24
		w.disks[xvda].guest[d.info.Domid].Written += 24
		w.mu.Unlock()
		a = w.agent(dir)
		time.Sleep(100 * time.Millisecond)
		s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful)
		if v := vbd(t, s, xvda); err != nil || v.Custody != "certain" || v.Verdict != "approved" {
			t.Errorf("%+v, %v", s, err)
		}
	})(t)
}

// TestAgentKilledAnywhere: an agent that is started again at any moment of a
// reboot finishes it, or it comes back cold; it never hangs.
func TestAgentKilledAnywhere(t *testing.T) {
	for _, after := range []time.Duration{0, 100, 300, 600, 720, 760, 800, 900} {
		t.Run(after.String(), bubble(func(t *testing.T) {
			w, a, d, dir := running(t, 20, api.Policy{})
			time.Sleep(100 * time.Millisecond)
			w.die(d, xenctl.ShutdownCrash)
			a.Wake()
			time.Sleep(after * time.Millisecond)
			a.Stop()
			a = w.agent(dir)
			time.Sleep(1200 * time.Millisecond)
			s, err := a.Status(ctx(t, 20*time.Second), "domU-web", true)
			if err != nil || s.Last == nil || !s.Last.Done || s.Last.Sequence != 1 || s.Last.Outcome != "warm" {
				t.Fatalf("%+v, %v", s.Last, err)
			}
			for _, v := range s.Last.VBDs {
				if v.Custody == "uncertain" && v.Checked != 20 {
					t.Errorf("approved without custody: %+v", v)
				}
			}
		}))
	}
}

func TestCold(t *testing.T) {
	bubble(func(t *testing.T) {
		_, a, _, _ := running(t, 20, api.Policy{})
		s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Cold)
		if err != nil || s.Outcome != "cold" || s.PagesApproved != 0 || s.PagesRestored != 0 || s.Trigger != api.Cold || !s.Done {
			t.Fatalf("%+v, %v", s, err)
		}
	})(t)
}

func TestColdOfAnyDomain(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*world, *fakeDomain){
		"not enabled": func(*world, *fakeDomain) {},
		"PV":          func(_ *world, d *fakeDomain) { d.info.HVM = false },
		"no cache":    func(w *world, _ *fakeDomain) { w.noCache = true },
	} {
		t.Run(name, bubble(func(t *testing.T) {
			w := newWorld(t)
			prepare(w, w.create("domU-web", webUUID))
			dir := "kept"
			a := w.agent(dir)
			s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Cold)
			if err != nil || s.Outcome != "cold" || !s.Done || s.DomidAfter != 2 {
				t.Fatalf("%+v, %v", s, err)
			}
			// Nothing is left of it.
			for range 100 {
				if a.keeper(webUUID) == nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if found := w.state(dir).raw(webUUID); found != nil {
				t.Errorf("left in the journal: %s", found)
			}
		}))
	}
}

func TestMistakes(t *testing.T) {
	bubble(func(t *testing.T) {
		w := newWorld(t)
		d := w.create("domU-web", webUUID)
		a := w.agent("kept")
		c := ctx(t, 10*time.Second)
		reboot := func() api.Code { _, err := a.Reboot(c, "domU-web", api.Graceful); return code(err) }
		if _, err := a.Reboot(c, "nobody", api.Graceful); code(err) != api.NotFound {
			t.Errorf("unknown domain: %v", err)
		}
		if got := reboot(); got != api.NotTracked {
			t.Errorf("not enabled: %s", got)
		}
		if _, err := a.Drop(c, "domU-web"); code(err) != api.NotTracked {
			t.Errorf("drop, not enabled: %v", err)
		}
		if _, err := a.Enable(c, "domU-web", api.Policy{Content: "most"}); code(err) != api.BadRequest {
			t.Errorf("bad policy: %v", err)
		}
		d.info.HVM = false
		if _, err := a.Enable(c, "domU-web", api.Policy{}); code(err) != api.NotTracked {
			t.Errorf("PV: %v", err)
		}
		d.info.HVM = true
		w.set(&w.pvhDom0, true)
		if _, err := a.Enable(c, "domU-web", api.Policy{}); code(err) != api.NoWarmcache {
			t.Errorf("PVH dom0: %v", err)
		}
		w.set(&w.pvhDom0, false)
		s, err := a.Enable(c, "domU-web", api.Policy{})
		if err != nil || s.Message == "" {
			t.Errorf("enabled while running: %+v, %v", s, err)
		}
		if got := reboot(); got != api.NotTracked {
			t.Errorf("not attached: %s", got)
		}
		w.set(&w.noCache, true)
		if got := reboot(); got != api.NoWarmcache {
			t.Errorf("no warm cache: %s", got)
		}
		w.set(&w.noCache, false)
		if w.store.Writes() != 0 || !d.info.Alive() {
			t.Error("something was changed")
		}
	})(t)
}

func TestDeafGuest(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, _, _ := running(t, 20, api.Policy{})
		w.set(&w.deaf, true)
		s, err := a.Reboot(ctx(t, 500*time.Millisecond), "domU-web", api.Graceful)
		if code(err) != api.TimedOut || hint(err) != api.TryForce || s.Done {
			t.Fatalf("%+v, %v", s, err)
		}
		if s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Force); err != nil || s.Trigger != api.Force {
			t.Fatalf("%+v, %v", s, err)
		}
	})(t)
}

func TestNobodyRecreates(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, _, _ := running(t, 20, api.Policy{})
		w.set(&w.recreate, false)
		_, err := a.Reboot(ctx(t, 2*time.Second), "domU-web", api.Force)
		if code(err) != api.TimedOut || !strings.Contains(err.Error(), "not been created again yet") { // its toolstack may be at it
			t.Fatal(err)
		}
		_, err = a.Status(ctx(t, recreateSoon), "domU-web", true)
		if code(err) != api.TimedOut || !strings.Contains(err.Error(), "nobody has recreated it") {
			t.Fatal(err)
		}
		// It can be brought back by hand, and is warm.
		w.mu.Lock()
		w.boots(w.create("domU-web", webUUID))
		w.mu.Unlock()
		s, err := a.Status(ctx(t, 20*time.Second), "domU-web", true)
		if err != nil || s.Last == nil || s.Last.Outcome != "warm" {
			t.Fatalf("%+v, %v", s.Last, err)
		}
	})(t)
}

// TestBeingBuilt: a domain that has no memory yet is not touched.
func TestBeingBuilt(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		w.set(&w.recreate, false)
		w.die(d, xenctl.ShutdownReboot)
		time.Sleep(time.Second)
		w.mu.Lock()
		img := w.images[webUUID]
		delete(w.images, webUUID)
		n := w.create("domU-web", webUUID)
		n.introduced, n.info.Paused = false, true
		w.mu.Unlock()
		a.Wake()
		time.Sleep(700 * time.Millisecond)
		w.mu.Lock()
		if n.st.Enabled {
			t.Error("enabled while it is being built")
		}
		w.domains = nil
		w.images[webUUID] = img
		w.boots(w.create("domU-web", webUUID))
		w.mu.Unlock()
		s, err := a.Status(ctx(t, 20*time.Second), "domU-web", true)
		if err != nil || s.Last == nil || s.Last.PagesRestored != 40 {
			t.Fatalf("%+v, %v", s.Last, err)
		}
	})(t)
}

func TestDisableAndDrop(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, dir := running(t, 20, api.Policy{})
		c := ctx(t, 10*time.Second)
		if r, err := a.Drop(c, "domU-web"); err != nil || r.Pages != 40 {
			t.Errorf("%+v, %v", r, err)
		}
		s, err := a.Disable(c, "domU-web")
		if err != nil || s.Managed || s.Enabled || d.st.Enabled {
			t.Errorf("%+v, %v", s, err)
		}
		if found := w.state(dir).raw(webUUID); found != nil {
			t.Errorf("left in the journal: %s", found)
		}
		_ = w
	})(t)
}

// TestDisableAtOnce: a keeper that ends with what it was asked for still says
// that it was done, and is in nobody's way afterwards.
func TestDisableAtOnce(t *testing.T) {
	bubble(func(t *testing.T) {
		_, a, d, _ := running(t, 20, api.Policy{})
		c := ctx(t, 30*time.Second)
		for i := range 300 {
			if s, err := a.Disable(c, "domU-web"); err != nil || s.Managed || d.st.Enabled {
				t.Fatalf("disable %d: %+v, %v", i, s, err)
			}
			if s, err := a.Enable(c, "domU-web", api.Policy{}); err != nil || !s.Managed || !s.Armed {
				t.Fatalf("enable %d: %+v, %v", i, s, err)
			}
		}
	})(t)
}

func TestPlanChangesNothing(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		before := w.store.Writes()
		p, err := a.Plan(ctx(t, 5*time.Second), "domU-web", api.Graceful)
		if err != nil || p.Pages != 40 || len(p.VBDs) != 2 || p.VBDs[0].Backing != "/dev/xvda" {
			t.Errorf("%+v, %v", p, err)
		}
		if w.store.Writes() != before || !d.info.Alive() || d.st.Committed != 40 {
			t.Error("something was changed")
		}
		all, err := a.List(ctx(t, 5*time.Second))
		if err != nil || len(all) != 1 || all[0].Domain != "domU-web" || all[0].Committed != 40 {
			t.Errorf("%+v, %v", all, err)
		}
		_ = disk.Host
	})(t)
}

// TestForceOfACrashing: a forced reboot of a domain that goes down by itself at
// that moment waits for that reboot, and reports it; one that was switched off
// stays so.
func TestForceOfACrashing(t *testing.T) {
	bubble(func(t *testing.T) {
		for _, gone := range []time.Duration{0, 100 * time.Millisecond, 400 * time.Millisecond} {
			w, a, d, _ := running(t, 20, api.Policy{})
			time.Sleep(100 * time.Millisecond)
			w.die(d, xenctl.ShutdownCrash)
			time.Sleep(gone)
			p, err := a.Plan(ctx(t, 5*time.Second), "domU-web", api.Force)
			if err != nil || p.Joins != api.Crash || p.Domid != 1 || p.NotWarm != "" {
				t.Errorf("planned %v after the crash: %+v, %v", gone, p, err)
			}
			for _, mode := range []api.Trigger{api.Graceful, api.Cold} {
				if _, err := a.Plan(ctx(t, 5*time.Second), "domU-web", mode); code(err) != api.NotFound {
					t.Errorf("planned, %s, %v after the crash: %v", mode, gone, err)
				}
			}
			s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Force)
			if err != nil || s.Trigger != api.Crash || s.Outcome != "warm" || s.Sequence != 1 || s.DomidAfter != 2 || w.asked != 0 {
				t.Errorf("%v after the crash: %+v, %v; asked %d times", gone, s, err, w.asked)
			}
			// A graceful one has nobody to ask.
			w.die(w.domains[0], xenctl.ShutdownCrash)
			if _, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful); code(err) != api.NotFound {
				t.Errorf("graceful: %v", err)
			}
		}
		w, a, d, _ := running(t, 20, api.Policy{})
		w.set(&w.recreate, false)
		w.die(d, xenctl.ShutdownPoweroff)
		begun := time.Now()
		if _, err := a.Plan(ctx(t, 20*time.Second), "domU-web", api.Force); code(err) != api.NotFound {
			t.Errorf("planned, switched off: %v", err)
		}
		if _, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Force); code(err) != api.NotFound || time.Since(begun) > 5*time.Second {
			t.Errorf("switched off: %v after %v", err, time.Since(begun))
		}
	})(t)
}

// TestLocked: a domain that is coming back cannot be rebooted.
func TestLocked(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		w.set(&w.untold, true)
		w.die(d, xenctl.ShutdownReboot)
		soon(t, w, a, "it is back", func() bool { return len(w.domains) == 1 && w.domains[0].info.Domid == 2 })
		if _, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful); code(err) != api.Locked || hint(err) != api.TryWait {
			t.Errorf("%v", err)
		}
	})(t)
}

// TestLockedWhileBuilt: nor can one that is being built again: it is not that it
// was not enabled.
func TestLockedWhileBuilt(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		w.set(&w.recreate, false)
		w.die(d, xenctl.ShutdownReboot)
		soon(t, w, a, "it is gone", func() bool { return len(w.domains) == 0 })
		w.mu.Lock()
		img := w.images[webUUID]
		delete(w.images, webUUID) // it is taken when it has been built
		n := w.create("domU-web", webUUID)
		n.introduced, n.info.Paused = false, true
		w.images[webUUID] = img
		w.mu.Unlock()
		for _, mode := range []api.Trigger{api.Graceful, api.Force} {
			if _, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", mode); code(err) != api.Locked || !strings.Contains(err.Error(), "being built") {
				t.Errorf("%s: %v", mode, err)
			}
		}
		for _, mode := range []api.Trigger{api.Graceful, api.Cold, api.Force} {
			if _, err := a.Plan(ctx(t, 20*time.Second), "domU-web", mode); code(err) != api.Locked {
				t.Errorf("plan, %s: %v", mode, err)
			}
		}
	})(t)
}

// rebooted has the domain reboot, and returns its status when that has ended.
func rebooted(t *testing.T, w *world, a *Agent, d *fakeDomain) api.DomainStatus {
	t.Helper()
	w.die(d, xenctl.ShutdownReboot)
	a.Wake()
	s, err := a.Status(ctx(t, 20*time.Second), "domU-web", true)
	if err != nil || s.Last == nil {
		t.Fatalf("%+v, %v", s, err)
	}
	return s
}

// TestUsersAreAskedOnce: who uses the disks in dom0 is asked of all of them at once,
// when they are judged and when they are vouched for; somebody who comes in between is
// found.
func TestUsersAreAskedOnce(t *testing.T) {
	for _, comes := range []bool{false, true} {
		t.Run(fmt.Sprint(comes), bubble(func(t *testing.T) {
			w, a, d, _ := running(t, 20, api.Policy{})
			time.Sleep(100 * time.Millisecond)
			w.mu.Lock()
			w.looks = 0
			w.looked = func() {
				if comes {
					w.after = func() { w.disks[xvdb].user = "process 7 (dd)" }
				}
			}
			w.mu.Unlock()
			s := rebooted(t, w, a, d)
			if w.looks != 2 {
				t.Errorf("asked %d times", w.looks)
			}
			for disk, want := range map[ident.VBD]bool{xvda: true, xvdb: !comes} {
				if v := vbd(t, *s.Last, disk); (v.Verdict == "approved") != want || !want && v.Refusals[0].Reason != api.InUse {
					t.Errorf("comes %v: %+v", comes, v)
				}
			}
		}))
	}
}

// TestLeavingLoopDevice: the loop device of the guest before is waited for while it
// goes, and is in use if it does not. The table is not looked at again at each look.
func TestLeavingLoopDevice(t *testing.T) {
	for _, goes := range []bool{true, false} {
		t.Run(fmt.Sprint(goes), bubble(func(t *testing.T) {
			w, a, d, _ := running(t, 20, api.Policy{})
			time.Sleep(100 * time.Millisecond)
			w.mu.Lock()
			w.disks[xvda].user, w.disks[xvda].leaving = "loop device /dev/loop0", true
			w.maps, w.looks = 0, 0
			w.looked = func() {
				if goes {
					w.after = func() { w.disks[xvda].user, w.disks[xvda].leaving = "", false }
				}
			}
			w.mu.Unlock()
			s := rebooted(t, w, a, d)
			if !goes && (w.looks < 4 || w.maps > 4) {
				t.Errorf("looked %d times who uses the disk, %d times at the table", w.looks, w.maps)
			}
			if v := vbd(t, *s.Last, xvda); (v.Verdict == "approved") != goes || !goes && v.Refusals[0].Reason != api.InUse {
				t.Errorf("%+v", v)
			}
		}))
	}
}

// TestRefusedPagesAreCounted: a refusal counts the pages that the domain held
// when it came back, although the guest has given most of them up by the time of
// the verdict.
func TestRefusedPagesAreCounted(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		time.Sleep(100 * time.Millisecond)
		w.mu.Lock()
		d.entries[1].Sector = 1 << 40 // is dropped by itself
		// The guest gives pages up while the agent looks who uses the disk.
		w.looked = func() {
			now := w.domains[0]
			for p := range 18 {
				now.reuse[0] &^= 1 << p
				now.held[0] &^= 1 << p
			}
			w.count(now)
		}
		w.mu.Unlock()
		w.die(d, xenctl.ShutdownReboot)
		a.Wake()
		time.Sleep(200 * time.Millisecond)
		w.mu.Lock()
		w.disks[xvda].written += 8
		w.mu.Unlock()
		s := status(t, a)
		v := vbd(t, *s.Last, xvda)
		if len(v.Refusals) != 2 || v.Refusals[0].Reason != api.Structure || v.Refusals[0].Pages != 1 ||
			v.Refusals[1].Reason != api.Written || v.Refusals[1].Pages != 19 || v.Held != 20 {
			t.Errorf("%+v", v)
		}
	})(t)
}

// nextStep is what a message must have for the operator to go on with.
var nextStep = regexp.MustCompile(`warmreboot \w+|xl \w+|boot a|install|it has to be`)

// hint returns what an error hints at, which is a next step, too.
func hint(err error) api.Hint {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}

func hasNext(err error) bool { return hint(err) != "" || nextStep.MatchString(err.Error()) }

// TestErrorsSayWhatNext: every error names the domain, and the next step.
func TestErrorsSayWhatNext(t *testing.T) {
	bubble(func(t *testing.T) {
		c := ctx(t, time.Minute)
		broken := errors.New("input/output error")
		calls := map[string]func(*Agent) error{
			"reboot":  func(a *Agent) error { _, err := a.Reboot(c, "domU-web", api.Graceful); return err },
			"enable":  func(a *Agent) error { _, err := a.Enable(c, "domU-web", api.Policy{}); return err },
			"disable": func(a *Agent) error { _, err := a.Disable(c, "domU-web"); return err },
			"drop":    func(a *Agent) error { _, err := a.Drop(c, "domU-web"); return err },
			"plan":    func(a *Agent) error { _, err := a.Plan(c, "domU-web", api.Graceful); return err },
		}
		for name, s := range map[string]struct {
			prepare func(*world, *fakeDomain)
			fine    string // what does not fail
		}{
			"not there":    {func(w *world, _ *fakeDomain) { w.domains = nil }, ""},
			"not enabled":  {func(*world, *fakeDomain) {}, "enable disable"},
			"PV":           {func(_ *world, d *fakeDomain) { d.info.HVM = false }, "disable"},
			"no cache":     {func(w *world, _ *fakeDomain) { w.noCache = true }, "disable"},
			"skew":         {func(w *world, _ *fakeDomain) { w.skew = true }, ""},
			"Xen's error":  {func(w *world, _ *fakeDomain) { w.fail = broken }, ""},
			"just gone":    {func(w *world, _ *fakeDomain) { w.fail = xenctl.ErrNoDomain }, ""},
			"not built":    {func(_ *world, d *fakeDomain) { d.introduced, d.info.Paused = false, true }, "disable"},
			"no more left": {func(_ *world, d *fakeDomain) { d.info.Shutdown = true }, "enable disable"},
		} {
			for op, call := range calls {
				w := newWorld(t)
				a := w.agent("kept")
				s.prepare(w, w.create("domU-web", webUUID))
				err := call(a)
				if err == nil {
					if !strings.Contains(s.fine, op) {
						t.Errorf("%s, %s: no error", name, op)
					}
					continue
				}
				if !strings.Contains(err.Error(), "domU-web") || !hasNext(err) {
					t.Errorf("%s, %s: %v", name, op, err)
				}
			}
		}
		// Those of a reboot that does not end.
		w, a, _, _ := running(t, 5, api.Policy{})
		w.set(&w.recreate, false)
		for range 2 {
			if _, err := a.Reboot(ctx(t, 300*time.Millisecond), "domU-web", api.Force); err == nil || !strings.Contains(err.Error(), "domU-web") || !hasNext(err) {
				t.Errorf("%v", err)
			}
		}
	})(t)
}

// TestKept: those that are kept, up or down, and no others.
func TestKept(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		w.mu.Lock()
		w.create("other", ident.UUID{9})
		w.mu.Unlock()
		all, err := a.Kept(ctx(t, time.Second))
		if err != nil || len(all) != 1 || all[0].Domain != "domU-web" || all[0].Domid != d.info.Domid || all[0].Committed != 40 || !all[0].Managed {
			t.Errorf("%+v, %v", all, err)
		}
		w.set(&w.recreate, false)
		w.die(d, xenctl.ShutdownPoweroff)
		soon(t, w, a, "it is gone", func() bool { return len(w.domains) == 1 })
		if all, err = a.Kept(ctx(t, time.Second)); err != nil || len(all) != 1 || all[0].Domid != 0 || all[0].State != "down" || all[0].ImagePages != 40 {
			t.Errorf("%+v, %v", all, err)
		}
	})(t)
}

// TestWithdraw: what a guest was asked for is taken back as long as it has not taken note
// of it; then it was not asked, and what it does later is its own doing.
func TestWithdraw(t *testing.T) {
	const node = "/local/domain/1/control/shutdown"
	for _, mode := range []api.Trigger{api.Graceful, api.Cold} {
		t.Run(string(mode), bubble(func(t *testing.T) {
			w, a, d, dir := running(t, 20, api.Policy{})
			w.set(&w.deaf, true)
			if err := a.Withdraw(ctx(t, time.Second), "domU-web"); code(err) != api.Locked {
				t.Errorf("nothing was asked: %v", err)
			}
			asks, hangUp := context.WithCancel(t.Context())
			w.going.Go(func() { _, _ = a.Reboot(asks, "domU-web", mode) })
			time.Sleep(time.Minute)
			w.store.Set(node, "") // the guest takes note
			if err := a.Withdraw(ctx(t, time.Second), "domU-web"); code(err) != api.Locked || !strings.Contains(err.Error(), "goes down when it can") {
				t.Errorf("it has taken note: %v", err)
			}
			w.store.Set(node, "reboot")
			w.store.Fail(func(path string) error {
				if path == node {
					return io.ErrUnexpectedEOF
				}
				return nil
			})
			if err := a.Withdraw(ctx(t, time.Second), "domU-web"); code(err) != api.Failed {
				t.Errorf("xenstored fails: %v", err)
			}
			w.store.Fail(nil)
			a.Stop() // the next daemon knows of it
			a = w.agent(dir)
			if err := a.Withdraw(ctx(t, time.Second), "domU-web"); err != nil {
				t.Error(err)
			}
			if v, err := w.store.Read(t.Context(), node); v != "" || err != nil {
				t.Errorf("%q, %v", v, err)
			}
			hangUp()
			w.load(d, 20)
			w.die(d, xenctl.ShutdownReboot)
			time.Sleep(10 * time.Second)
			if s := now(t, a, "domU-web"); s.Last == nil || s.Last.Outcome != "warm" || s.Last.Trigger != api.Guest || s.Last.By != api.ByGuest {
				t.Errorf("%+v", s.Last)
			}
		}))
	}
	bubble(func(t *testing.T) { // one that goes down already
		w, a, d, _ := running(t, 20, api.Policy{})
		w.die(d, xenctl.ShutdownReboot)
		if err := a.Withdraw(ctx(t, time.Second), webUUID.String()); code(err) != api.Locked || !strings.Contains(err.Error(), "in its reboot already") {
			t.Errorf("%v", err)
		}
		time.Sleep(10 * time.Second)
	})(t)
}
