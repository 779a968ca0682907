package agent

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/reboot"
	"github.com/warmreboot/warmreboot/xenctl"
)

// writes is that a boot loader writes to a block of xvda, and that Xen sees it.
func (w *world) writes(d *fakeDomain, block int) {
	x := w.disks[xvda]
	x.data[block*4096]++
	x.written += 8
	x.guest[d.info.Domid].Written += 8
	d.st.EarlyIO = true
}

// TestBootLoaderWrites: what is written before the kernel has attached is announced
// by nobody. All pages are compared then, after it has attached; those of the blocks
// that were written are dropped, the others come back.
func TestBootLoaderWrites(t *testing.T) {
	for name, c := range map[string]struct {
		policy  api.Policy
		away    bool // the agent, when the guest goes down
		loader  func(*world, *fakeDomain)
		verdict api.Verdict
		held    uint64
		why     api.Reason // of the first refusal
		note    string
	}{
		"a block": {loader: func(w *world, d *fakeDomain) { w.writes(d, 3) },
			verdict: "approved", held: 19, why: api.EarlyIO, note: "boot loader"},
		"nothing to do with a page that is kept": {loader: func(w *world, d *fakeDomain) { w.writes(d, 200) },
			verdict: "approved", held: 20, note: "boot loader"},
		"with a connection of its own": {loader: func(w *world, d *fakeDomain) {
			w.writes(d, 3)
			w.going.Go(func() {
				time.Sleep(time.Second)
				w.mu.Lock()
				defer w.mu.Unlock()
				w.disks[xvda].guest[d.info.Domid] = &disk.GuestIO{}
			})
		}, verdict: "approved", held: 19, why: api.EarlyIO, note: "boot loader"},
		"from pages that stay granted": {loader: func(w *world, d *fakeDomain) { w.writes(d, 3); d.st.EarlyIO = false },
			verdict: "approved", held: 19, why: api.EarlyIO, note: "boot loader"},
		"and the policy is to refuse": {policy: api.Policy{Uncertain: "refuse"}, loader: func(w *world, d *fakeDomain) { w.writes(d, 3) },
			verdict: "refused", held: 20, why: api.Uncertain},
		"and nobody was watching before": {away: true, loader: func(w *world, d *fakeDomain) { w.writes(d, 3) },
			verdict: "refused", held: 20, why: api.Content},
		"somebody else meanwhile": {loader: func(w *world, d *fakeDomain) { w.writes(d, 3); w.disks[xvda].written += 8 },
			verdict: "refused", held: 20, why: api.Written},
		"only the last one's did": {loader: func(_ *world, d *fakeDomain) { d.st.EarlyIO = true },
			verdict: "approved", held: 20, note: "boot loader"},
	} {
		t.Run(name, bubble(func(t *testing.T) {
			c.policy.Content = "none"
			w, a, d, dir := running(t, 20, c.policy)
			w.approved = func(d *fakeDomain, vbd ident.VBD) {
				if !d.st.Attached {
					t.Error("approved before the kernel has attached")
				}
				w.mustEqual(d, vbd, 0)
			}
			time.Sleep(time.Second)
			w.loader = func(d *fakeDomain) { c.loader(w, d) }
			if c.away {
				a.Stop()
			}
			w.die(d, xenctl.ShutdownReboot)
			if c.away {
				time.Sleep(2 * time.Second)
				a = w.agent(dir)
			} else {
				a.Wake()
			}
			soon(t, w, a, "it is back", func() bool { return len(w.domains) == 1 && w.domains[0].info.Domid == 2 })
			s := status(t, a)
			if s.Last == nil {
				t.Fatal("no reboot")
			}
			v := vbd(t, *s.Last, xvda)
			if v.Verdict != c.verdict || v.Held != c.held || !strings.Contains(v.Note, c.note) {
				t.Errorf("%+v", v)
			}
			if c.why == "" != (len(v.Refusals) == 0) || c.why != "" && v.Refusals[0].Reason != c.why {
				t.Errorf("%+v", v.Refusals)
			}
			if s.Last.PagesRestored != s.Last.PagesApproved {
				t.Errorf("%+v", s.Last)
			}
		}))
	}
}

// TestNeverAttaches: pages of a guest whose kernel does not track are not approved.
func TestNeverAttaches(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		w.untold = true
		w.approved = func(*fakeDomain, ident.VBD) { t.Error("approved") }
		w.die(d, xenctl.ShutdownReboot)
		a.Wake()
		time.Sleep(reboot.AttachWait + 5*time.Second)
		s, err := a.Status(ctx(t, time.Second), "domU-web", false)
		if err != nil || s.Current != nil || s.Last == nil || s.Last.Outcome != "cold" || !strings.Contains(s.Last.Reason, "does not track") {
			t.Errorf("%+v, %+v, %v", s.Current, s.Last, err)
		}
		if s.Message != "" {
			t.Errorf("%q", s.Message)
		}
	})(t)
}

// TestBootLoaderIsNamed: a boot loader's own connection to the disk is gone when its writes
// are accounted for, so that they look like somebody else's. Whoever reads the log is told
// what it may have been; not of what is written later.
func TestBootLoaderIsNamed(t *testing.T) {
	bubble(func(t *testing.T) {
		w := newWorld(t)
		var log strings.Builder
		a := w.start("kept", func(o *Options) { o.Log = slog.New(slog.NewTextHandler(locked{&w.mu, &log}, nil)) })
		d := w.create("domU-web", webUUID)
		if _, err := a.Enable(ctx(t, time.Second), "domU-web", api.Policy{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		said := func() string {
			w.mu.Lock()
			defer w.mu.Unlock()
			all := log.String()
			log.Reset()
			return all
		}
		said()
		w.mu.Lock()
		w.writes(d, 3)
		w.disks[xvda].guest[1] = &disk.GuestIO{} // the kernel's connection
		w.mu.Unlock()
		time.Sleep(5 * time.Second)
		if all := said(); !strings.Contains(all, "somebody else than the guest") || !strings.Contains(all, "boot loader") {
			t.Error(all)
		}
		w.load(d, 20)
		time.Sleep(5 * time.Second)
		for range 2 {
			w.mu.Lock()
			w.disks[xvda].written += 8
			w.mu.Unlock()
			time.Sleep(5 * time.Second)
			if all := said(); strings.Contains(all, "boot loader") || !strings.Contains(all, "somebody else than the guest") {
				t.Error(all)
			}
		}
	})(t)
}

// locked is a builder that several write to.
type locked struct {
	mu *sync.Mutex
	b  *strings.Builder
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
