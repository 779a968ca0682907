package model

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/reboot"
	"github.com/warmreboot/warmreboot/xenctl/facts"
)

var lifetimes = flag.Uint64("lives", 4000, "random lives in which the agent's core drives the model")

// driven is a world whose agent is the real one's core: reboot.Next says when a domain
// is taken up, when a verdict is due and what for, and what is journalled. What a
// verdict is found by is the model's: custody and comparison.
type driven struct {
	World
	random
	states [nUUIDs]reboot.State
	saved  [nUUIDs][]byte
	now    time.Time
	trace  []string

	adopted map[ident.Domid]uint64
	// Of the domain that a UUID had last: pages were approved, and all of them were gone.
	approvedFor, well [nUUIDs]ident.Domid
	late              [nUUIDs]ident.Domid // it was not waited for any longer

	seen     map[reboot.Phase]int
	approved int
	outcomes map[string]int
}

// driverless are operations of the model's own agent, and those that no toolstack
// does: the driver does the former.
var driverless = []string{"start", "reboot", "rename", "judge", "poll", "kill the agent", "start the agent", "enable", "disable", "disarm"}

func (d *driven) reset(rules Rules, seed uint64) {
	seen, outcomes, approved := d.seen, d.outcomes, d.approved
	*d = driven{random: random(seed ^ 0x5eed), now: time.Unix(1e9, 0), adopted: map[ident.Domid]uint64{}, seen: seen, outcomes: outcomes, approved: approved}
	d.Reset(rules)
	for u := range d.states {
		d.states[u] = reboot.State{UUID: ident.UUID{byte(u + 1)}, Name: fmt.Sprint("dom", u), Enabled: true}
		d.save(u)
	}
}

func (d *driven) save(u int) {
	raw, err := json.Marshal(d.states[u])
	if err != nil {
		panic(err)
	}
	d.saved[u] = raw
}

func (d *driven) note(format string, args ...any) {
	d.trace = append(d.trace, fmt.Sprintf(format, args...))
}

// domid is that of the domain that a UUID has now.
func (d *driven) domid(u int) ident.Domid { return ident.Domid(1 + u*1000 + int(d.born[u])) }

// observe is what the agent sees of a UUID.
func (d *driven) observe(u int) reboot.Observation {
	o := reboot.Observation{ImageErr: facts.ErrNoImage}
	s := d.find(uint8(u))
	if s == none {
		if i := d.findImage(uint8(u)); i != none {
			o.Image, o.ImageErr = facts.Image{UUID: d.states[u].UUID}, nil
			for _, f := range d.images[i].frames {
				if f != none {
					o.Image.Pages++
				}
			}
		}
		return o
	}
	dom := &d.doms[s]
	seen := reboot.Domain{Name: d.states[u].Name, Built: dom.phase != building || d.full(s),
		DomainInfo: facts.DomainInfo{Domid: d.domid(u), UUID: d.states[u].UUID, HVM: dom.kind != pv, Paused: dom.phase == building}}
	if dom.phase == suspended {
		seen.Shutdown, seen.Reason = true, facts.ShutdownSuspend
	}
	if !dom.wc.enabled {
		seen.Err = errors.New("the warm cache is not enabled")
	}
	st := &seen.Status
	st.Enabled, st.Armed, st.Attached = dom.wc.enabled, dom.wc.armed, dom.wc.attached
	for p := range dom.wc.pages {
		if dom.wc.pages[p].reuse {
			st.Committed++
		}
		if dom.wc.pages[p].held {
			st.Held++
		}
	}
	st.Preserved, st.Adopted = d.adopted[seen.Domid], d.adopted[seen.Domid]
	if st.Attached && st.Held == 0 && st.Adopted > 0 {
		st.Report = facts.WarmcacheReport{Done: true, Restored: st.Adopted}
	}
	o.Domains = []reboot.Domain{seen}
	return o
}

// full reports whether a domain that is being built has all its memory.
func (d *driven) full(s int8) bool {
	for p := range d.doms[s].p2m {
		if d.doms[s].p2m[p].typ == p2mHole {
			return false
		}
	}
	return true
}

// look is one look of the agent's at a UUID, in which it may be killed after any effect.
func (d *driven) look(u int) {
	d.now = d.now.Add(time.Duration(d.next()%3000) * time.Millisecond)
	if d.next()%16 == 0 {
		d.now = d.now.Add(time.Duration(d.next()%300) * time.Second)
	}
	if d.noSee { // started again
		if d.next()%4 != 0 {
			return
		}
		d.restart()
		for u := range d.states {
			d.states[u] = reboot.State{}
			if err := json.Unmarshal(d.saved[u], &d.states[u]); err != nil {
				panic(err)
			}
		}
	}
	effects := 1 << 30
	if d.next()%24 == 0 {
		effects = int(d.next() % 6)
	}
	d.advance(u, d.observe(u), &effects)
	if !d.noSee {
		d.agree(u)
	}
}

// effect reports whether the agent lives to have another effect.
func (d *driven) effect(effects *int) bool {
	if *effects--; *effects < 0 {
		d.note("the agent is killed")
		d.kill()
		return false
	}
	return true
}

func (d *driven) advance(u int, o reboot.Observation, effects *int) {
	next, todo := reboot.Next(d.states[u], o, d.now)
	d.states[u] = next
	s := d.find(uint8(u))
	for _, e := range todo {
		if e.Kind == reboot.Log {
			continue
		}
		if !d.effect(effects) {
			return
		}
		d.note("dom%d: %s", u, e.Kind)
		switch e.Kind {
		case reboot.Save:
			d.save(u)
		case reboot.Enter:
			d.outcomes[string(e.Summary.Outcome)]++
		case reboot.Begin: // enableInXen
			dom := &d.doms[s]
			d.enable(dom)
			dom.wc.armed = dom.wc.enabled
			d.dropImage(uint8(u)) // dropUnadopted
			if e.Fresh {
				d.unknown(u)
			}
		case reboot.Forget, reboot.Undo:
			d.unknown(u)
		case reboot.Read:
			d.poll(s)
		case reboot.Judge:
			if !d.decide(u, s, effects) {
				continue
			}
			o = d.observe(u)
			o.Judged = true
			d.advance(u, o, effects)
			return
		}
	}
}

// unknown is that nobody has an account of a UUID's disks.
func (d *driven) unknown(u int) {
	for v := range d.acct[u] {
		d.acct[u][v].uncertain = true
	}
}

// decide is the agent's decide, and reports whether it is done.
func (d *driven) decide(u int, s int8, effects *int) bool {
	dom, b := &d.doms[s], d.states[u].Reboot
	held := false
	for v := range int8(nVBDs) {
		held = held || dom.wc.heldOf(v) > 0
	}
	if !held {
		for v := range int8(nVBDs) {
			d.judgement(dom, v)
		}
		return true
	}
	nothing := b.Fuse != nil || b.Summary.Trigger == api.Cold
	if !nothing && !dom.wc.attached { // whose boot loader may still write
		if b.Ran.IsZero() || d.now.Sub(b.Ran) <= reboot.AttachWait {
			return false
		}
		d.late[u] = d.domid(u) // it gets no verdict any more
		return true
	}
	if !nothing && !b.Attempted {
		b.Attempted = true
		d.save(u)
	}
	for v := range int8(nVBDs) {
		if !d.effect(effects) {
			return false
		}
		if nothing {
			d.judgement(dom, v)
			d.approve(dom, v, false)
			continue
		}
		d.judge(s, v, false)
		if dom.wc.verdicts[v] == approved && dom.wc.heldOf(v) > 0 {
			b.Summary.PagesApproved += uint64(dom.wc.heldOf(v))
			d.allowed(u)
		}
	}
	return true
}

// allowed: pages of a domain's are approved. After a restore of which nobody knows that
// it ended well they never are.
func (d *driven) allowed(u int) {
	d.approved++
	d.note("dom%d, domid %d: pages are approved", u, d.domid(u))
	if last := d.approvedFor[u]; last != 0 && last != d.domid(u) && last == d.domid(u)-1 && d.well[u] != last {
		d.fail("pages are approved after a restore that did not end")
	}
	d.approvedFor[u] = d.domid(u)
}

// agree: where the core believes a domain to be is where the model has it.
func (d *driven) agree(u int) {
	s, p := d.find(uint8(u)), d.states[u].Phase(d.now)
	d.seen[p]++
	wrong := func(what string) { d.fail(fmt.Sprintf("%s, and the core says %q", what, p)) }
	if s == none {
		if p.UnderWay() && p != reboot.Down || p == reboot.Running || p == reboot.Away {
			wrong("there is no domain")
		}
		return
	}
	dom := &d.doms[s]
	undecided := false
	for v := range int8(nVBDs) {
		undecided = undecided || dom.wc.heldOf(v) > 0 && dom.wc.verdicts[v] == 0
	}
	switch {
	case dom.phase == building && !d.full(s):
		if p == reboot.Up || p == reboot.Judgement || p == reboot.Restore || p == reboot.Running {
			wrong("the domain is being built")
		}
	case dom.phase == suspended:
		if p != reboot.Away && d.states[u].Domid == d.domid(u) { // else nobody has seen it before
			wrong("the domain is suspended")
		}
	case undecided && dom.wc.attached && dom.wc.enabled && p != reboot.Judgement && d.late[u] != d.domid(u):
		wrong("the domain holds pages that there is no verdict on")
	case dom.phase == building && p != reboot.Up && p != reboot.Running && p != reboot.Restore:
		wrong("the domain is built, and paused")
	case dom.phase == running && p != reboot.Running && p != reboot.Judgement && p != reboot.Restore:
		wrong("the domain runs")
	}
}

// watch notes what a domain has come to, before it may be gone.
func (d *driven) watch() {
	for u := range d.states {
		if s := d.find(uint8(u)); s != none {
			dom := &d.doms[s]
			held := 0
			for v := range int8(nVBDs) {
				held += dom.wc.heldOf(v)
			}
			if dom.phase == building {
				d.adopted[d.domid(u)] = uint64(held)
			}
			if dom.wc.attached && held == 0 {
				d.well[u] = d.domid(u)
			}
		}
	}
}

// life takes a random schedule, in which the agent looks every now and then.
func (d *driven) life(rules Rules, seed uint64) (failure string) {
	d.reset(rules, seed)
	cards := deal(seed)
	for range 2 * steps {
		step := cards.step()
		name := operations[step.Op].name
		switch {
		case name == "start" || name == "reboot":
			d.boot(int(uuid(step.A)), kinds[step.B%8], name == "reboot")
		case slices.Contains(driverless, name):
		default:
			d.note("%v", step)
			d.Apply(step)
		}
		d.watch()
		for u := range d.states {
			if d.next()%3 == 0 && d.bad == "" {
				d.look(u)
				d.check()
			}
		}
		if d.bad != "" {
			return d.bad
		}
	}
	d.finish()
	return d.bad
}

// boot is the birth of a domain, after the death of the last, with looks of the agent's
// anywhere between.
func (d *driven) boot(u int, k kind, reboots bool) {
	perhaps := func() {
		d.watch()
		d.check()
		if d.next()%2 == 0 && d.bad == "" {
			d.look(u)
		}
	}
	if s := d.find(uint8(u)); s != none {
		if !reboots {
			return
		}
		d.note("dom%d dies", u)
		d.die(s)
		perhaps()
	}
	d.note("dom%d is created, kind %d, born %d", u, k, d.born[u])
	d.create(uint8(u), k)
	s := d.find(uint8(u))
	if s == none {
		return
	}
	for p := range int8(nPFNs) {
		d.populate(s, p, false)
	}
	perhaps()
	d.unpause(s)
	for range 3 {
		perhaps()
	}
	d.evilAttach(s)
	d.World.boot(s)
	perhaps()
	d.mount(s)
	for range 3 {
		perhaps()
	}
}

// TestCore drives the model by the agent's own core: whatever happens, and whoever is
// killed, no invariant is broken, core and model agree where a domain is, and nothing
// is approved after a restore that did not end. Where the core is changed, or the
// model, one of these breaks.
func TestCore(t *testing.T) {
	d := driven{seen: map[reboot.Phase]int{}, outcomes: map[string]int{}}
	lives := *lifetimes
	if testing.Short() {
		lives /= 10
	}
	for n := range lives {
		seed := *seed + n
		if failure := d.life(allRules, seed); failure != "" {
			t.Fatalf("seed %d: %s, after\n  %s", seed, failure, strings.Join(d.trace, "\n  "))
		}
	}
	for _, p := range []reboot.Phase{reboot.Running, reboot.Down, reboot.Off, reboot.Up, reboot.Judgement, reboot.Restore, reboot.Away, reboot.Gone} {
		if d.seen[p] == 0 {
			t.Errorf("never in phase %s", p)
		}
	}
	if d.approved == 0 || d.outcomes["warm"] == 0 || d.outcomes["cold"] == 0 {
		t.Errorf("approved %d times, %v", d.approved, d.outcomes)
	}
	t.Logf("%d lives: phases %v, approved %d times, outcomes %v", lives, d.seen, d.approved, d.outcomes)
}

// TestCoreRemovals proves that it is not blind: without what the agent does about disks
// something stale comes back.
func TestCoreRemovals(t *testing.T) {
	for what, rule := range map[string]Rules{"custody": AgentCustody, "comparison in doubt": AgentComparesAll, "dropping on a breach": AgentDropsOnBreach, "a refusal drops": RefusalDrops} {
		d := driven{seen: map[reboot.Phase]int{}, outcomes: map[string]int{}}
		found := ""
		for seed := uint64(0); seed < 100_000 && found == ""; seed++ {
			if failure := d.life(allRules&^rule, seed); failure != "" {
				found = fmt.Sprintf("seed %d: %s", seed, failure)
			}
		}
		if found == "" {
			t.Errorf("%s: nothing is noticed", what)
		}
		t.Logf("%s: %s", what, found)
	}
}
