package model

// The toolstack, and Xen's part in birth and death of domains.

// create is domain_create, by a toolstack that makes one domain of a UUID at a
// time, and waits until XEN_DOMCTL_destroydomain has returned for the last one.
func (w *World) create(uuid uint8, k kind) {
	if w.find(uuid) != none {
		return
	}
	for s := range w.doms {
		if d := &w.doms[s]; d.uuid == uuid && (d.phase == dying || d.phase == relinquishing) {
			return
		}
	}
	for s := range w.doms {
		d := &w.doms[s]
		if d.phase != absent {
			continue
		}
		*d = domain{phase: building, kind: k, uuid: uuid, locked: none}
		d.wc.image, d.wc.preserving = none, none
		for p := range d.p2m {
			d.p2m[p].frame = none
		}
		w.away[uuid] = false
		w.born[uuid]++
		return
	}
}

// build is the domain builder's write to a page.
func (w *World) build(slot, pfn int8) {
	if w.doms[slot].phase != building {
		return
	}
	if m := w.foreignMap(slot, pfn, true); m != none {
		w.foreignWrite(m)
		w.foreignUnmap(m, true)
	}
}

// unpause is domain_unpause_by_systemcontroller, the first time, with
// warmcache_creation_finished.
func (w *World) unpause(slot int8) {
	d := &w.doms[slot]
	if d.phase != building {
		return
	}
	d.phase, d.finished = running, true
	if i := d.wc.image; i != none {
		w.images[i].state = imageReleased
		d.wc.image = none
	}
}

// suspend is SHUTDOWN_suspend: the domain goes on elsewhere, or from a file.
func (w *World) suspend(slot int8) {
	d := &w.doms[slot]
	if d.phase != running || d.kind == hostile || w.busy(slot) {
		return
	}
	d.phase, d.kernel.suspended = suspended, true
	w.away[d.uuid] = true
}

// busy reports whether the domain has I/O or hypercalls under way.
func (w *World) busy(slot int8) bool {
	for i := range w.ios {
		if w.ios[i].inUse && !w.ios[i].dead && w.ios[i].slot == slot {
			return true
		}
	}
	b := &w.doms[slot].batch
	return b[0].stage != batchNone || b[1].stage != batchNone
}

// softReset is domain_soft_reset, after which another kernel boots.
func (w *World) softReset(slot int8, k kind) {
	d := &w.doms[slot]
	if d.phase != running || d.kind == hostile || d.kind == pv || k == hostile || k == pv || w.busy(slot) {
		return
	}
	w.reset(d)
	d.kernel, d.kind = kernel{}, k
}

// kexec is another kernel without a soft reset, by warmcache_kernel_begins. What a
// kernel does before any has attached is not for this: dom0 compares, by EARLY_IO.
func (w *World) kexec(slot int8, k kind) {
	d := &w.doms[slot]
	if d.phase != running || d.kind == hostile || d.kind == pv || !d.wc.wasAttached || w.busy(slot) {
		return
	}
	if w.rules.has(KernelBegins) {
		d.wc.attached = false
	}
	d.kernel, d.kind = kernel{}, k
}

// rename is XEN_DOMCTL_setdomainhandle, of a domain that has not run yet. What
// the builder wrote it writes anew.
func (w *World) rename(slot int8) {
	d := &w.doms[slot]
	if d.phase != building || w.find(d.uuid^1) != none {
		return
	}
	adopted := d.wc.image != none
	for p := range d.p2m {
		adopted = adopted || d.p2m[p].typ == p2mCache
	}
	if adopted && w.rules.has(HandleWhileAdopted) {
		return
	}
	w.reset(d)
	d.uuid ^= 1
	for p := range d.p2m {
		if d.p2m[p].typ == p2mRW {
			w.store(d.p2m[p].frame, 0)
		}
	}
}

// destroy is domain_kill up to where the P2M is gone.
func (w *World) destroy(slot int8) {
	d := &w.doms[slot]
	if d.phase == absent || d.phase >= dying {
		return
	}
	w.settleBatches(slot)
	d.phase = dying
	d.tlb = [nPFNs]bool{}
	for p := range d.p2m {
		d.p2m[p].frame, d.p2m[p].typ = none, p2mHole
	}
	for v := range d.judged {
		a := &w.acct[d.uuid][v]
		if a.up || d.finished && !d.judged[v] && d.wrote[v] {
			a.up, a.down = false, true
		}
		a.uncertain = a.uncertain || w.noSee
	}
	w.orphan(slot)
}

// relinquish goes on with domain_relinquish_resources to the next point where it
// is preempted.
func (w *World) relinquish(slot int8) {
	d := &w.doms[slot]
	switch d.phase {
	case dying:
		if w.preserveStep(slot) {
			d.phase = relinquishing
			for p := range d.wc.pages { // warmcache_relinquish
				d.wc.pages[p] = tracked{}
			}
		}
	case relinquishing: // relinquish_memory
		d.phase = zombie
		for f := range w.frames {
			if p := &w.frames[f]; p.owner == slot && !p.put {
				w.putAllocRef(int8(f))
			}
		}
	case zombie: // complete_domain_destroy, when the last page has gone
		for f := range w.frames {
			if w.frames[f].owner == slot {
				return
			}
		}
		w.destroyWarmcache(d)
		*d = domain{}
	}
}

// dropImage is XEN_DOMCTL_WARMCACHE_IMAGE_DROP, or the end of its time.
func (w *World) dropImage(uuid uint8) {
	if i := w.findImage(uuid); i != none {
		w.images[i].state = imageReleased
	}
}

// diskWrite is a write to the disk by somebody else than the guest.
func (w *World) diskWrite(uuid uint8, block int8) {
	w.disk[uuid][block] = w.fresh(uuid)
	w.foreignWritten(uuid, block)
}

// elsewhere is a write by the guest after it was suspended, where it runs now:
// nobody here sees it.
func (w *World) elsewhere(uuid uint8, block int8) {
	if w.away[uuid] && w.find(uuid) == none {
		w.disk[uuid][block] = w.fresh(uuid)
	}
}
