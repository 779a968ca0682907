package model

import "fmt"

// Step is one step of a schedule: an operation and what it is about. Arguments out
// of range are taken modulo what there is.
type Step struct {
	Op      uint8
	A, B, C uint8
}

// operation is what a step can be.
type operation struct {
	name   string
	weight int
	do     func(w *World, a, b, c uint8)
	// subject is what A is: by default a slot, or whatever.
	subject subject
}

type subject uint8

const (
	aUUID subject = iota + 1
	aKind         // A is a UUID, and B a kernel
	aFine         // a part of what another operation does as a whole
)

// slots are what a slot is drawn from: the first ones are mostly in use.
var slots = [8]int8{0, 0, 0, 0, 1, 1, 1, 2}

func slot(a uint8) int8  { return slots[a%8] }
func pfn(a uint8) int8   { return int8(a % nPFNs) }
func key(a uint8) int8   { return int8(a % nKeys) }
func block(a uint8) int8 { return int8(a % nBlocks) }
func vbd(a uint8) int8   { return int8(a % nVBDs) }
func io(a uint8) int8    { return int8(a % nIOs) }
func uuid(a uint8) uint8 { return a % nUUIDs }
func cpu(a uint8) uint8  { return a % nVCPUs }

// kinds is how often which kernel boots.
var kinds = [8]kind{patched, patched, patched, patched, hostile, hostile, unpatched, pv}

var operations = [...]operation{
	// Birth and death.
	{"start", 6, func(w *World, a, b, c uint8) { w.start(uuid(a), kinds[b%8], c>>6 == 0) }, aKind},
	{"reboot", 8, func(w *World, a, b, c uint8) { w.reboot(uuid(a), kinds[b%8], c>>6 == 0) }, aKind},
	{"create", 3, func(w *World, a, b, c uint8) { w.create(uuid(a), kinds[b%8]) }, aKind},
	{"populate", 4, func(w *World, a, b, c uint8) { w.populate(slot(a), pfn(b), false) }, 0},
	{"populate, no memory for the P2M", 1, func(w *World, a, b, c uint8) { w.populate(slot(a), pfn(b), true) }, 0},
	{"build", 2, func(w *World, a, b, c uint8) { w.build(slot(a), pfn(b)) }, 0},
	{"unpause", 2, func(w *World, a, b, c uint8) { w.unpause(slot(a)) }, 0},
	{"boot", 3, func(w *World, a, b, c uint8) { w.boot(slot(a)) }, 0},
	{"mount", 3, func(w *World, a, b, c uint8) { w.mount(slot(a)) }, 0},
	{"die", 5, func(w *World, a, b, c uint8) { w.die(slot(a)) }, 0},
	{"destroy", 2, func(w *World, a, b, c uint8) { w.destroy(slot(a)) }, 0},
	{"relinquish", 6, func(w *World, a, b, c uint8) { w.relinquish(slot(a)) }, 0},
	{"suspend", 1, func(w *World, a, b, c uint8) { w.suspend(slot(a)) }, 0},
	{"soft reset", 1, func(w *World, a, b, c uint8) { w.softReset(slot(a), kind(b%2)) }, 0},
	{"kexec", 1, func(w *World, a, b, c uint8) { w.kexec(slot(a), kind(b%2)) }, 0},
	{"rename", 1, func(w *World, a, b, c uint8) { w.rename(slot(a)) }, 0},
	{"drop image", 1, func(w *World, a, b, c uint8) { w.dropImage(uuid(a)) }, aUUID},
	{"reclaim", 1, func(w *World, a, b, c uint8) { w.reclaim() }, 0},
	{"reap", 2, func(w *World, a, b, c uint8) { w.reap() }, 0},
	// The agent, and dom0.
	{"judge", 6, func(w *World, a, b, c uint8) { w.judge(slot(a), vbd(b), c%4 == 0) }, 0},
	{"poll", 3, func(w *World, a, b, c uint8) { w.poll(slot(a)) }, 0},
	{"kill the agent", 1, func(w *World, a, b, c uint8) { w.kill() }, 0},
	{"start the agent", 1, func(w *World, a, b, c uint8) { w.restart() }, 0},
	{"enable", 6, func(w *World, a, b, c uint8) { w.turnOn(slot(a)) }, 0},
	{"disable", 1, func(w *World, a, b, c uint8) { w.turnOff(slot(a)) }, 0},
	{"disarm", 1, func(w *World, a, b, c uint8) { w.disarm(slot(a)) }, 0},
	{"drop", 1, func(w *World, a, b, c uint8) { w.dropVBD(slot(a), vbd(b)) }, 0},
	{"dom0 writes to the disk", 2, func(w *World, a, b, c uint8) { w.diskWrite(uuid(a), block(b)) }, aUUID},
	{"the guest writes elsewhere", 1, func(w *World, a, b, c uint8) { w.elsewhere(uuid(a), block(b)) }, aUUID},
	{"foreign map", 2, func(w *World, a, b, c uint8) { w.foreignMap(slot(a), pfn(b), c%2 == 0) }, 0},
	{"foreign write", 2, func(w *World, a, b, c uint8) { w.foreignWrite(int8(a % nMaps)) }, 0},
	{"foreign unmap", 3, func(w *World, a, b, c uint8) { w.foreignUnmap(int8(a%nMaps), c>>5 != 7) }, 0},
	{"stale write", 1, func(w *World, a, b, c uint8) { w.staleWrite(int8(a % nFrames)) }, 0},
	// Xen's own writes.
	{"Xen's copy begins", 2, func(w *World, a, b, c uint8) { w.copyBegin(slot(a), pfn(b)) }, aFine},
	{"Xen's copy writes", 2, func(w *World, a, b, c uint8) { w.copyWrite() }, aFine},
	{"Xen's copy ends", 2, func(w *World, a, b, c uint8) { w.copyEnd() }, aFine},
	// Hypercalls that go on, and I/O.
	{"register goes on", 30, func(w *World, a, b, c uint8) { w.register(slot(a), cpu(b)) }, aFine},
	{"register ends", 12, func(w *World, a, b, c uint8) { w.registerAll(slot(a), cpu(b)) }, 0},
	{"I/O mapped", 14, func(w *World, a, b, c uint8) { w.ioMap(io(a)) }, aFine},
	{"I/O at the disk", 14, func(w *World, a, b, c uint8) { w.ioTransfer(io(a), c>>5 == 7) }, aFine},
	{"I/O unmapped", 14, func(w *World, a, b, c uint8) { w.ioUnmap(io(a)) }, aFine},
	{"I/O answered", 14, func(w *World, a, b, c uint8) { w.ioAnswer(io(a)) }, aFine},
	{"I/O completed", 14, func(w *World, a, b, c uint8) { w.complete(io(a)) }, aFine},
	{"I/O from start to end", 12, func(w *World, a, b, c uint8) { w.ioAll(io(a)) }, 0},
	// The guest's kernel.
	{"read", 24, func(w *World, a, b, c uint8) { w.read(slot(a), cpu(b>>4), pfn(b), key(c)) }, 0},
	{"read to its end", 16, func(w *World, a, b, c uint8) { w.readAll(slot(a), cpu(b>>4), pfn(b), key(c)) }, 0},
	{"touch", 6, func(w *World, a, b, c uint8) { w.touch(slot(a), pfn(b)) }, 0},
	{"wild write", 5, func(w *World, a, b, c uint8) { w.cpuWrite(slot(a), pfn(b)) }, 0},
	{"writeback", 8, func(w *World, a, b, c uint8) { w.writeback(slot(a), cpu(c), pfn(b)) }, 0},
	{"write to its end", 6, func(w *World, a, b, c uint8) { w.writeAll(slot(a), cpu(c), pfn(b)) }, 0},
	{"direct write to its end", 3, func(w *World, a, b, c uint8) { w.directAll(slot(a), cpu(c), key(b)) }, 0},
	{"direct write", 6, func(w *World, a, b, c uint8) { w.direct(slot(a), cpu(c), key(b)) }, 0},
	{"evict", 3, func(w *World, a, b, c uint8) { w.evict(slot(a), pfn(b)) }, 0},
	{"unregister", 2, func(w *World, a, b, c uint8) { w.flush(slot(a), pfn(b)) }, 0},
	{"truncate", 3, func(w *World, a, b, c uint8) { w.truncate(slot(a), key(b)) }, 0},
	{"extend", 4, func(w *World, a, b, c uint8) { w.extend(slot(a), key(b), block(b>>4), pfn(c)) }, 0},
	{"journal", 3, func(w *World, a, b, c uint8) { w.journal(slot(a)) }, 0},
	{"restore to its end", 10, func(w *World, a, b, c uint8) { w.restoreAll(slot(a), pfn(b)) }, 0},
	{"restore", 8, func(w *World, a, b, c uint8) { w.restoreStep(slot(a), pfn(b)) }, 0},
	{"give back", 1, func(w *World, a, b, c uint8) { w.giveBack(slot(a), pfn(b)) }, 0},
	{"balloon out", 2, func(w *World, a, b, c uint8) { w.balloon(slot(a), pfn(b)) }, 0},
	// A hostile guest.
	{"attach", 4, func(w *World, a, b, c uint8) { w.evilAttach(slot(a)) }, 0},
	{"register", 8, func(w *World, a, b, c uint8) {
		w.evilRegister(slot(a), cpu(b>>4), pfn(b), block(c), c&16 != 0, c&32 != 0)
	}, 0},
	{"track to its end", 6, func(w *World, a, b, c uint8) { w.evilAll(slot(a), cpu(b>>4), pfn(b), block(c), c&32 != 0) }, 0},
	{"commit", 5, func(w *World, a, b, c uint8) { w.evilCommit(slot(a), pfn(b)) }, 0},
	{"hostile unregister", 1, func(w *World, a, b, c uint8) { w.evilUnregister(slot(a), pfn(b)) }, 0},
	{"hostile I/O", 6, func(w *World, a, b, c uint8) { w.evilIO(slot(a), pfn(b), block(c), c&16 != 0) }, 0},
}

func (s Step) String() string {
	return fmt.Sprintf("%s %d %d %d", operations[s.Op].name, s.A, s.B, s.C)
}

// Apply takes a step and checks the invariants.
func (w *World) Apply(s Step) {
	operations[s.Op].do(w, s.A, s.B, s.C)
	w.check()
}
