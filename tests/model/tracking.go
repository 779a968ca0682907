package model

// warmcache.c: what Xen knows of a domain's pages, and what changes it.

// lookup is wc_lookup: the PFN known for a sector.
func (c *warmcache) lookup(block int8) int8 {
	for p := range c.pages {
		if c.pages[p].state != wcNone && c.pages[p].ent.block == block {
			return int8(p)
		}
	}
	return none
}

// drop is wc_drop.
func (w *World) drop(c *warmcache, pfn int8) {
	held := c.pages[pfn].held && !w.rules.has(DropClearsHeld)
	c.pages[pfn] = tracked{held: held}
}

// insert is wc_insert.
func (c *warmcache) insert(pfn, f int8, e entry) {
	p := &c.pages[pfn]
	p.state, p.frame, p.ent = wcProtected, f, e
}

// hold is wc_hold.
func (w *World) hold(c *warmcache, pfn int8) {
	c.pages[pfn].held = true
	if w.rules.has(HoldResetsVerdict) {
		c.verdicts[vbdOf(c.pages[pfn].ent.block)] = undecided
	}
}

func (c *warmcache) heldOf(vbd int8) int {
	n := 0
	for p := range c.pages {
		if c.pages[p].held && vbdOf(c.pages[p].ent.block) == vbd {
			n++
		}
	}
	return n
}

// p2mChanging is wc_p2m_changing.
func (w *World) p2mChanging(d *domain, pfn, f int8, cache bool) {
	p := &d.wc.pages[pfn]
	if p.state == wcNone || cache && p.frame == f {
		return
	}
	hook := P2MRemoveHook
	if p.frame == f {
		hook = P2MTypeHook
	}
	if w.rules.has(hook) {
		w.drop(&d.wc, pfn)
	}
}

// gfnWritten is wc_gfn_written.
func (w *World) gfnWritten(d *domain, pfn int8) {
	if d.wc.pages[pfn].state != wcNone {
		w.drop(&d.wc, pfn)
	}
}

// ownerOf returns the domain of a frame, and its GFN by the M2P; nil if it has no
// warm cache or the frame no GFN.
func (w *World) ownerOf(f int8) (*domain, int8) {
	p := &w.frames[f]
	if p.owner < 0 || p.gpfn == none || !w.doms[p.owner].wc.has {
		return nil, none
	}
	return &w.doms[p.owner], p.gpfn
}

// pageWritable is wc_page_writable.
func (w *World) pageWritable(f int8) {
	if d, pfn := w.ownerOf(f); d != nil && d.wc.pages[pfn].state != wcNone {
		w.drop(&d.wc, pfn)
	}
}

// pageGranted is wc_page_granted. i is the I/O that the grant is for.
func (w *World) pageGranted(f int8, readonly bool, i int8) {
	d, pfn := w.ownerOf(f)
	if d == nil {
		return
	}
	p := &d.wc.pages[pfn]
	// Who lies says of each grant that it is the right one.
	announced := p.io == i || p.ent.liar || !w.rules.has(GrantAnnounced)
	switch {
	case readonly:
		if p.state == wcWrite && announced {
			p.state = wcWriteSeen
		}
	case p.state == wcRead && announced:
		p.state = wcReadSeen
	case p.state != wcNone && w.rules.has(GrantHook):
		w.drop(&d.wc, pfn)
	}
}

// request is struct xen_warmcache_io. A pfn of none is XEN_WARMCACHE_NO_PFN.
type request struct {
	pfn   int8
	ent   entry
	write bool
}

// batch is a REGISTER hypercall that one of the domain's CPUs is in.
type batch struct {
	stage batchStage
	n, i  uint8
	req   [2]request
	io    int8 // I/O to queue when done, of the kernel's, or none
}

type batchStage uint8

const (
	batchNone batchStage = iota
	batchRanges
	batchProtect // with the P2M lock, TLB flushes put off
	batchFlush
	batchPending
)

// protect is wc_protect.
func (w *World) protect(slot int8, r *request, io int8) bool {
	d := &w.doms[slot]
	e := d.p2m[r.pfn]
	if e.typ == p2mHole {
		return false
	}
	if e.typ == p2mRW {
		w.setEntry(slot, r.pfn, e.frame, p2mCache, true)
	}
	if d.wc.pages[r.pfn].state != wcNone && w.rules.has(RegisterReplacesPFN) {
		w.drop(&d.wc, r.pfn)
	}
	if old := d.wc.lookup(r.ent.block); old != none && w.rules.has(RegisterReplacesSector) {
		w.drop(&d.wc, old)
	}
	d.wc.insert(r.pfn, e.frame, r.ent)
	d.wc.pages[r.pfn].io = io
	return true
}

// settled is wc_settled: no write to the block is under way but that of the I/O.
func (c *warmcache) settled(block, io int8) bool {
	for i, wr := range c.writes {
		if wr.open && wr.block == block && int8(i) != io {
			return false
		}
	}
	return true
}

// pend is the last part of wc_register.
func (w *World) pend(d *domain, b *batch) {
	for i := range b.req[:b.n] {
		r := &b.req[i]
		if r.pfn == none {
			continue
		}
		p := &d.wc.pages[r.pfn]
		if p.state != wcProtected || p.ent.block != r.ent.block {
			continue
		}
		if w.frames[p.frame].refs != 1 && w.rules.has(RegisterRef) ||
			w.rules.has(RegisterSettled) && !d.wc.settled(p.ent.block, b.io) {
			w.drop(&d.wc, r.pfn)
			continue
		}
		if p.state = wcRead; r.write {
			p.state = wcWrite
		}
	}
}

// registerStep goes on with wc_register as far as the next point at which another
// CPU may come in. It reports whether the hypercall has ended.
func (w *World) registerStep(slot int8, vcpu uint8) bool {
	d := &w.doms[slot]
	b := &d.batch[vcpu]
	switch b.stage {
	case batchNone:
		return false
	case batchRanges: // wc_drop_range, preemptible
		if b.i < b.n {
			r := &b.req[b.i]
			b.i++
			if r.write && b.io != none {
				d.wc.writes[b.io] = openWrite{open: true, block: r.ent.block}
			}
			for p := range d.wc.pages {
				q := &d.wc.pages[p]
				if r.write && q.state != wcNone && q.ent.block == r.ent.block && int8(p) != r.pfn &&
					w.rules.has(AnnouncedWriteDrops) {
					w.drop(&d.wc, int8(p))
				}
			}
			return false
		}
		if d.locked != none {
			return false
		}
		d.locked, b.stage, b.i = int8(vcpu), batchProtect, 0
	case batchProtect:
		if b.i < b.n {
			r := &b.req[b.i]
			b.i++
			if r.pfn != none && !w.protect(slot, r, b.io) {
				r.pfn = none
			}
			return false
		}
		b.stage = batchFlush
	case batchFlush:
		if w.rules.has(RegisterFlush) {
			d.tlb = [nPFNs]bool{}
		}
		d.locked, b.stage = none, batchPending
	case batchPending:
		w.pend(d, b)
		b.stage = batchNone
		return true
	}
	return false
}

// settleBatches runs the parts of hypercalls that a CPU does not leave before
// they are done, as domain_pause waits for that.
func (w *World) settleBatches(slot int8) {
	d := &w.doms[slot]
	for v := range d.batch {
		for d.batch[v].stage > batchRanges {
			w.registerStep(slot, uint8(v))
		}
		d.batch[v].stage = batchNone
	}
}

// commit is wc_commit_batch for COMMIT.
func (w *World) commit(d *domain, pfn int8) {
	p := &d.wc.pages[pfn]
	seen := p.state == wcReadSeen || p.state == wcWriteSeen ||
		!w.rules.has(CommitSeen) && (p.state == wcRead || p.state == wcWrite) ||
		!w.rules.has(CommitPending) && p.state == wcProtected
	switch {
	case seen && (w.frames[p.frame].refs == 1 || !w.rules.has(CommitRef)):
		p.state, p.reuse = wcCommitted, true
	case p.state != wcNone && p.state != wcCommitted:
		w.drop(&d.wc, pfn)
	}
}

// unregister is wc_commit_batch for UNREGISTER.
func (w *World) unregister(d *domain, pfn int8) {
	if d.wc.enabled && d.wc.pages[pfn].state != wcNone && w.rules.has(Unregister) {
		w.drop(&d.wc, pfn)
	}
}

// dropAll is wc_drop_all: of one vbd, or of all if it is none.
func (w *World) dropAll(c *warmcache, vbd int8, heldOnly bool) {
	for p := range c.pages {
		q := &c.pages[p]
		if q.state == wcNone || heldOnly && !q.held || vbd != none && vbdOf(q.ent.block) != vbd {
			continue
		}
		if q.reuse || !heldOnly && w.rules.has(DropPending) {
			w.drop(c, int8(p))
		}
	}
}

// enable is wc_enable.
func (w *World) enable(d *domain) bool {
	if d.kind == pv || d.phase >= dying || d.wc.enabled {
		return false
	}
	if !d.wc.has {
		d.wc = warmcache{has: true, image: none, preserving: none}
	} else if w.rules.has(EnableDrops) {
		w.dropAll(&d.wc, none, false)
	}
	d.wc.enabled = true
	return true
}

// attach is wc_attach.
func (w *World) attach(d *domain) {
	if d.wc.wasAttached && w.rules.has(AttachForgets) {
		w.dropAll(&d.wc, none, false)
	}
	d.wc.attached, d.wc.wasAttached, d.wc.writes = true, true, [nIOs]openWrite{}
}

// reset is warmcache_reset.
func (w *World) reset(d *domain) {
	if w.rules.has(ResetDisables) {
		d.wc.enabled, d.wc.armed, d.wc.attached = false, false, false
	}
}
