package custody

import (
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/internal/disk"
)

// on has a reading be of a stack.
func on(r disk.Reading, s disk.Stack) disk.Reading {
	r.Stack = s
	return r
}

// TestBelow: what the disk consists of has to stay the same from the first reading to
// the last; if it does not, the disk is compared, and not taken for another one. It is
// nobody's write, either: a write is still found.
func TestBelow(t *testing.T) {
	dm := disk.Layer{Name: "dm-0", Device: "253:0", DiskSeq: 5, What: "web, linear"}
	plain := disk.Stack{Layers: []disk.Layer{dm}, Listener: "a"}
	resumed, origin, blind, again := plain, plain, plain, plain
	resumed.Layers = []disk.Layer{dm}
	resumed.Layers[0].Changes = 2
	origin.Layers = []disk.Layer{dm}
	origin.Layers[0].What = "web, snapshot-origin"
	blind.Blind = "zd0 is a ZFS volume"
	again.Layers = []disk.Layer{dm}
	again.Layers[0].DiskSeq = 9

	id := disk.Identity{Name: "/dev/dm-0", Size: 1 << 30, Block: "253:0", DiskSeq: 5, Own: "dm LVM-web"}
	returned := id
	returned.DiskSeq = 9
	for _, c := range []struct {
		name                     string
		open, alive, closed, now disk.Stack
		id                       disk.Identity
		written                  uint64 // at the end
		want                     Judgement
		why                      string
	}{
		{"the same throughout", plain, plain, plain, plain, id, 140, Certain, ""},
		{"a snapshot merged while the guest was off", plain, plain, origin, plain, id, 140, Uncertain, "web, snapshot-origin"},
		{"a table exchanged and exchanged back while it was off", plain, plain, plain, resumed, id, 140, Uncertain, "suspended and resumed"},
		{"a snapshot taken and removed while it ran", plain, origin, plain, plain, id, 140, Uncertain, "web, snapshot-origin"},
		{"not known when the guest was first seen", disk.Stack{}, plain, plain, plain, id, 140, Uncertain, "not known at all times"},
		{"what cannot vouch", blind, blind, blind, blind, id, 140, Uncertain, "ZFS"},
		{"what can vouch no longer", plain, plain, plain, blind, id, 140, Uncertain, "ZFS"},
		{"deactivated and activated", plain, plain, plain, again, returned, 140, Uncertain, "removed and added again"},
		{"the same, with counters that began anew", plain, plain, plain, again, returned, 7, Uncertain, "removed and added again"},
		{"and with counters of another device", plain, plain, plain, again, returned, 1 << 20, Uncertain, "removed and added again"},
		{"a snapshot taken and removed, and a write", plain, origin, plain, plain, id, 148, Broken, "8 sectors"},
	} {
		a := Open(id, on(at(0, 100), c.open))
		a.Enter(on(at(500, 140, 40), c.alive))
		a.Close(on(at(600, 140, 40), c.closed))
		got, why := a.Judge(c.id, on(at(3000, c.written), c.now), false)
		if got != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%s: %s (%s), want %s", c.name, got, why, c.want)
		}
	}
}

// TestReturnedWhileRunning: the guest's disk is taken away and given back; its
// counters have begun anew, which is nobody's write.
func TestReturnedWhileRunning(t *testing.T) {
	stack := func(seq uint64) disk.Stack {
		return disk.Stack{Layers: []disk.Layer{{Name: "sdb", Device: "8:16", DiskSeq: seq, What: "disk"}}}
	}
	a := Open(phy, on(at(0, 100, 0), stack(3)))
	a.Enter(on(at(500, 140, 40), stack(3)))
	a.Enter(on(at(1000, 1<<20, 0), stack(4)))
	a.Enter(on(at(1500, 1<<20+8, 8), stack(4)))
	if a.Breach != "" || !strings.Contains(a.Doubt, "sdb") {
		t.Errorf("breach %q, doubt %q", a.Breach, a.Doubt)
	}
	a.Enter(on(at(2000, 1<<20+24, 16), stack(4)))
	if a.Breach == "" {
		t.Error("a write afterwards is not seen")
	}
}

// TestFileWentBack: the file system below an image file was rolled back while the
// guest ran.
func TestFileWentBack(t *testing.T) {
	a := Open(loop, file(at(0, 0, 0), 7))
	a.Enter(file(at(500, 40, 40), 9))
	a.Enter(file(at(600, 40, 40), 8))
	if !strings.Contains(a.Doubt, "went back") {
		t.Errorf("%q", a.Doubt)
	}
}
