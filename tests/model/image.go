package model

// warmcache-image.c: what stays of a dead domain until the next one comes.

// newImage is wc_image_create.
func (w *World) newImage(uuid uint8) int8 {
	for i := range w.images {
		if w.images[i].state == imageNone {
			img := image{state: imagePreserving, uuid: uuid}
			for p := range img.frames {
				img.frames[p] = none
			}
			w.images[i] = img
			return int8(i)
		}
	}
	return none
}

// findImage is wc_image_find: the first on the list.
func (w *World) findImage(uuid uint8) int8 {
	found := none
	for i := range w.images {
		img := &w.images[i]
		if img.state == imageWaiting && (img.uuid == uuid || !w.rules.has(ImageUUID)) &&
			(found == none || img.order < w.images[found].order) {
			found = int8(i)
		}
	}
	return found
}

// reap is wc_image_shrink for a page of a released image, by the timer or by
// warmcache_reclaim. False if there is nothing to free.
func (w *World) reap() bool {
	for i := range w.images {
		img := &w.images[i]
		if img.state != imageReleased {
			continue
		}
		for p, f := range img.frames {
			if f != none {
				img.frames[p] = none
				w.release(f, w.rules.has(ImageScrub))
				return true
			}
		}
		*img = image{}
		return true
	}
	return false
}

// reclaim is warmcache_reclaim: the oldest image goes if none is on its way.
func (w *World) reclaim() bool {
	if w.reap() {
		return true
	}
	oldest := none
	for i := range w.images {
		if w.images[i].state == imageWaiting && (oldest == none || w.images[i].order < w.images[oldest].order) {
			oldest = int8(i)
		}
	}
	if oldest == none {
		return false
	}
	w.images[oldest].state = imageReleased
	return w.reap()
}

// preserveStep is warmcache_preserve between two points where it is preempted.
// It reports whether it is done.
func (w *World) preserveStep(slot int8) bool {
	d := &w.doms[slot]
	c := &d.wc
	if !c.has {
		return true
	}
	if c.preserving == none || !w.rules.has(PreserveDecidesOnce) {
		if !c.enabled || !c.armed || d.finished && !c.attached && w.rules.has(PreserveAttached) ||
			d.kernel.suspended && w.rules.has(PreserveSuspended) {
			return true
		}
	}
	if c.preserving == none {
		if c.preserving = w.newImage(d.uuid); c.preserving == none {
			return true
		}
	}
	for f := range w.frames {
		p := &w.frames[f]
		if p.owner != slot || p.put {
			continue
		}
		if !w.preservePage(d, int8(f)) {
			p.put = true
		}
		return false
	}
	for f := range w.frames {
		if w.frames[f].owner == slot {
			w.frames[f].put = false
		}
	}
	img := &w.images[c.preserving]
	c.preserving = none
	if old := w.findImage(d.uuid); old != none && w.rules.has(PreserveReplaces) {
		w.images[old].state = imageReleased
	}
	w.orders++
	img.state, img.order = imageWaiting, w.orders
	return true
}

// preservePage is wc_preserve_page, and what follows if the page is kept.
func (w *World) preservePage(d *domain, f int8) bool {
	p := &w.frames[f]
	img := &w.images[d.wc.preserving]
	pfn := p.gpfn
	if pfn == none {
		return false
	}
	t := &d.wc.pages[pfn]
	if t.state != wcCommitted && (t.state == wcNone || w.rules.has(PreserveCommitted)) {
		return false
	}
	kept := (t.frame == f || !w.rules.has(PreserveFrame)) &&
		(p.refs == 1 && p.allocated || !w.rules.has(PreserveRef)) && img.frames[pfn] == none
	if kept {
		img.frames[pfn], img.ents[pfn] = f, t.ent
		// It may have written without a word.
		img.ents[pfn].liar = t.ent.liar || d.kind == hostile
		p.owner, p.refs, p.allocated, p.gpfn = nobody, 0, false, none
		if w.rules.has(ImageFlush) {
			p.stale = false
		}
	}
	w.drop(&d.wc, pfn)
	return kept
}

// adopt is warmcache_adopt.
func (w *World) adopt(slot int8) {
	d := &w.doms[slot]
	if d.finished || d.wc.has {
		return
	}
	i := w.findImage(d.uuid)
	if i == none {
		return
	}
	if d.kind == pv {
		if w.rules.has(AdoptDropsIneligible) {
			w.images[i].state = imageReleased
		}
		return
	}
	if w.rules.has(ImageOnce) {
		w.images[i].state = imageBound
	}
	w.enable(d)
	d.wc.armed, d.wc.image = true, i
}

// populate is populate_physmap for one page, with warmcache_populate. broken: the
// P2M has no memory for another entry.
func (w *World) populate(slot, pfn int8, broken bool) {
	d := &w.doms[slot]
	if d.phase != building && d.phase != running || d.locked != none {
		return
	}
	w.adopt(slot)
	if d.wc.image != none && d.wc.has && !d.finished {
		img := &w.images[d.wc.image]
		if f := img.frames[pfn]; f != none {
			ent := img.ents[pfn]
			img.frames[pfn] = none
			if d.p2m[pfn].typ == p2mHole || !w.rules.has(AdoptOnlyHoles) {
				w.adoptPage(slot, pfn, f, ent, broken)
				return
			}
			w.assign(slot, f)
			w.giveUp(slot, f)
		}
	}
	if d.p2m[pfn].typ != p2mHole || broken {
		return
	}
	f := w.alloc(slot)
	for f == none && w.reclaim() {
		f = w.alloc(slot)
	}
	if f != none {
		w.setEntry(slot, pfn, f, p2mRW, false)
		w.frames[f].gpfn = pfn
	}
}

// assign is assign_page.
func (w *World) assign(slot, f int8) {
	p := &w.frames[f]
	if p.owner != nobody {
		w.fail("a page of an image is not the image's any more")
	}
	if p.bytes != 0 && p.bytes.uuid() != w.doms[slot].uuid {
		w.fail("a page of one UUID is adopted by another")
	}
	p.owner, p.refs, p.allocated = slot, 1, true
}

// giveUp is the end of wc_adopt_page for a page that could not be placed.
func (w *World) giveUp(slot, f int8) {
	if w.rules.has(AdoptScrubsFailed) {
		w.store(f, 0)
	}
	w.putAllocRef(f)
}

// adoptPage is wc_adopt_page.
func (w *World) adoptPage(slot, pfn, f int8, ent entry, broken bool) {
	d := &w.doms[slot]
	w.assign(slot, f)
	d.wc.insert(pfn, f, ent)
	d.wc.pages[pfn].state, d.wc.pages[pfn].reuse = wcCommitted, true
	w.hold(&d.wc, pfn)
	if broken {
		w.drop(&d.wc, pfn)
		w.giveUp(slot, f)
		return
	}
	typ := p2mCache
	if !w.rules.has(AdoptProtects) {
		typ = p2mRW
		keep := d.wc.pages[pfn]
		defer func() { d.wc.pages[pfn] = keep }()
	}
	w.setEntry(slot, pfn, f, typ, false)
	w.frames[f].gpfn = pfn
}

// destroyWarmcache is warmcache_destroy.
func (w *World) destroyWarmcache(d *domain) {
	if !d.wc.has {
		return
	}
	for _, i := range [...]int8{d.wc.image, d.wc.preserving} {
		if i != none {
			w.images[i].state = imageReleased
		}
	}
}
