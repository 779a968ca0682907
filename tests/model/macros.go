package model

// Several steps in one, to get somewhere in short schedules: what nobody
// interrupts, as it mostly is.

// start makes a domain that runs, with all its memory, and with file systems if
// it is not hostile. early: the agent judges when half of the memory is there.
func (w *World) start(uuid uint8, k kind, early bool) {
	if w.find(uuid) != none {
		return
	}
	w.create(uuid, k)
	s := w.find(uuid)
	if s == none {
		return
	}
	for p := int8(0); p < nPFNs; p++ {
		if early && p == nPFNs/2 {
			w.judge(s, 0, false)
			w.judge(s, 1, false)
		}
		w.populate(s, p, false)
	}
	w.unpause(s)
	w.turnOn(s)
	w.evilAttach(s)
	w.boot(s)
	w.mount(s)
}

// die is the whole of a death.
func (w *World) die(slot int8) {
	w.destroy(slot)
	for n := 0; w.doms[slot].phase >= dying && n < nFrames+5; n++ {
		w.relinquish(slot)
	}
}

func (w *World) register(slot int8, vcpu uint8) {
	d := &w.doms[slot]
	if d.phase == running && w.registerStep(slot, vcpu) {
		if i := d.batch[vcpu].io; i != none {
			w.announced(i)
		}
	}
}

func (w *World) registerAll(slot int8, vcpu uint8) {
	for n := 0; w.doms[slot].batch[vcpu].stage != batchNone && n < 12; n++ {
		w.register(slot, vcpu)
	}
}

func (w *World) ioAll(i int8) {
	w.ioMap(i)
	w.ioTransfer(i, false)
	w.ioUnmap(i)
	w.ioAnswer(i)
	w.complete(i)
}

// balloon takes a page from the guest: of its kernel's choice, or of its malice.
func (w *World) balloon(slot, pfn int8) {
	d := &w.doms[slot]
	if d.kind == hostile || d.kernel.pages[pfn].use == pageFree {
		w.decrease(slot, pfn)
	}
}

// reboot is a death, a birth, and the agent's judgement.
func (w *World) reboot(uuid uint8, k kind, all bool) {
	if s := w.find(uuid); s != none {
		w.die(s)
	}
	w.start(uuid, k, false)
	if s := w.find(uuid); s != none {
		for v := int8(0); v < nVBDs; v++ {
			w.judge(s, v, all)
		}
	}
}

// toEnd finishes a request of the guest's kernel that was just submitted.
func (w *World) toEnd(slot int8, vcpu uint8) {
	i := w.doms[slot].batch[vcpu].io
	if w.doms[slot].batch[vcpu].stage == batchNone || i == none {
		return
	}
	w.registerAll(slot, vcpu)
	w.ioAll(i)
	w.complete(i)
}

func (w *World) readAll(slot int8, vcpu uint8, pfn, key int8) {
	w.read(slot, vcpu, pfn, key)
	w.toEnd(slot, vcpu)
}

func (w *World) writeAll(slot int8, vcpu uint8, pfn int8) {
	w.touch(slot, pfn)
	w.writeback(slot, vcpu, pfn)
	w.toEnd(slot, vcpu)
}

func (w *World) directAll(slot int8, vcpu uint8, key int8) {
	w.direct(slot, vcpu, key)
	w.toEnd(slot, vcpu)
}

func (w *World) restoreAll(slot, pfn int8) {
	for range 4 {
		w.restoreStep(slot, pfn)
	}
}

// evilAll tracks a page of a hostile guest as it should be.
func (w *World) evilAll(slot int8, vcpu uint8, pfn, block int8, write bool) {
	w.evilRegister(slot, vcpu, pfn, block, false, write)
	w.registerAll(slot, vcpu)
	d := w.evil(slot)
	if d == nil {
		return
	}
	if i := w.newIO(blockIO{slot: slot, uuid: d.uuid, raw: true, write: write, pfn: pfn, block: block, stage: ioQueued}); i != none {
		w.ioAll(i)
		w.evilCommit(slot, pfn)
	}
}
