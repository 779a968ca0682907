package model

// A hostile guest: it may call what it likes when it likes, and grant any page to
// the backend for any block.

func (w *World) evil(slot int8) *domain {
	if d := &w.doms[slot]; d.phase == running && d.kind == hostile {
		return d
	}
	return nil
}

func (w *World) evilAttach(slot int8) {
	if d := w.evil(slot); d != nil && d.wc.enabled {
		w.attach(d)
	}
}

// evilRegister registers one page or two, in one batch, for the same block or for
// neighbours.
func (w *World) evilRegister(slot int8, vcpu uint8, pfn, block int8, two, write bool) {
	d := w.evil(slot)
	if d == nil || !d.wc.enabled || !d.wc.attached || d.batch[vcpu].stage != batchNone {
		return
	}
	b := batch{stage: batchRanges, n: 1, io: none}
	b.req[0] = request{pfn: pfn, ent: entry{key: block, block: block, liar: true}, write: write}
	if two {
		b.n = 2
		b.req[1] = b.req[0]
		b.req[1].pfn = (pfn + 1) % nPFNs
	}
	d.batch[vcpu] = b
}

func (w *World) evilCommit(slot, pfn int8) {
	if d := w.evil(slot); d != nil && d.wc.enabled && d.wc.attached {
		w.commit(d, pfn)
	}
}

func (w *World) evilUnregister(slot, pfn int8) {
	if d := w.evil(slot); d != nil {
		w.unregister(d, pfn)
	}
}

func (w *World) evilIO(slot, pfn, block int8, write bool) {
	if d := w.evil(slot); d != nil {
		w.newIO(blockIO{slot: slot, uuid: d.uuid, raw: true, write: write, pfn: pfn, block: block, stage: ioQueued})
	}
}
