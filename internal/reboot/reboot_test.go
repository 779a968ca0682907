package reboot

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl/facts"
)

var (
	web   = ident.UUID{1}
	start = time.Unix(1e9, 0)
)

// host is a machine on which a domain lives: Xen, a toolstack and a guest, as far as
// Next sees them. What the guest and the toolstack do is chosen at random; and the one
// who looks may be killed between any two effects.
type host struct {
	t   *testing.T
	rng *rand.Rand
	now time.Time

	domains []Domain
	nextID  ident.Domid
	image   uint64 // pages that are kept
	// ended, by domid: how a boot ended that pages were approved for.
	approved map[ident.Domid]bool
	well     map[ident.Domid]bool // the guest said that its restore was over
	booted   []ident.Domid        // in order; those that were restored or migrated in are not
	clone    map[ident.Domid]bool
	away     map[ident.Domid]bool
	judged   map[ident.Domid]int // verdicts that were complete, and saved
	enabled  map[ident.Domid]bool
	intents  map[ident.Domid]api.Trigger

	state   State
	killed  bool // during this look
	saved   []byte
	history map[uint64][]api.Summary // by sequence
	trace   []string
}

func newHost(t *testing.T, seed uint64) *host {
	h := &host{t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: start, nextID: 1,
		approved: map[ident.Domid]bool{}, well: map[ident.Domid]bool{}, clone: map[ident.Domid]bool{}, away: map[ident.Domid]bool{},
		judged: map[ident.Domid]int{}, enabled: map[ident.Domid]bool{}, intents: map[ident.Domid]api.Trigger{}, history: map[uint64][]api.Summary{},
		state: State{UUID: web, Name: "web", Enabled: true}}
	h.save()
	return h
}

func (h *host) fail(format string, args ...any) {
	h.t.Helper()
	h.t.Fatalf("%s\nafter:\n  %s", fmt.Sprintf(format, args...), strings.Join(h.trace, "\n  "))
}

func (h *host) note(format string, args ...any) {
	h.trace = append(h.trace, fmt.Sprintf(format, args...))
}

func (h *host) save() {
	raw, err := json.Marshal(h.state)
	if err != nil {
		h.t.Fatal(err)
	}
	h.saved = raw
}

// kill forgets what was not saved.
func (h *host) kill() {
	h.note("killed")
	h.killed = true
	h.state = State{}
	if err := json.Unmarshal(h.saved, &h.state); err != nil {
		h.t.Fatal(err)
	}
}

// live returns the domain that is the real one, nil if there is none.
func (h *host) live() *Domain {
	for i := range h.domains {
		if d := &h.domains[i]; !h.clone[d.Domid] {
			return d
		}
	}
	return nil
}

func (h *host) remove(id ident.Domid) {
	h.domains = slices.DeleteFunc(h.domains, func(d Domain) bool { return d.Domid == id })
}

// create is xl create: it adopts what is kept.
func (h *host) create(paused bool) {
	d := Domain{DomainInfo: facts.DomainInfo{Domid: h.nextID, UUID: web, HVM: true, Paused: paused}, Name: "web", Built: true}
	h.nextID++
	d.Status = facts.WarmcacheStatus{Preserved: h.image, Adopted: h.image, Held: h.image}
	h.image = 0
	h.domains = append(h.domains, d)
	h.booted = append(h.booted, d.Domid)
	h.note("%d is created, paused %v, holds %d", d.Domid, paused, d.Status.Held)
}

// event is something that happens on the machine.
func (h *host) event() {
	d := h.live()
	if d == nil {
		switch h.rng.IntN(4) {
		case 0, 1:
			h.create(h.rng.IntN(2) == 0)
		case 2:
			h.image = 0
			h.note("the image is dropped")
		}
		return
	}
	st := &d.Status
	switch k := h.rng.IntN(12); {
	case d.Paused && k < 6:
		d.Paused = false
		h.note("%d runs", d.Domid)
	case d.Paused && k == 6:
		h.note("%d is taken away before it ran", d.Domid)
		h.remove(d.Domid)
	case d.Paused:
	case d.Shutdown && d.Reason == facts.ShutdownSuspend:
		if k < 4 {
			d.Shutdown = false
			h.note("%d goes on", d.Domid)
		} else {
			h.note("%d has left", d.Domid)
			h.remove(d.Domid)
			if k > 8 { // and is back
				h.create(false)
				if h.state.Suspended { // else nobody has seen that it was no boot
					h.booted = h.booted[:len(h.booted)-1]
				}
				h.domains[len(h.domains)-1].Status = facts.WarmcacheStatus{}
			}
		}
	case d.Shutdown:
		if st.Armed && st.Attached {
			h.image = st.Committed
		}
		h.note("%d is destroyed, %d pages are kept", d.Domid, h.image)
		h.remove(d.Domid)
		if d.Reason != facts.ShutdownPoweroff && k < 8 {
			h.create(k < 4)
		}
	case k < 4 && !st.Attached:
		st.Attached = true
		h.note("%d attaches", d.Domid)
	case k < 6 && st.Attached && (st.Adopted == 0 || h.approved[d.Domid]):
		st.Report = facts.WarmcacheReport{Done: true, Restored: st.Held, Refused: map[string]uint64{}}
		st.Committed, st.Held = 40, 0
		h.well[d.Domid] = true
		h.note("%d is through", d.Domid)
	case k == 6:
		d.Shutdown, d.Reason = true, []facts.ShutdownReason{facts.ShutdownCrash, facts.ShutdownReboot, facts.ShutdownPoweroff}[h.rng.IntN(3)]
		h.note("%d goes down, reason %d", d.Domid, d.Reason)
	case k == 7 && h.rng.IntN(3) == 0:
		d.Shutdown, d.Reason = true, facts.ShutdownSuspend
		h.note("%d is suspended", d.Domid)
	case k == 8 && h.rng.IntN(3) == 0:
		h.note("%d is taken away", d.Domid)
		if st.Armed && st.Attached {
			h.image = st.Committed
		}
		h.remove(d.Domid)
	case k == 9 && h.rng.IntN(4) == 0:
		h.intents[d.Domid] = []api.Trigger{api.Graceful, api.Cold}[h.rng.IntN(2)]
		if h.state.Reboot == nil && h.state.Domid == d.Domid {
			h.state.Intent = &Intent{Mode: h.intents[d.Domid], Asker: Asker{By: api.ByOperator}, Domid: d.Domid, At: h.now}
			h.save()
			h.note("%d is to reboot, %s", d.Domid, h.intents[d.Domid])
		}
	case k == 10 && h.rng.IntN(6) == 0 && len(h.domains) == 1 && h.state.Domid == d.Domid:
		c := Domain{DomainInfo: facts.DomainInfo{Domid: h.nextID, UUID: web}, Name: "copy", Built: true}
		h.clone[c.Domid] = true
		h.nextID++
		h.domains = append(h.domains, c)
		h.note("%d is a clone", c.Domid)
		h.look(1 << 30) // while both run
	}
}

// look is one look of the agent's, which is killed after so many effects.
func (h *host) look(effects int) {
	o := Observation{Domains: slices.Clone(h.domains), ImageErr: facts.ErrNoImage}
	if h.image > 0 {
		o.Image, o.ImageErr = facts.Image{UUID: web, Pages: h.image}, nil
	}
	h.killed = false
	h.advance(o, &effects)
}

func (h *host) advance(o Observation, effects *int) {
	before, _ := json.Marshal(h.state)
	next, todo := Next(h.state, o, h.now)
	if after, _ := json.Marshal(h.state); string(before) != string(after) {
		h.fail("Next has changed what it was given")
	}
	if again, todo2 := Next(h.state, o, h.now); !reflect.DeepEqual(next, again) || len(todo) != len(todo2) {
		h.fail("Next says something else the second time")
	}
	h.state = next
	for _, e := range todo {
		if e.Kind == Log {
			continue
		}
		if *effects--; *effects < 0 {
			h.kill()
			return
		}
		h.note("  %s", e.Kind)
		if e.Domain != nil && h.clone[e.Domain.Domid] {
			h.fail("the clone is dealt with: %s", e.Kind)
		}
		switch e.Kind {
		case Save:
			h.save()
			if b := h.state.Reboot; b != nil && b.Decided && h.judged[h.state.Domid] == 0 {
				h.judged[h.state.Domid] = 1
			}
		case Begin:
			st := &h.find(e.Domain.Domid).Status
			st.Enabled, st.Armed = true, true
			h.enabled[e.Domain.Domid] = true
			h.image = 0
		case Enter:
			same := h.history[e.Summary.Sequence]
			if len(same) == 0 || !same[len(same)-1].Started.Equal(e.Summary.Started) {
				h.history[e.Summary.Sequence] = append(same, *e.Summary)
			}
		case Judge:
			if h.judged[e.Domain.Domid] > 0 {
				h.fail("domain %d has its verdict, and is judged again", e.Domain.Domid)
			}
			if !h.judge(e.Domain, effects) {
				return
			}
			o.Domains = slices.Clone(h.domains)
			o.Judged = true
			h.advance(o, effects)
			return
		}
	}
}

func (h *host) find(id ident.Domid) *Domain {
	for i := range h.domains {
		if h.domains[i].Domid == id {
			return &h.domains[i]
		}
	}
	h.fail("domain %d is dealt with, and is not there", id)
	return nil
}

// judge is what the agent does for a verdict, by the rules that are not Next's: it
// approves what can be approved. It reports whether it is done.
func (h *host) judge(d *Domain, effects *int) bool {
	b := h.state.Reboot
	if d.Status.Held == 0 {
		return true
	}
	if b.Fuse != nil || b.Summary.Trigger == api.Cold {
		h.find(d.Domid).Status.Held = 0
		return true
	}
	if !d.Status.Attached {
		return false
	}
	b.Attempted = true
	h.save()
	if *effects--; *effects < 0 {
		h.kill()
		return false
	}
	h.approve(d.Domid)
	b.Summary.PagesApproved = d.Status.Held
	if *effects--; *effects < 0 {
		h.kill()
		return false
	}
	return true
}

// approve is that pages are approved: by the rules that hold whatever happens, only if
// the last boot that pages were approved for has ended well.
func (h *host) approve(id ident.Domid) {
	h.note("%d: pages are approved", id)
	i := slices.Index(h.booted, id)
	if i > 0 {
		if last := h.booted[i-1]; h.approved[last] && !h.well[last] {
			h.fail("the restore of %d did not end well, and pages are approved for %d", last, id)
		}
		if h.intents[h.booted[i-1]] == api.Cold && h.state.Reboot.Summary.Trigger == api.Cold {
			h.fail("a normal reboot was asked for, and pages are approved for %d", id)
		}
	}
	h.approved[id] = true
}

// TestRandomLives: whatever happens, and whoever is killed, in every life
//   - nothing is approved after a restore that did not end well,
//   - no domain that has its verdict is judged again, and a clone is never touched,
//   - each domain that is taken up is one that Xen tracks, with its time to live,
//   - a suspended domain is in no reboot,
//   - a reboot is entered into the history once, and in the end there is none under way.
func TestRandomLives(t *testing.T) {
	lives := 1500
	if testing.Short() {
		lives = 200
	}
	phases := map[Phase]int{}
	outcomes := map[string]int{}
	for seed := range lives {
		h := newHost(t, uint64(seed))
		h.create(false)
		for range 60 {
			h.event()
			h.now = h.now.Add(time.Duration(h.rng.IntN(2000)) * time.Millisecond)
			if h.rng.IntN(20) == 0 {
				h.now = h.now.Add(time.Duration(h.rng.IntN(4000)-1000) * time.Second) // the clock is set
			}
			for range h.rng.IntN(3) {
				effects := 1 << 30
				if h.rng.IntN(6) == 0 {
					effects = h.rng.IntN(8)
				}
				h.look(effects)
				h.check(phases)
			}
		}
		h.settle()
		for _, all := range h.history {
			for _, s := range all {
				outcomes[string(s.Outcome)]++
			}
			if len(all) != 1 {
				h.fail("entered %d times: %+v", len(all), all)
			}
		}
	}
	for _, p := range []Phase{Running, Down, Off, Up, Judgement, Restore, Away, Gone} {
		if phases[p] == 0 {
			t.Errorf("never in phase %s", p)
		}
	}
	if outcomes["warm"] == 0 || outcomes["cold"] == 0 {
		t.Errorf("%v", outcomes)
	}
	t.Logf("phases %v, outcomes %v", phases, outcomes)
}

// check is what holds after each look.
func (h *host) check(phases map[Phase]int) {
	s := &h.state
	p := s.Phase(h.now)
	phases[p]++
	if d := h.live(); d != nil && s.Domid == d.Domid {
		if !h.enabled[d.Domid] {
			h.fail("domain %d is taken up, and Xen does not track it", d.Domid)
		}
		if d.Shutdown && d.Reason == facts.ShutdownSuspend && p != Away && !h.killed {
			h.fail("domain %d is suspended, and its phase is %s", d.Domid, p)
		}
	}
	if p == Gone && s.Reboot != nil || p == Unseen && s.Reboot != nil {
		h.fail("%s, and in a reboot: %+v", p, s.Reboot)
	}
	if h.clone[s.Domid] {
		h.fail("the clone is taken for the domain")
	}
}

// settle lets all go well from here on: then no reboot stays under way.
func (h *host) settle() {
	for range 400 {
		d := h.live()
		switch {
		case d == nil:
			h.create(false)
		case d.Shutdown:
			h.remove(d.Domid)
			continue
		case d.Paused:
			d.Paused = false
		case !d.Status.Attached:
			d.Status.Attached = true
		case d.Status.Adopted > 0 && !d.Status.Report.Done && (h.approved[d.Domid] || d.Status.Held == 0):
			d.Status.Report.Done = true
			h.well[d.Domid] = true
		}
		h.now = h.now.Add(time.Second)
		h.look(1 << 30)
		if d != nil && h.state.Phase(h.now) == Running && h.state.Domid == d.Domid {
			return
		}
	}
	h.fail("a reboot stays under way: phase %s, %+v", h.state.Phase(h.now), h.state.Reboot)
}

// TestPhasesAreDocumented: docs/ARCHITECTURE.md has each phase by its name, and no other.
func TestPhasesAreDocumented(t *testing.T) {
	source, err := os.ReadFile("state.go")
	if err != nil {
		t.Fatal(err)
	}
	var phases []string
	for _, m := range regexp.MustCompile(`(?m)^\t\w+ +Phase += "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		phases = append(phases, m[1])
	}
	text, err := os.ReadFile("../../docs/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## One reboot\n")
	section, _, ok2 := strings.Cut(section, "\n## ")
	if !ok || !ok2 {
		t.Fatal("there is no such section")
	}
	var named []string
	for _, m := range regexp.MustCompile(`\*\*(\w+)\.?\*\*`).FindAllStringSubmatch(section, -1) {
		named = append(named, strings.ToLower(m[1]))
	}
	slices.Sort(phases)
	slices.Sort(named)
	if len(phases) < 9 || !slices.Equal(phases, named) {
		t.Errorf("the phases are %v, and docs/ARCHITECTURE.md has %v", phases, named)
	}
}

// TestGuestThatDoesNotTrack: a guest whose kernel does not, or not so that Xen
// understands it, never attaches. It is waited for, though not as long if the last one
// did not track either.
func TestGuestThatDoesNotTrack(t *testing.T) {
	for _, c := range []struct {
		ran       time.Duration // ago
		untracked bool
		adopted   uint64
		over      bool
	}{
		{AttachWait + time.Second, false, 0, true},
		{AttachWait + time.Second, false, 5, true},
		{AttachWait + time.Second, true, 5, true},
		{attachAgainWait + time.Second, true, 0, true},
		{attachAgainWait + time.Second, true, 5, false},
		{attachAgainWait + time.Second, false, 0, false},
		{time.Second, true, 0, false},
	} {
		s := State{UUID: web, Enabled: true, Domid: 2, Reboot: &Reboot{Ran: start.Add(-c.ran), Untracked: c.untracked, Decided: true}}
		s, _ = Next(s, Observation{Domains: []Domain{{DomainInfo: facts.DomainInfo{Domid: 2, UUID: web}, Built: true,
			Status: facts.WarmcacheStatus{Enabled: true, Adopted: c.adopted}}}}, start)
		if over := s.Last != nil; over != c.over || over && (s.Last.Outcome != "cold" || !strings.Contains(s.Last.Reason, "version of the interface")) {
			t.Errorf("%+v: %+v", c, s.Last)
		}
	}
}

// TestFuseOfSilence: pages were approved, and the guest is never heard of: the next
// boot restores nothing.
func TestFuseOfSilence(t *testing.T) {
	s := State{UUID: web, Enabled: true, Domid: 2, Reboot: &Reboot{Attempted: true, Decided: true, Ran: start.Add(-AttachWait - time.Second)}}
	s, _ = Next(s, Observation{Domains: []Domain{{DomainInfo: facts.DomainInfo{Domid: 2, UUID: web}, Built: true,
		Status: facts.WarmcacheStatus{Enabled: true, Adopted: 5}}}}, start)
	if s.Reboot != nil || s.Fuse == nil {
		t.Errorf("%+v", s)
	}
}
