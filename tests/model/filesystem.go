package model

// Files: which page of which file lies in which block. The invariant needs no more
// of a file system than that the next boot may find another answer.

// truncate frees the block of a file.
func (w *World) truncate(slot, key int8) {
	d := w.alive(slot)
	if d == nil || d.kernel.files[key] == none {
		return
	}
	k := &d.kernel
	for i := range w.ios {
		if io := &w.ios[i]; io.inUse && !io.dead && io.slot == slot && io.key == key {
			return
		}
	}
	if c := k.cached(key); c != none {
		if k.restore.stage == 3 && k.restore.pfn == c {
			return
		}
		k.remove(c)
	}
	k.files[key], k.unwritten[key] = none, false
}

// extend gives a file a block, for a page that is then dirty.
func (w *World) extend(slot, key, block, pfn int8) {
	d := w.alive(slot)
	if d == nil || vbdOf(key) != vbdOf(block) {
		return
	}
	k := &d.kernel
	if k.files[key] != none || k.cached(key) != none || k.pages[pfn].use != pageFree {
		return
	}
	for i := range k.files {
		if k.files[i] == block || w.files[d.uuid][i] == block && int8(i) != key {
			return
		}
	}
	if w.cpuWrite(slot, pfn) {
		k.pages[pfn].use, k.pages[pfn].key = pageDirty, key
		k.files[key], k.unwritten[key] = block, true
	}
}

// journal makes the file system as it is the one that the next kernel finds: of
// blocks that have their data.
func (w *World) journal(slot int8) {
	d := w.alive(slot)
	if d == nil {
		return
	}
	for key := range d.kernel.files {
		if !d.kernel.unwritten[key] {
			w.files[d.uuid][key] = d.kernel.files[key]
		}
	}
}

// approves is wc_get_approved for one page.
func (w *World) approves(d *domain, pfn int8) bool {
	t := &d.wc.pages[pfn]
	if !d.wc.enabled || !t.held {
		return false
	}
	switch d.wc.verdicts[vbdOf(t.ent.block)] {
	case approved:
		return true
	case refused:
		return !w.rules.has(RefusalLasts)
	}
	return !w.rules.has(ApprovalNeeded)
}

// restoreStep is the restore of one page: warmcache_insert, then
// warmcache_sector_matches, then the page's lock, then warmcache_validate.
func (w *World) restoreStep(slot, pfn int8) {
	d := w.alive(slot)
	if d == nil || !d.kernel.attached {
		return
	}
	k := &d.kernel
	r := &k.restore
	if r.stage == 0 {
		ent := d.wc.pages[pfn].ent
		if k.pages[pfn].use != pageKept || !w.approves(d, pfn) {
			return
		}
		if k.files[ent.key] == none || k.cached(ent.key) != none {
			k.pages[pfn] = cachePage{}
			w.unregister(d, pfn)
			return
		}
		k.pages[pfn].use, k.pages[pfn].key = pageInserted, ent.key
		r.stage, r.pfn, r.ent = 1, pfn, ent
		return
	}
	if p := &k.pages[r.pfn]; p.use != pageInserted || p.key != r.ent.key {
		r.stage = 0
		return
	}
	switch r.stage {
	case 1:
		if r.stage = 2; k.files[r.ent.key] != r.ent.block && w.rules.has(KernelComparesSector) {
			r.stage = 0
			k.remove(r.pfn)
		}
	case 2:
		r.stage = 3
	case 3:
		r.stage = 0
		if w.rules.has(KernelAsksAgain) && (!w.approves(d, r.pfn) || d.wc.pages[r.pfn].ent != r.ent) {
			k.remove(r.pfn)
			return
		}
		k.pages[r.pfn].use = pageClean
		w.restored(d, r.pfn, r.ent)
	}
}

// giveBack is xen_warmcache_give_back.
func (w *World) giveBack(slot, pfn int8) {
	d := &w.doms[slot]
	if d.phase == running && d.kernel.pages[pfn].use == pageKept {
		d.kernel.pages[pfn] = cachePage{}
		w.unregister(d, pfn)
	}
}
