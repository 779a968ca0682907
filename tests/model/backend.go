package model

// blockIO is a request from the guest's driver to the disk and back.
type blockIO struct {
	inUse, write bool
	raw          bool // of a hostile guest, which is not waited for
	tracked      bool // to be committed
	failed       bool
	dead         bool // the domain is gone, the request is not
	slot         int8
	uuid, born   uint8 // whose disk, and in which life of the UUID
	pfn, frame   int8  // none: a buffer that is of no interest
	key, block   int8
	payload      Bytes // of a write without a PFN
	stage        ioStage
}

type ioStage uint8

const (
	ioAnnounced ioStage = iota
	ioQueued
	ioMapped
	ioDone // at the disk
	ioUnmapped
	ioAnswered
	ioEnded // for the driver, not yet for who asked for it
)

func (w *World) newIO(io blockIO) int8 {
	for i := range w.ios {
		if !w.ios[i].inUse {
			io.inUse, io.frame, io.born = true, none, w.born[io.uuid]
			w.ios[i] = io
			return int8(i)
		}
	}
	return none
}

// ioMap is map_grant_ref, with its hook.
func (w *World) ioMap(i int8) {
	io := &w.ios[i]
	if !io.inUse || io.stage != ioQueued {
		return
	}
	if io.pfn != none {
		d := &w.doms[io.slot]
		if io.dead || d.locked != none {
			return
		}
		if d.p2m[io.pfn].typ == p2mHole {
			io.failed, io.stage = true, ioUnmapped
			return
		}
		io.frame = d.p2m[io.pfn].frame
		w.frames[io.frame].refs++
		w.pageGranted(io.frame, io.write, i)
	}
	io.stage = ioMapped
}

// ioTransfer is the disk's part. It may fail, and then leaves what it likes.
func (w *World) ioTransfer(i int8, fail bool) {
	io := &w.ios[i]
	if !io.inUse || io.stage != ioMapped {
		return
	}
	io.stage, io.failed = ioDone, fail
	block := &w.disk[io.uuid][io.block]
	if !io.write {
		if io.payload = *block; fail {
			io.payload = w.fresh(io.uuid)
		}
		if io.frame != none {
			w.store(io.frame, io.payload)
		}
		return
	}
	switch {
	case fail:
		*block = w.fresh(io.uuid)
	case io.frame != none:
		*block = w.frames[io.frame].bytes
	default:
		*block = io.payload
	}
	if !io.dead {
		w.doms[io.slot].wrote[vbdOf(io.block)] = true
	} else if io.born != w.born[io.uuid] {
		w.foreignWritten(io.uuid, io.block)
	}
}

// ioUnmap is unmap_common_complete, which comes before the answer.
func (w *World) ioUnmap(i int8) {
	io := &w.ios[i]
	if !io.inUse || io.stage != ioDone {
		return
	}
	if io.frame != none {
		w.putPage(io.frame)
		io.frame = none
	}
	io.stage = ioUnmapped
}

// ioAnswer puts the response on the ring.
func (w *World) ioAnswer(i int8) {
	io := &w.ios[i]
	if !io.inUse || io.stage != ioUnmapped {
		return
	}
	if io.stage = ioAnswered; io.dead || io.raw {
		*io = blockIO{}
	}
}

// orphan is what becomes of a domain's I/O when it dies: what the backend has
// begun goes on, and what it can still begin may begin.
func (w *World) orphan(slot int8) {
	for i := range w.ios {
		io := &w.ios[i]
		if !io.inUse || io.dead || io.slot != slot {
			continue
		}
		if io.dead = true; io.stage == ioAnnounced || io.stage >= ioAnswered || io.stage == ioQueued && io.pfn != none {
			*io = blockIO{}
		}
	}
}

// foreignWritten tells the agent, as far as it can know, that a disk was written
// to by somebody else than the guest that has it.
func (w *World) foreignWritten(uuid uint8, block int8) {
	a := &w.acct[uuid][vbdOf(block)]
	s := w.find(uuid)
	switch {
	case s != none && w.doms[s].phase >= running:
		a.up = true
	case w.noSee:
		a.uncertain = true
	default:
		a.down = true
	}
}
