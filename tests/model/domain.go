package model

type phase uint8

const (
	absent phase = iota
	building
	running
	suspended
	dying // domain_relinquish_resources up to warmcache_preserve
	relinquishing
	zombie // until the last reference is gone
)

// kind is what kernel a domain runs.
type kind uint8

const (
	patched   kind = iota
	unpatched      // tracks nothing, announces nothing
	hostile        // any hypercall, in any order, with any values
	pv             // cannot have a warm cache
	nKinds
)

type p2mType uint8

const (
	p2mHole p2mType = iota
	p2mRW
	p2mCache // p2m_ram_cache
)

// state is enum wc_state.
type state uint8

const (
	wcNone state = iota
	wcProtected
	wcRead
	wcReadSeen
	wcWrite
	wcWriteSeen
	wcCommitted
)

type verdict uint8

const (
	undecided verdict = iota
	approved
	refused
)

// tracked is struct wc_meta with its entry.
type tracked struct {
	state       state
	reuse, held bool // the bits of the two bitmaps
	frame       int8 // meta->pdx
	io          int8 // the I/O whose grant is meta->ref, or none
	ent         entry
}

// openWrite is struct wc_write; its place is that of the I/O.
type openWrite struct {
	open  bool
	block int8
}

// warmcache is struct warmcache.
type warmcache struct {
	has, enabled, armed, attached, wasAttached bool

	pages             [nPFNs]tracked
	writes            [nIOs]openWrite
	verdicts          [nVBDs]verdict
	image, preserving int8
}

type domain struct {
	phase    phase
	kind     kind
	uuid     uint8
	finished bool // creation_finished
	p2m      [nPFNs]struct {
		frame int8
		typ   p2mType
	}
	// tlb: some CPU has a translation that permits writing.
	tlb    [nPFNs]bool
	locked int8 // VCPU that has the P2M lock, or none
	wc     warmcache
	batch  [nVCPUs]batch
	kernel kernel
	// What the agent did in this life.
	judged, compared [nVBDs]bool
	wrote            [nVBDs]bool
}

// account is what the agent knows of a disk.
type account struct {
	down      bool // written to by others while no guest had it
	up        bool // written to by others behind a guest, not noticed yet
	uncertain bool // nobody watched
}

// find returns a domain of the UUID that is not dying, or none.
func (w *World) find(uuid uint8) int8 {
	for s := range w.doms {
		if d := &w.doms[s]; d.phase != absent && d.phase < dying && d.uuid == uuid {
			return int8(s)
		}
	}
	return none
}

// setEntry is p2m_set_entry. It flushes, unless that is put off.
func (w *World) setEntry(slot int8, pfn int8, f int8, t p2mType, deferred bool) {
	d := &w.doms[slot]
	if d.wc.has {
		w.p2mChanging(d, pfn, f, t == p2mCache)
	}
	d.p2m[pfn].frame, d.p2m[pfn].typ = f, t
	if !deferred {
		d.tlb[pfn] = false
	}
}

// cpuWrite is a store by one of the guest's CPUs: with a translation left over;
// with a new one; or after a fault, hvm_hap_nested_page_fault. False if it has to
// wait, or faults for good.
func (w *World) cpuWrite(slot, pfn int8) bool {
	d := &w.doms[slot]
	e := &d.p2m[pfn]
	if d.phase != running || e.typ == p2mHole {
		return false
	}
	if !d.tlb[pfn] {
		if d.locked != none {
			return false
		}
		if e.typ == p2mCache {
			if w.rules.has(FaultHook) {
				w.gfnWritten(d, pfn)
			}
			w.setEntry(slot, pfn, e.frame, p2mRW, false)
		}
		d.tlb[pfn] = true
	}
	w.store(e.frame, w.fresh(d.uuid))
	return true
}

// decrease is guest_remove_page, for XENMEM_decrease_reservation. What the guest
// leaves in the page is its own affair.
func (w *World) decrease(slot, pfn int8) {
	d := &w.doms[slot]
	f := d.p2m[pfn].frame
	if d.phase != running || d.locked != none || d.p2m[pfn].typ == p2mHole {
		return
	}
	w.setEntry(slot, pfn, none, p2mHole, false)
	w.frames[f].gpfn, w.frames[f].given = none, true
	w.putAllocRef(f)
}

// copyBegin, copyWrite and copyEnd are __hvm_copy: a reference, the bytes, then
// paging_mark_pfn_dirty and the reference back.
func (w *World) copyBegin(slot, pfn int8) {
	d := &w.doms[slot]
	if d.phase != running || d.locked != none || d.p2m[pfn].typ == p2mHole || w.copier.inUse {
		return
	}
	w.copier = copying{slot: slot, pfn: pfn, frame: d.p2m[pfn].frame, inUse: true}
	w.frames[w.copier.frame].refs++
}

func (w *World) copyWrite() {
	if c := &w.copier; c.inUse && !c.written {
		c.written = true
		w.store(c.frame, w.fresh(w.doms[c.slot].uuid))
	}
}

func (w *World) copyEnd() {
	c := &w.copier
	if !c.inUse || !c.written {
		return
	}
	if d := &w.doms[c.slot]; w.rules.has(XenWriteHook) && d.wc.has {
		w.gfnWritten(d, c.pfn)
	}
	w.putPage(c.frame)
	*c = copying{}
}

// foreignMap is get_page_from_l1e for a page of another domain.
func (w *World) foreignMap(slot, pfn int8, writable bool) int8 {
	d := &w.doms[slot]
	if d.phase == absent || d.phase >= dying || d.locked != none || d.p2m[pfn].typ == p2mHole {
		return none
	}
	for i := range w.maps {
		m := &w.maps[i]
		if m.inUse {
			continue
		}
		*m = mapping{frame: d.p2m[pfn].frame, writable: writable, inUse: true}
		w.frames[m.frame].refs++
		if writable && w.rules.has(ForeignHook) {
			w.pageWritable(m.frame)
		}
		return int8(i)
	}
	return none
}

func (w *World) foreignWrite(i int8) {
	m := &w.maps[i]
	if m.inUse && m.writable && w.frames[m.frame].owner >= 0 {
		w.store(m.frame, w.fresh(w.doms[w.frames[m.frame].owner].uuid))
	}
}

// foreignUnmap is put_page_from_l1e. A PV domain that is not to be trusted may
// keep a translation for a while.
func (w *World) foreignUnmap(i int8, flush bool) {
	m := &w.maps[i]
	if !m.inUse {
		return
	}
	if p := &w.frames[m.frame]; !flush && m.writable && p.owner >= 0 {
		p.stale, p.staleFor = true, w.doms[p.owner].uuid
	}
	w.putPage(m.frame)
	*m = mapping{}
}

// staleWrite is a write through such a translation. Writing to the domain that
// one has privileges over is allowed anyway, to another it is not.
func (w *World) staleWrite(f int8) {
	p := &w.frames[f]
	if p.stale && p.owner >= 0 && w.doms[p.owner].uuid != p.staleFor {
		w.fail("a page is written to through a translation from before it changed hands")
	}
}
