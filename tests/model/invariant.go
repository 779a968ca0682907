package model

// honest reports whether the bytes of what is known of a page must equal the disk:
// the guest announces its writes, and dom0 has nothing to find out any more.
func (w *World) honest(d *domain, t *tracked) bool {
	vbd := vbdOf(t.ent.block)
	a := &w.acct[d.uuid][vbd]
	if t.ent.liar || a.up || d.kind != patched || !d.wc.attached || !d.wc.enabled || d.phase != running {
		return false
	}
	return !t.held || d.wc.verdicts[vbd] == approved
}

// check finds out whether the invariants hold. It is called after each step.
func (w *World) check() {
	for s := range w.doms {
		d := &w.doms[s]
		if d.phase == absent || d.phase >= dying {
			continue
		}
		for p := range d.p2m {
			e := &d.p2m[p]
			if e.typ != p2mHole {
				if b := w.frames[e.frame].bytes; b != 0 && b.uuid() != d.uuid {
					w.fail("a domain sees a page of another UUID")
				}
			}
			if t := &d.wc.pages[p]; t.reuse || t.held {
				w.checkReuse(d, int8(p), t)
			}
		}
	}
}

// checkReuse is the first invariant, for a PFN that has a bit.
func (w *World) checkReuse(d *domain, pfn int8, t *tracked) {
	e := &d.p2m[pfn]
	switch {
	case t.reuse != (t.state == wcCommitted):
		w.fail("a reuse bit is set, and the page is not committed")
	case t.held && !t.reuse:
		w.fail("a held bit is set, and the reuse bit is not")
	case e.typ != p2mCache || e.frame != t.frame:
		w.fail("a reuse bit is set, and the page is not write-protected")
	case d.tlb[pfn]:
		w.fail("a reuse bit is set, and a CPU has a translation to write through")
	case w.frames[t.frame].bytes != w.disk[d.uuid][t.ent.block] && w.honest(d, t) && !w.copying(t.frame):
		w.fail("a reuse bit is set, and the page differs from the disk")
	}
	for i := range w.maps {
		if m := &w.maps[i]; m.inUse && m.writable && m.frame == t.frame {
			w.fail("a reuse bit is set, and dom0 has a mapping to write through")
		}
	}
	for i := range w.ios {
		if io := &w.ios[i]; io.inUse && !io.write && io.frame == t.frame {
			w.fail("a reuse bit is set, and a backend has a mapping to write through")
		}
	}
}

// copying: Xen holds a reference, and has not called the hook yet. Neither COMMIT
// nor preservation takes place meanwhile.
func (w *World) copying(f int8) bool { return w.copier.inUse && w.copier.frame == f }

// restored is the second invariant: the page is what a read would have given. It
// is called when the guest's kernel declares the page up to date.
func (w *World) restored(d *domain, pfn int8, ent entry) {
	vbd := vbdOf(ent.block)
	if ent.liar && !d.compared[vbd] {
		return // the guest's last kernel lied, and harms itself
	}
	if w.acct[d.uuid][vbd].up || w.copying(d.p2m[pfn].frame) {
		return // dom0 writes to the disk of a guest that runs, and finds out in a moment
	}
	block := d.kernel.files[ent.key]
	if block == none {
		w.fail("a page is restored that the file does not have")
		return
	}
	if w.frames[d.p2m[pfn].frame].bytes != w.disk[d.uuid][block] {
		w.fail("a page is restored that differs from the disk")
	}
}

// finish ends everything, and looks for what is left over.
func (w *World) finish() {
	w.copyWrite()
	w.copyEnd()
	for i := range w.maps {
		w.foreignUnmap(int8(i), true)
	}
	for s := range w.doms {
		w.destroy(int8(s))
	}
	for i := range w.ios {
		w.ioMap(int8(i))
		w.ioTransfer(int8(i), false)
		w.ioUnmap(int8(i))
		w.ioAnswer(int8(i))
	}
	for s := range w.doms {
		for n := 0; w.doms[s].phase != absent && n < nFrames+5; n++ {
			w.relinquish(int8(s))
		}
		if w.doms[s].phase != absent {
			w.fail("a dead domain never goes away")
		}
	}
	for i := range w.images {
		switch img := &w.images[i]; img.state {
		case imageWaiting:
			img.state = imageReleased
		case imageBound, imagePreserving:
			w.fail("an image is left that nobody knows")
		}
	}
	for w.reap() {
	}
	for f := range w.frames {
		if w.frames[f].owner != free {
			w.fail("a page is leaked")
		} else if w.frames[f].bytes != 0 {
			w.fail("a free page is not scrubbed")
		}
	}
}
