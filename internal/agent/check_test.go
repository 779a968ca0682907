package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/custody"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/xenctl"
)

// soon waits for something that the agent does at its next look.
func soon(t *testing.T, w *world, a *Agent, what string, is func() bool) {
	t.Helper()
	for range 500 {
		a.Wake()
		w.mu.Lock()
		ok := is()
		w.mu.Unlock()
		if ok {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("in vain: %s", what)
}

func status(t *testing.T, a *Agent) api.DomainStatus {
	t.Helper()
	s, err := a.Status(ctx(t, 20*time.Second), "domU-web", true)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestContentPolicies: none compares nothing, sample=N so many pages of each
// disk, full all; and whatever is compared is found.
func TestContentPolicies(t *testing.T) {
	for _, c := range []struct {
		policy  string
		stale   int // pages of xvda, of 50
		checked uint64
		approve bool
	}{
		{"none", 0, 0, true}, {"sample=7", 0, 7, true}, {"sample=500", 0, 50, true}, {"full", 0, 50, true},
		{"none", 50, 0, true}, // what it costs to ask for nothing
		{"sample=7", 50, 7, false}, {"full", 1, 50, false},
	} {
		t.Run(c.policy, bubble(func(t *testing.T) {
			w, a, _, _ := running(t, 50, api.Policy{Content: c.policy})
			w.mu.Lock()
			for p := range c.stale { // by means that no counter shows
				w.disks[xvda].data[p*4096]++
			}
			w.mu.Unlock()
			s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful)
			if err != nil {
				t.Fatal(err)
			}
			v := vbd(t, s, xvda)
			if v.Checked != c.checked || (v.Verdict == "approved") != c.approve || c.approve == (v.Mismatches > 0) {
				t.Errorf("%+v", v)
			}
			if !c.approve && (len(v.Refusals) != 1 || v.Refusals[0].Reason != api.Content || !strings.Contains(v.Refusals[0].Example, "e.g. PFN")) {
				t.Errorf("%+v", v)
			}
			if o := vbd(t, s, xvdb); o.Verdict != "approved" || o.Checked != c.checked {
				t.Errorf("%+v", o)
			}
		}))
	}
}

// TestAccess: who opens an image file while the guest uses it makes custody
// uncertain, who writes to it breaks it.
func TestAccess(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{Content: "none"})
		time.Sleep(100 * time.Millisecond)
		w.mu.Lock()
		w.disks[xvda].watched.doubt = "opened by process 8 (cat)"
		w.disks[xvdb].watched = fakeWatch{"opened by process 9 (dd)", "opened for writing by process 9 (dd)"}
		w.mu.Unlock()
		soon(t, w, a, "pages of xvdb dropped", func() bool { return d.st.Committed == 20 })
		s := status(t, a)
		if len(s.Refusals) != 1 || s.Refusals[0].Name != "xvdb" || s.Refusals[0].Refusals[0].Reason != api.Written || s.Refusals[0].Refusals[0].Pages != 20 {
			t.Errorf("%+v", s.Refusals)
		}
		w.load(d, 20)
		r, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful)
		if err != nil {
			t.Fatal(err)
		}
		if v := vbd(t, r, xvda); v.Custody != "uncertain" || v.Checked != 20 || v.Verdict != "approved" || !strings.Contains(v.Note, "process 8 (cat)") {
			t.Errorf("%+v", v)
		}
		if v := vbd(t, r, xvdb); v.Custody != "certain" || v.Checked != 0 || v.Verdict != "approved" {
			t.Errorf("%+v", v)
		}
	})(t)
}

// TestSwapped: a vbd that is given another disk while the guest runs.
func TestSwapped(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		time.Sleep(100 * time.Millisecond)
		w.mu.Lock()
		other := *w.disks[xvda]
		other.identity = disk.Identity{Name: "/dev/other", Size: 1 << 20, Block: "7:9"}
		w.disks[xvda] = &other
		w.mu.Unlock()
		soon(t, w, a, "pages of xvda dropped", func() bool { return d.st.Committed == 20 })
		w.load(d, 20)
		s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful)
		if v := vbd(t, s, xvda); err != nil || v.Verdict != "approved" || v.Backing != "/dev/other" || v.Custody != "certain" {
			t.Errorf("%+v, %v", v, err)
		}
		if r := status(t, a).Refusals; len(r) != 1 || r[0].Refusals[0].Reason != api.Swapped || r[0].Refusals[0].Pages != 20 {
			t.Errorf("%+v", r)
		}
	})(t)
}

// TestReadBeforeWatched: pages that were read before an agent looked are not
// taken for certain later.
func TestReadBeforeWatched(t *testing.T) {
	bubble(func(t *testing.T) {
		w, dir := newWorld(t), "kept"
		d := w.create("domU-web", webUUID)
		if err := w.WarmcacheEnable(d.info.Domid, 0); err != nil { // by an agent that is no more
			t.Fatal(err)
		}
		w.load(d, 20)
		w.disks[xvda].data[5000]++ // behind everybody's back
		a := w.agent(dir)
		if _, err := a.Enable(ctx(t, 5*time.Second), "domU-web", api.Policy{Content: "none"}); err != nil {
			t.Fatal(err)
		}
		s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful)
		if v := vbd(t, s, xvda); err != nil || v.Custody != "uncertain" || v.Verdict != "refused" || v.Mismatches != 1 {
			t.Errorf("%+v, %v", v, err)
		}
		if v := vbd(t, s, xvdb); v.Verdict != "approved" || v.Checked != 20 {
			t.Errorf("%+v", v)
		}
	})(t)
}

// TestPendingWhileWritten: what the guest is reading while somebody else writes
// may be old, and Xen drops only what it knows.
func TestPendingWhileWritten(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{Content: "none"})
		time.Sleep(100 * time.Millisecond)
		w.mu.Lock()
		d.st.Pending = 3
		w.disks[xvda].written += 8
		w.mu.Unlock()
		soon(t, w, a, "pages of xvda dropped", func() bool { return d.st.Committed == 20 })
		w.load(d, 20)
		s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful)
		if v := vbd(t, s, xvda); err != nil || v.Custody != "uncertain" || v.Checked != 20 {
			t.Errorf("%+v, %v", v, err)
		}
	})(t)
}

// TestGuestAlreadyWrites: a guest that writes from its first moment on, without
// a pause, could have somebody else's writes among its own.
func TestGuestAlreadyWrites(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, dir := running(t, 20, api.Policy{Content: "none"})
		time.Sleep(100 * time.Millisecond)
		w.die(d, xenctl.ShutdownReboot)
		a.Wake()
		time.Sleep(300 * time.Millisecond) // the accounts are closed
		a.Stop()
		w.mu.Lock()
		w.disks[xvda].data[5000]++
		w.disks[xvda].written += 8 // somebody else's, while nobody looks
		w.mu.Unlock()
		time.Sleep(600 * time.Millisecond)
		w.mu.Lock()
		w.disks[xvda].guest[w.domains[0].info.Domid].Written = 64 // of which nothing is on the disk yet
		w.mu.Unlock()
		a = w.agent(dir)
		s := status(t, a)
		if v := vbd(t, *s.Last, xvda); v.Custody != "uncertain" || v.Verdict != "refused" || v.Mismatches != 1 {
			t.Errorf("%+v", v)
		}
	})(t)
}

// TestLateWrites: the backend comes to what a guest left in its ring when the
// agent has looked at the disks already. That is no reason to lose the pages;
// somebody else's write meanwhile is.
func TestLateWrites(t *testing.T) {
	for name, c := range map[string]struct {
		others  uint64 // sectors
		custody string
		verdict api.Verdict
	}{
		"the guest's alone":   {0, "certain", "approved"},
		"somebody else's too": {8, "broken", "refused"},
	} {
		t.Run(name, bubble(func(t *testing.T) {
			w, a, d, _ := running(t, 20, api.Policy{Content: "none"})
			x := w.disks[xvda]
			w.late = []func(*fakeDomain){
				func(d *fakeDomain) { x.guest[d.info.Domid].Written += 24 },
				func(*fakeDomain) { x.written += 24 + c.others },
			}
			w.die(d, xenctl.ShutdownCrash)
			a.Wake()
			s, err := a.Status(ctx(t, 20*time.Second), "domU-web", true)
			if err != nil || s.Last == nil {
				t.Fatalf("%+v, %v", s, err)
			}
			if v := vbd(t, *s.Last, xvda); v.Custody != c.custody || v.Verdict != c.verdict {
				t.Errorf("%+v", v)
			}
			if v := vbd(t, *s.Last, xvdb); v.Verdict != "approved" {
				t.Errorf("the other disk: %+v", v)
			}
		}))
	}
}

// TestBackendNotSeenToGo: the next domain is there before the agent has seen the last
// one's backend go. Who has opened the image file until then counts all the same.
func TestBackendNotSeenToGo(t *testing.T) {
	w := newWorld(t)
	x := w.disks[xvda]
	b := disk.Backing{Identity: x.identity, Path: x.identity.Name}
	access, err := fakeDisks{w}.WatchAccess(b)
	if err != nil {
		t.Fatal(err)
	}
	x.watched.doubt = "somebody opened it"
	a := custody.Open(x.identity, disk.Reading{})
	k := &keeper{rec: &Record{Accounts: map[ident.VBD]*custody.Account{xvda: &a}}}
	d := &usedDisk{backing: b, access: access, draining: true}
	if k.askWatch(xvda, d); a.Doubt != "somebody opened it" || d.access != nil {
		t.Errorf("%+v", a)
	}
}

// TestVersionSkew: with a Xen of another version there is no warm cache, and it
// is said why; nothing hangs.
func TestVersionSkew(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, _, dir := running(t, 20, api.Policy{})
		c := ctx(t, 20*time.Second)
		a.Stop()
		w.mu.Lock()
		w.skew = true
		w.mu.Unlock()
		a = w.agent(dir) // of another version, as it were
		for what, f := range map[string]func() error{
			"enable": func() error { _, err := a.Enable(c, "domU-web", api.Policy{}); return err },
			"reboot": func() error { _, err := a.Reboot(c, "domU-web", api.Graceful); return err },
		} {
			if err := f(); code(err) != api.VersionSkew || !strings.Contains(err.Error(), "another version") {
				t.Errorf("%s: %v", what, err)
			}
		}
		s, err := a.Reboot(c, "domU-web", api.Cold)
		if err != nil || s.Outcome != "cold" || !s.Done {
			t.Errorf("%+v, %v", s, err)
		}
		// One that the guest makes by itself ends, too.
		w.mu.Lock()
		d := w.domains[0]
		w.mu.Unlock()
		w.die(d, xenctl.ShutdownReboot)
		a.Wake()
		last := status(t, a).Last
		if last == nil || last.Sequence != s.Sequence+1 || last.Outcome != "cold" || !strings.Contains(last.Reason, "another version of the warm cache") {
			t.Errorf("%+v", last)
		}
	})(t)
}

// TestImageLost: what Xen keeps of a domain that is down may be needed by others.
func TestImageLost(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, _, _ := running(t, 20, api.Policy{})
		w.set(&w.recreate, false)
		if _, err := a.Reboot(ctx(t, 1500*time.Millisecond), "domU-web", api.Force); code(err) != api.TimedOut {
			t.Fatal(err)
		}
		w.mu.Lock()
		delete(w.images, webUUID)
		w.mu.Unlock()
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			a.Wake()
			s, err := a.Status(ctx(t, time.Second), webUUID.String(), false)
			if err == nil && strings.Contains(s.Message, "gave up the 40 pages") {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%+v, %v", s, err)
			}
		}
		w.mu.Lock()
		w.boots(w.create("domU-web", webUUID))
		w.mu.Unlock()
		if last := status(t, a).Last; last == nil || last.Outcome != "cold" || !strings.Contains(last.Reason, "gave up the 40 pages") {
			t.Errorf("%+v", last)
		}
	})(t)
}

// TestUnadopted: an image that the next domain did not adopt does not wait for
// the one after it.
func TestUnadopted(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		w.set(&w.recreate, false)
		w.die(d, xenctl.ShutdownCrash)
		for { // until it is gone
			w.mu.Lock()
			img := w.images[webUUID]
			if img != nil {
				delete(w.images, webUUID)
				next := w.create("domU-web", webUUID)
				next.info.HVM = false
				w.images[webUUID] = img
				w.mu.Unlock()
				break
			}
			w.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
		}
		soon(t, w, a, "image dropped", func() bool { return w.images[webUUID] == nil })
	})(t)
}
