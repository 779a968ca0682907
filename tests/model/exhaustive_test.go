package model

import (
	"flag"
	"hash/maphash"
	"testing"
)

var depth = flag.Int("depth", 6, "how many steps the exhaustive search takes from each beginning")

// beginnings of the exhaustive search: a first boot, one that holds a page which is
// approved, and a hostile guest.
var beginnings = []string{
	"start; read to its end",
	"start; read to its end; reboot 0 0 64",
	"start 0 4; wild write",
}

// small is what it takes: one page, one block, two CPUs.
var small = parse("read 0 0 0; read 0 16 1; direct write 0 0 1; direct write; writeback; touch; wild write;" +
	"register goes on; register goes on 0 1; I/O mapped; I/O mapped 1; I/O at the disk; I/O at the disk 1;" +
	"I/O unmapped; I/O unmapped 1; I/O answered; I/O answered 1; I/O completed; I/O completed 1;" +
	"foreign map; foreign write; foreign unmap; Xen's copy begins; Xen's copy writes; Xen's copy ends;" +
	"dom0 writes to the disk; poll; judge; evict; unregister; truncate; journal; restore; balloon out; populate;" +
	"reboot 0 0 64; destroy; relinquish; disarm; register; register 0 16; commit; hostile I/O; hostile I/O 0 0 16")

// TestExhaustive takes all schedules of a few steps: what a random one of this
// length could have missed.
func TestExhaustive(t *testing.T) {
	seed := maphash.MakeSeed()
	for _, text := range beginnings {
		var first World
		first.Reset(allRules)
		for _, s := range parse(text) {
			first.Apply(s)
		}
		worlds, seen := []World{first}, map[uint64]bool{}
		for range *depth {
			var next []World
			for i := range worlds {
				for _, s := range small {
					w := worlds[i]
					if w.Apply(s); w.bad != "" {
						t.Fatalf("after %q, at %v: %s", text, s, w.bad)
					}
					if h := maphash.Comparable(seed, w); !seen[h] {
						seen[h] = true
						next = append(next, w)
					}
				}
			}
			worlds = next
		}
		for i := range worlds {
			if worlds[i].finish(); worlds[i].bad != "" {
				t.Fatalf("after %q, at the end: %s", text, worlds[i].bad)
			}
		}
		t.Logf("after %q: %d states", text, len(seen))
	}
}
