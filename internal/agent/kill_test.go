package agent

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/internal/toolstack"
	"github.com/warmreboot/warmreboot/xenctl"
)

// life is how much of an agent's work is done before it is killed: so many
// effects on the world outside, the journal included. What it does between two
// effects leaves no trace, so these are all the moments that there are.
type life struct {
	mu      sync.Mutex
	left    int // effects; negative: it is not killed
	effects []string
	over    chan struct{} // closed when it is killed
}

func newLife() *life { return &life{left: -1, over: make(chan struct{})} }

// die kills the agent after n more effects.
func (l *life) die(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.effects = nil
	if l.left = n; n == 0 {
		close(l.over)
	}
}

// survived reports whether the agent had n effects, and goes on. Two looks may have been
// one, so that there was an effect less than the last time: then it is killed at rest.
func (l *life) survived(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.effects) >= n
}

// effect is one: it does not take place, and nothing after it, if the agent is
// dead.
func effect[T any](l *life, what string, f func() T) T {
	l.mu.Lock()
	if l.left == 0 {
		l.mu.Unlock()
		runtime.Goexit()
	}
	result := f()
	l.effects = append(l.effects, what)
	killed := false
	if l.left > 0 {
		l.left--
		killed = l.left == 0
	}
	l.mu.Unlock()
	if killed {
		close(l.over)
		runtime.Goexit()
	}
	return result
}

type pages struct {
	n   uint64
	err error
}

type mortalXen struct {
	hypervisor.Xen
	*life
}

func (x mortalXen) WarmcacheEnable(d ident.Domid, ttl time.Duration) error {
	return effect(x.life, "enable", func() error { return x.Xen.WarmcacheEnable(d, ttl) })
}

func (x mortalXen) WarmcacheArm(d ident.Domid, ttl time.Duration) error {
	return effect(x.life, "arm", func() error { return x.Xen.WarmcacheArm(d, ttl) })
}

func (x mortalXen) WarmcacheVerdict(d ident.Domid, vbd ident.VBD, v xenctl.Verdict) (uint64, error) {
	r := effect(x.life, fmt.Sprintf("verdict %s %v", vbd.Name(), v), func() pages {
		n, err := x.Xen.WarmcacheVerdict(d, vbd, v)
		return pages{n, err}
	})
	return r.n, r.err
}

func (x mortalXen) WarmcacheDrop(d ident.Domid) (uint64, error) {
	r := effect(x.life, "drop", func() pages { n, err := x.Xen.WarmcacheDrop(d); return pages{n, err} })
	return r.n, r.err
}

func (x mortalXen) WarmcacheDropVBD(d ident.Domid, vbd ident.VBD) (uint64, error) {
	r := effect(x.life, "drop vbd", func() pages { n, err := x.Xen.WarmcacheDropVBD(d, vbd); return pages{n, err} })
	return r.n, r.err
}

func (x mortalXen) WarmcacheDropPFNs(d ident.Domid, p []ident.PFN) (uint64, error) {
	r := effect(x.life, "drop pfns", func() pages { n, err := x.Xen.WarmcacheDropPFNs(d, p); return pages{n, err} })
	return r.n, r.err
}

func (x mortalXen) DropImage(u ident.UUID) (uint64, error) {
	r := effect(x.life, "drop image", func() pages { n, err := x.Xen.DropImage(u); return pages{n, err} })
	return r.n, r.err
}

type mortalStore struct {
	Store
	*life
}

func (s mortalStore) Write(ctx context.Context, path, value string) error {
	return effect(s.life, "xenstore", func() error { return s.Store.Write(ctx, path, value) })
}

type mortalLifecycle struct {
	toolstack.Lifecycle
	*life
}

func (c mortalLifecycle) Reboot(ctx context.Context, d ident.Domid) error {
	return effect(c.life, "reboot", func() error { return c.Lifecycle.Reboot(ctx, d) })
}

func (c mortalLifecycle) ForceReboot(ctx context.Context, d ident.Domid) error {
	return effect(c.life, "force", func() error { return c.Lifecycle.ForceReboot(ctx, d) })
}

type mortalJournal struct {
	Records
	*life
}

func (j mortalJournal) Save(r *Record) error {
	return effect(j.life, "save", func() error { return j.Records.Save(r) })
}

func (j mortalJournal) Remove(u ident.UUID) error {
	return effect(j.life, "remove", func() error { return j.Records.Remove(u) })
}

type mortalHistory struct {
	History
	*life
}

func (h mortalHistory) Add(e api.HistoryEntry) (id uint64, err error) {
	return id, effect(h.life, "history", func() error { id, err = h.History.Add(e); return err })
}

func (l *life) options(o *Options) {
	o.Xen, o.Store = mortalXen{o.Xen, l}, mortalStore{o.Store, l}
	o.Lifecycle, o.Journal = mortalLifecycle{o.Lifecycle, l}, mortalJournal{o.Journal, l}
	o.History = mortalHistory{o.History, l}
}

// killing is a reboot during which the agent is killed.
type killing struct {
	name string
	mode api.Trigger // "" if the guest crashes
	// behind: while the agent is dead somebody writes to xvda.
	behind bool
	// broken: two of the guest's entries contradict each other.
	broken bool
}

const killTTL = 77

// TestKilledAfterEveryEffect kills the agent after each thing that it does in a
// reboot, and starts it again. The reboot ends all the same; nothing is approved
// that differs from the disk; there is never a second domain, nor a second
// reboot; what Xen keeps has a time to live.
func TestKilledAfterEveryEffect(t *testing.T) {
	for _, c := range []killing{
		{name: "graceful", mode: api.Graceful},
		{name: "crash"},
		{name: "force, disk changed behind", mode: api.Force, behind: true},
		{name: "crash, disk changed behind", behind: true},
		{name: "graceful, bad entries", mode: api.Graceful, broken: true},
		{name: "cold", mode: api.Cold},
	} {
		t.Run(c.name, func(t *testing.T) {
			var all []string
			synctest.Test(t, func(t *testing.T) { all = c.run(t, -1) }) // how many there are
			t.Logf("%d effects: %s", len(all), strings.Join(all, ", "))
			if len(all) < 10 {
				t.Fatalf("only %d effects", len(all))
			}
			for n := range len(all) + 1 {
				t.Run(fmt.Sprint(n), bubble(func(t *testing.T) { c.run(t, n) }))
			}
		})
	}
}

// run kills the agent after n effects of a reboot, or never if n is negative,
// and returns the effects.
func (c killing) run(t *testing.T, n int) []string {
	w, dir := newWorld(t), "kept"
	w.downTime = 150 * time.Millisecond
	d := w.create("domU-web", webUUID)
	w.approved = func(d *fakeDomain, vbd ident.VBD) { w.mustEqual(d, vbd, n) }
	l := newLife()
	a := w.start(dir, l.options)
	defer w.drive(a)()
	if _, err := a.Enable(ctx(t, 20*time.Second), "domU-web", api.Policy{Content: "none", TTLSeconds: killTTL}); err != nil {
		t.Errorf("%d: %v", n, err)
		return nil
	}
	w.load(d, 20)
	if c.broken {
		w.mu.Lock()
		d.entries[1].Sector = d.entries[0].Sector
		w.mu.Unlock()
	}
	time.Sleep(100 * time.Millisecond) // the accounts are opened
	l.die(n)
	// It does not return, or fails, if the agent is killed.
	first := a
	w.going.Go(func() { _ = c.begin(w, d, first) })
	if n < 0 {
		c.ends(t, w, a, dir, n)
		return l.effects
	}
	select {
	case <-l.over:
	case <-time.After(20 * time.Second):
		if l.survived(n) {
			t.Errorf("%d: the agent goes on, after %v", n, l.effects)
			return nil
		}
	}
	a.Stop()
	last := "nothing"
	if len(l.effects) > 0 {
		last = l.effects[len(l.effects)-1]
	}
	if c.behind {
		w.mu.Lock()
		w.disks[xvda].data[3*4096]++
		w.disks[xvda].written += 8
		w.mu.Unlock()
	}
	time.Sleep(time.Duration(n%3) * 100 * time.Millisecond) // down, or up again, meanwhile
	a = w.agent(dir)
	defer w.drive(a)()
	if w.asked == 0 && c.mode != "" {
		// Killed before it could ask for the reboot: nothing has happened.
		time.Sleep(300 * time.Millisecond)
		w.mu.Lock()
		alive := d.info.Alive()
		w.mu.Unlock()
		if s := a.keeper(webUUID).status(); s.Current != nil || s.Last != nil || !alive {
			t.Errorf("%d, after %s: a reboot that nobody asked for: %+v", n, last, s)
		}
		if err := c.begin(w, d, a); err != nil && code(err) != api.CameBackCold {
			t.Errorf("%d, after %s: %v", n, last, err)
		}
	}
	c.ends(t, w, a, dir, n)
	return l.effects
}

// drive wakes the agent all the time, as events of xenstore would.
func (w *world) drive(a *Agent) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	w.going.Go(func() {
		for ctx.Err() == nil {
			a.Wake()
			time.Sleep(20 * time.Millisecond)
		}
	})
	return cancel
}

func (c killing) begin(w *world, d *fakeDomain, a *Agent) error {
	if c.mode == "" {
		w.die(d, xenctl.ShutdownCrash)
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := a.Reboot(ctx, "domU-web", c.mode)
	return err
}

// mustEqual asserts that held pages of a vbd equal the disk.
func (w *world) mustEqual(d *fakeDomain, vbd ident.VBD, n int) {
	for p, e := range cachemap.NewView(d.entries, d.held).All() {
		if e.VBD != vbd || d.reuse[p/64]>>(p%64)&1 == 0 {
			continue
		}
		at := e.Sector * cachemap.SectorSize
		if !bytes.Equal(d.memory[p*4096:(p+1)*4096], w.disks[vbd].data[at:at+4096]) {
			w.t.Errorf("%d: %s is approved, but PFN %d differs from the disk", n, vbd.Name(), p)
		}
	}
}

// ends asserts that the reboot ends as it should.
func (c killing) ends(t *testing.T, w *world, a *Agent, dir string, n int) {
	var s api.DomainStatus
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if s = a.keeper(webUUID).status(); s.Last != nil && s.Current == nil {
			break
		}
		if time.Now().After(end) {
			t.Errorf("%d: the reboot has not ended: %+v", n, s.Current)
			return
		}
	}
	last := s.Last
	if !last.Done || last.Sequence != 1 || last.DomidAfter != 2 ||
		last.Outcome != "warm" && (last.Outcome != "cold" || last.Reason == "") {
		t.Errorf("%d: %+v", n, *last)
	}
	if c.mode == api.Cold && n < 0 && last.Outcome != "cold" || c.mode != api.Cold && last.Outcome != "warm" {
		t.Errorf("%d: came back %s: %s", n, last.Outcome, last.Reason)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.images) != 0 || len(w.domains) != 1 || w.nextID != 3 || w.asked > 1 {
		t.Errorf("%d: left: %d images, %d domains of %d, asked for %d reboots", n, len(w.images), len(w.domains), w.nextID-1, w.asked)
	}
	if now := w.domains[0]; now.ttl != killTTL*time.Second || !now.st.Armed {
		t.Errorf("%d: what is kept of the new domain would live for %v, armed: %v", n, now.ttl, now.st.Armed)
	}
	if r, err := decodeRecord(w.kept[dir].raw(webUUID)); err != nil || r.Reboot != nil || r.Intent != nil || r.Sequence != 1 || r.Domid != 2 {
		t.Errorf("%d: journal: %+v, %v", n, r, err)
	}
	if history := w.kept[dir].history(); len(history) != 1 {
		t.Errorf("%d: %d entries in the history", n, len(history))
	}
}
