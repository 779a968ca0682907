package model

// The agent in dom0, as far as what it tells Xen goes.

// judge comes to a verdict on a vbd: see judge in internal/agent. all: compare
// every page even if custody is certain.
func (w *World) judge(slot, vbd int8, all bool) {
	d := &w.doms[slot]
	if w.noSee || d.phase != building && d.phase != running {
		return
	}
	a := &w.acct[d.uuid][vbd]
	if !d.wc.has || !d.wc.enabled || d.wc.heldOf(vbd) == 0 {
		w.judgement(d, vbd)
		return
	}
	if d.judged[vbd] && d.wc.verdicts[vbd] != undecided {
		return
	}
	ok := !a.down && !a.up || !w.rules.has(AgentCustody)
	if ok && (all || a.uncertain && w.rules.has(AgentComparesAll)) {
		d.compared[vbd] = true
		for p := range d.wc.pages {
			t := &d.wc.pages[p]
			if t.held && vbdOf(t.ent.block) == vbd && w.frames[t.frame].bytes != w.disk[d.uuid][t.ent.block] {
				ok = false
			}
		}
	}
	w.judgement(d, vbd)
	w.approve(d, vbd, ok)
}

// judgement closes the account of the last boot.
func (w *World) judgement(d *domain, vbd int8) {
	if d.finished {
		d.judged[vbd] = true
		a := &w.acct[d.uuid][vbd]
		a.down, a.uncertain = false, false
	}
}

// approve is wc_approve.
func (w *World) approve(d *domain, vbd int8, ok bool) {
	v := &d.wc.verdicts[vbd]
	switch {
	case !ok:
		*v = refused
		if w.rules.has(RefusalDrops) {
			w.dropAll(&d.wc, vbd, true)
		}
	case *v != refused || !w.rules.has(RefusalLasts):
		*v = approved
	}
}

// poll is readAccounts: what others have written to a disk behind the guest's back
// is noticed, and everything known of it dropped.
func (w *World) poll(slot int8) {
	d := &w.doms[slot]
	if w.noSee || d.phase != running || !d.wc.has || !d.wc.enabled {
		return
	}
	for v := range w.acct[d.uuid] {
		a := &w.acct[d.uuid][v]
		if !a.up {
			continue
		}
		a.up = false
		if w.rules.has(AgentDropsOnBreach) {
			w.dropAll(&d.wc, int8(v), false)
		}
	}
}

// kill ends the agent; started again it knows that it may have missed something.
func (w *World) kill() { w.noSee = true }

func (w *World) restart() {
	if !w.noSee {
		return
	}
	w.noSee = false
	for u := range w.acct {
		for v := range w.acct[u] {
			w.acct[u][v].uncertain = true
		}
	}
}

// turnOn is enableInXen: XEN_DOMCTL_WARMCACHE_ENABLE and ARM.
func (w *World) turnOn(slot int8) {
	if d := &w.doms[slot]; !w.noSee && d.phase == running {
		w.enable(d)
		d.wc.armed = d.wc.enabled
	}
}

// turnOff is XEN_DOMCTL_WARMCACHE_DISABLE, of a domain that may be dying.
func (w *World) turnOff(slot int8) {
	if d := &w.doms[slot]; d.phase != absent && d.wc.enabled {
		d.wc.armed, d.wc.attached = false, false
		w.dropAll(&d.wc, none, false)
		d.wc.enabled = false
	}
}

// disarm is XEN_DOMCTL_WARMCACHE_DISARM.
func (w *World) disarm(slot int8) {
	if d := &w.doms[slot]; d.phase != absent && d.wc.enabled {
		d.wc.armed = false
	}
}

// dropVBD is XEN_DOMCTL_WARMCACHE_DROP, on an operator's word.
func (w *World) dropVBD(slot, vbd int8) {
	if d := &w.doms[slot]; d.phase != absent && d.wc.enabled {
		w.dropAll(&d.wc, vbd, false)
	}
}
