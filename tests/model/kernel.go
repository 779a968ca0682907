package model

// The guest's kernel, if it is not hostile: the page cache, blkfront and the
// restore of linux/drivers/xen/warmcache. It may have bugs that write anywhere.

type use uint8

const (
	pageFree     use = iota
	pageKept         // out of the allocator, from the last boot
	pageInserted     // being restored: in the page cache, not up to date
	pageReading
	pageClean
	pageDirty
	pageWriteback
)

type cachePage struct {
	use       use
	key       int8
	redirty   bool // written to while under writeback
	forgotten bool // left the page cache, UNREGISTER is still to come
}

type kernel struct {
	booted, attached, stopped, mounted, suspended bool

	pages [nPFNs]cachePage
	files [nKeys]int8
	// unwritten: blocks that are allocated, but hold nothing yet.
	unwritten [nKeys]bool
	restore   struct {
		stage uint8
		pfn   int8
		ent   entry
	}
}

// alive returns the domain if it runs a kernel that behaves, and that has got so
// far as to have mounted its file systems.
func (w *World) alive(slot int8) *domain {
	d := &w.doms[slot]
	if d.phase != running || d.kind == hostile || !d.kernel.mounted {
		return nil
	}
	return d
}

// cached returns the PFN that caches a page of a file, or none.
func (k *kernel) cached(key int8) int8 {
	for p := range k.pages {
		if k.pages[p].use >= pageInserted && k.pages[p].key == key {
			return int8(p)
		}
	}
	return none
}

// remove takes a page out of the page cache.
func (k *kernel) remove(pfn int8) { k.pages[pfn] = cachePage{forgotten: true} }

// boot is xen_warmcache_attach and xen_warmcache_hold_init.
func (w *World) boot(slot int8) {
	d := &w.doms[slot]
	k := &d.kernel
	if d.phase != running || k.booted || d.kind == hostile {
		return
	}
	k.booted = true
	if d.kind != patched || !d.wc.has || !d.wc.enabled {
		return
	}
	k.attached = true
	w.attach(d)
	for p := range k.pages {
		if d.wc.pages[p].held {
			k.pages[p].use = pageKept
		}
	}
}

func (w *World) mount(slot int8) {
	d := &w.doms[slot]
	if d.phase == running && d.kernel.booted && !d.kernel.mounted {
		d.kernel.mounted, d.kernel.files = true, w.files[d.uuid]
	}
}

// submit is blkif_queue_rq: a request is announced, then queued.
func (w *World) submit(slot int8, vcpu uint8, io blockIO) bool {
	d := &w.doms[slot]
	k := &d.kernel
	if d.batch[vcpu].stage != batchNone {
		return false
	}
	announce := k.attached && !k.stopped
	if announce && !(d.wc.enabled && d.wc.attached) {
		k.stopped, announce = true, false // -ENODEV: xen_warmcache_stop
	}
	io.slot, io.uuid, io.tracked = slot, d.uuid, announce && io.pfn != none
	if io.stage = ioQueued; announce && (w.rules.has(KernelAnnouncesFirst) || io.tracked) {
		io.stage = ioAnnounced
	}
	i := w.newIO(io)
	if i == none {
		return false
	}
	if announce {
		r := request{pfn: io.pfn, ent: entry{key: io.key, block: io.block}, write: io.write}
		d.batch[vcpu] = batch{stage: batchRanges, n: 1, req: [2]request{r}, io: i}
	}
	return true
}

// announced is the end of blkif_announce: the request is pushed.
func (w *World) announced(i int8) {
	if io := &w.ios[i]; io.inUse && io.stage == ioAnnounced {
		io.stage = ioQueued
	}
}

func (w *World) read(slot int8, vcpu uint8, pfn, key int8) {
	d := w.alive(slot)
	if d == nil || d.kernel.files[key] == none || d.kernel.unwritten[key] || d.p2m[pfn].typ == p2mHole {
		return
	}
	k := &d.kernel
	p := &k.pages[pfn]
	switch c := k.cached(key); {
	case p.use == pageFree && c == none:
	case p.use == pageInserted && c == pfn && (k.restore.pfn != pfn || k.restore.stage < 3):
	default:
		return
	}
	if w.submit(slot, vcpu, blockIO{pfn: pfn, key: key, block: k.files[key]}) {
		p.use, p.key = pageReading, key
	}
}

// touch is a write to a file, in the page cache.
func (w *World) touch(slot, pfn int8) {
	d := w.alive(slot)
	if d == nil {
		return
	}
	p := &d.kernel.pages[pfn]
	if p.use < pageClean || !w.cpuWrite(slot, pfn) {
		return
	}
	switch p.use {
	case pageClean:
		p.use = pageDirty
	case pageWriteback:
		p.redirty = true
	}
}

func (w *World) writeback(slot int8, vcpu uint8, pfn int8) {
	d := w.alive(slot)
	if d == nil || d.kernel.pages[pfn].use != pageDirty {
		return
	}
	p := &d.kernel.pages[pfn]
	if w.submit(slot, vcpu, blockIO{pfn: pfn, key: p.key, block: d.kernel.files[p.key], write: true}) {
		p.use, p.redirty = pageWriteback, false
	}
}

// direct is direct I/O that writes. It removes the page from the page cache
// before and after.
func (w *World) direct(slot int8, vcpu uint8, key int8) {
	d := w.alive(slot)
	if d == nil || d.kernel.files[key] == none || d.kernel.unwritten[key] {
		return
	}
	k := &d.kernel
	if c := k.cached(key); c != none {
		locked := k.restore.stage == 3 && k.restore.pfn == c
		if u := k.pages[c].use; u != pageClean && u != pageInserted || locked {
			return
		}
		k.remove(c)
	}
	w.submit(slot, vcpu, blockIO{pfn: none, key: key, block: k.files[key], write: true, payload: w.fresh(d.uuid)})
}

// complete is blkif_interrupt, and then the page cache's or direct I/O's end of it.
func (w *World) complete(i int8) {
	io := &w.ios[i]
	if !io.inUse || io.stage < ioAnswered || io.dead {
		return
	}
	d := &w.doms[io.slot]
	k := &d.kernel
	d.wc.writes[i] = openWrite{} // an END; it may be told later
	if io.tracked && !k.stopped && d.wc.enabled && d.wc.attached {
		if !io.failed || !w.rules.has(KernelCommitsSuccess) {
			w.commit(d, io.pfn)
		} else {
			w.unregister(d, io.pfn)
		}
	}
	if io.pfn == none {
		if io.stage == ioAnswered {
			io.stage = ioEnded
			return
		}
		if c := k.cached(io.key); c != none {
			switch p := &k.pages[c]; {
			case p.use == pageReading || p.use == pageWriteback || k.restore.stage == 3 && k.restore.pfn == c:
				return
			case p.use == pageClean || p.use == pageInserted:
				k.remove(c)
			}
		}
		*io = blockIO{}
		return
	}
	p := &k.pages[io.pfn]
	switch {
	case !io.write && io.failed:
		k.remove(io.pfn)
	case !io.write:
		p.use = pageClean
	case io.failed || p.redirty:
		p.use = pageDirty
	default:
		p.use, k.unwritten[p.key] = pageClean, false
	}
	*io = blockIO{}
}

// evict takes a clean page out of the page cache; flush tells Xen, later.
func (w *World) evict(slot, pfn int8) {
	if d := w.alive(slot); d != nil && d.kernel.pages[pfn].use == pageClean {
		d.kernel.remove(pfn)
	}
}

// flush is xen_warmcache_flush for one page.
func (w *World) flush(slot, pfn int8) {
	d := &w.doms[slot]
	p := &d.kernel.pages[pfn]
	if d.phase == running && p.forgotten {
		if p.forgotten = false; p.use == pageFree && d.kernel.attached && !d.kernel.stopped {
			w.unregister(d, pfn)
		}
	}
}
