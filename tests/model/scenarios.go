package model

import "strings"

// A scenario is a schedule that matters: the way to each known mistake. Half of the
// random schedules are a scenario with random steps in between, so that what comes
// after it, and close to it, is looked at as well.
type scenario struct {
	name  string
	steps []Step
}

// parse reads steps as Step.String writes them, separated by semicolons.
// Arguments that are left out are 0.
func parse(text string) []Step {
	var steps []Step
	for _, line := range strings.Split(text, ";") {
		line = strings.TrimSpace(line)
		step, found := Step{}, false
		for i, o := range operations {
			rest, ok := strings.CutPrefix(line, o.name)
			args := strings.Fields(rest)
			if !ok || rest != "" && rest[0] != ' ' || len(args) > 0 && (args[0][0] < '0' || args[0][0] > '9') {
				continue
			}
			step.Op, found = uint8(i), true
			for j, arg := range args {
				n := 0
				for _, c := range arg {
					n = n*10 + int(c-'0')
				}
				*[...]*uint8{&step.A, &step.B, &step.C}[j] = uint8(n)
			}
		}
		if !found {
			panic("no such step: " + line)
		}
		steps = append(steps, step)
	}
	return steps
}

var scenarios = []scenario{
	{"somebody has the page mapped before it is registered", parse(
		"start; foreign map; read; register ends; I/O mapped; I/O at the disk; foreign write; foreign unmap;" +
			"I/O unmapped; I/O answered; I/O completed")},
	{"a commit while the backend has the page", parse(
		"start 0 4; register; register ends; hostile I/O; I/O mapped; commit; I/O at the disk")},
	{"a commit before the flush", parse(
		"start 0 4; wild write; register; register goes on; register goes on; register goes on; commit; wild write")},
	{"Xen writes to a page", parse(
		"start; read to its end; Xen's copy begins; Xen's copy writes; Xen's copy ends; reboot 0 0 64; restore to its end")},
	{"a kernel that tracks nothing", parse(
		"start; read to its end; reboot 0 6; direct write; I/O from start to end; I/O from start to end;" +
			"reboot 0 0 64; restore to its end")},
	{"suspended, and back later", parse(
		"start; read to its end; suspend; die; the guest writes elsewhere; reboot 0 0 64; restore to its end")},
	{"judged before all of it is there", parse(
		"start; read to its end 0 3 0; read to its end 0 0 1; kill the agent; die; dom0 writes to the disk;" +
			"start the agent; start; restore to its end 0 3")},
	{"another kernel without another domain", parse(
		"start; read to its end; soft reset 0 1; boot; mount; direct write; I/O from start to end;" +
			"I/O from start to end; reboot 0 0 64; restore to its end")},
	{"and then one that tracks", parse(
		"start; read to its end; soft reset 0 1; boot; mount; direct write; I/O from start to end;" +
			"I/O from start to end; soft reset; enable; boot; mount; reboot 0 0 64; restore to its end")},
	{"another kernel by kexec", parse(
		"start; read to its end; kexec 0 1; boot; mount; direct write; I/O from start to end;" +
			"I/O from start to end; reboot 0 0 64; restore to its end")},
	{"and then one that tracks, by kexec", parse(
		"start; read to its end; kexec 0 1; boot; mount; direct write; I/O from start to end;" +
			"I/O from start to end; kexec; boot; mount; reboot 0 0 64; restore to its end")},
	{"a file moves to another block", parse(
		"start; read to its end; truncate; truncate 0 1; journal; extend 0 16 1; writeback 0 1; register ends;" +
			"I/O from start to end; journal; reboot 0 0 64; restore to its end")},
	{"nobody watched", parse(
		"start; read to its end; kill the agent; die; dom0 writes to the disk; start the agent; reboot 0 0 64;" +
			"restore to its end")},
	{"dom0 writes while a read is under way", parse(
		"start; read; register ends; I/O mapped; I/O at the disk; dom0 writes to the disk; poll; I/O unmapped;" +
			"I/O answered; I/O completed; reboot 0 0 64; restore to its end")},
	{"a translation that is left", parse(
		"start; foreign map; foreign unmap 0 0 224; read to its end; die; drop image; reap; reap; start 1; stale write")},
	{"another UUID after adoption", parse("start; read to its end; die; create; populate; rename; populate 0 1; unpause")},
	{"a page that finds no place", parse("start; read to its end; die; create; populate, no memory for the P2M; die; start 1")},
	{"a kernel without a warm cache in between", parse(
		"start; read to its end; reboot 0 7; direct write; I/O from start to end; I/O from start to end;" +
			"reboot 0 0 64; restore to its end")},
	{"preservation is interrupted", parse("start; read to its end; destroy; relinquish; disarm; relinquish; relinquish")},
	{"a read overtakes a direct write", parse(
		"start; direct write 0 0 1; register ends 0 1; read to its end; I/O from start to end; reboot 0 0 64; restore to its end")},
	{"a write to a held page's sector during its restore", parse(
		"start; read to its end; reboot 0 0 64; restore; restore; direct write; register ends; I/O from start to end; restore")},
	{"I/O that fails", parse(
		"start; read; register ends; I/O mapped; I/O at the disk 0 0 224; I/O unmapped; I/O answered; I/O completed")},
	{"a write that outlives its domain", parse(
		"start; read to its end; touch; writeback; register ends; I/O mapped; reboot 0 0 64; read to its end 4 1 0;" +
			"I/O at the disk; I/O unmapped; poll 4; reboot 0 0 64; restore to its end 4 1")},
}
