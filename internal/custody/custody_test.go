package custody

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/internal/disk"
)

var (
	phy  = disk.Identity{Name: "/dev/vdb", Size: 1 << 30, Block: "254:16"}
	loop = disk.Identity{Name: "/srv/a.img", Size: 1 << 30, Loop: "/dev/loop0", File: &disk.FileID{Path: "/srv/a.img", Inode: 5}}
	t0   = time.Unix(1e9, 0)
)

func at(ms int, written uint64, guest ...uint64) disk.Reading {
	r := disk.Reading{At: t0.Add(time.Duration(ms) * time.Millisecond), Written: written}
	if len(guest) > 0 {
		r.Guest = &disk.GuestIO{Written: guest[0]}
	}
	if len(guest) > 1 {
		r.Guest.Discards = guest[1]
		r.Discarded = guest[1] * 8
	}
	return r
}

func file(r disk.Reading, mtime int64) disk.Reading {
	r.File = &disk.FileState{Size: 1 << 30, Mtime: mtime, Ctime: mtime}
	return r
}

func TestJudge(t *testing.T) {
	other := phy
	other.Block = "254:32"
	bigger := phy
	bigger.Size++
	replaced := loop
	replaced.File = &disk.FileID{Path: "/srv/a.img", Inode: 6}
	reloop := loop
	reloop.Loop = "/dev/loop3"
	trace := func(a Account) Account { a.Traced = true; return a }

	for _, c := range []struct {
		name   string
		open   Account
		alive  []disk.Reading
		closed *disk.Reading
		id     disk.Identity
		now    disk.Reading
		ran    bool
		want   Judgement
	}{
		{"crash, counters readable after death", Open(phy, at(0, 100)),
			[]disk.Reading{at(500, 100, 0), at(1000, 140, 40), at(1500, 150, 80)}, ptr(at(1600, 180, 80)), phy, at(3000, 180), false, Certain},
		{"new guest has written already", Open(phy, at(0, 100)),
			[]disk.Reading{at(500, 140, 40)}, ptr(at(600, 140, 40)), phy, at(3000, 156, 16), true, Certain},
		{"new guest's writes are under way", Open(phy, at(0, 100)),
			[]disk.Reading{at(500, 140, 40)}, ptr(at(600, 140, 40)), phy, at(3000, 148, 16), true, Uncertain},
		{"idle graceful shutdown", Open(phy, at(0, 100, 0)),
			[]disk.Reading{at(500, 140, 40)}, ptr(at(600, 140)), phy, at(3000, 140), false, Certain},
		{"graceful shutdown with last writes", Open(phy, at(0, 100, 0)),
			[]disk.Reading{at(500, 140, 40)}, ptr(at(600, 180)), phy, at(3000, 180), false, Uncertain},
		{"the same, traced", trace(Open(phy, at(0, 100, 0))),
			[]disk.Reading{at(500, 140, 40)}, ptr(at(600, 180)), phy, at(3000, 180), false, Certain},
		{"dom0 wrote while down", Open(phy, at(0, 100, 0)),
			[]disk.Reading{at(500, 140, 40)}, ptr(at(600, 140)), phy, at(3000, 148), false, Broken},
		{"dom0 wrote while down, guest writes too", Open(phy, at(0, 100, 0)),
			[]disk.Reading{at(500, 140, 40)}, ptr(at(600, 140)), phy, at(3000, 164, 16), true, Broken},
		{"dom0 wrote under the guest", Open(phy, at(0, 100, 0)),
			[]disk.Reading{at(500, 141, 40), at(700, 149, 40)}, ptr(at(800, 149, 40)), phy, at(3000, 149), false, Broken},
		{"counters never settle", Open(phy, at(0, 100, 0)),
			[]disk.Reading{at(500, 120, 40)}, ptr(at(600, 120, 40)), phy, at(3000, 120), false, Uncertain},
		{"never closed", Open(phy, at(0, 100, 0)), []disk.Reading{at(500, 120, 20)}, nil, phy, at(3000, 120), false, Uncertain},
		{"another disk", Open(phy, at(0, 100)), nil, ptr(at(600, 100)), other, at(3000, 100), false, Broken},
		{"resized", Open(phy, at(0, 100)), nil, ptr(at(600, 100)), bigger, at(3000, 100), false, Broken},
		{"opened on a busy guest", Open(phy, at(0, 100, 50)),
			[]disk.Reading{at(500, 130, 70), at(2500, 160, 100), at(3000, 170, 110)}, ptr(at(3100, 170, 110)), phy, at(5000, 170), false, Uncertain},
		{"the same, traced", trace(Open(phy, at(0, 100, 50))),
			[]disk.Reading{at(500, 130, 70), at(2500, 160, 100), at(3000, 170, 110)}, ptr(at(3100, 170, 110)), phy, at(5000, 170), false, Certain},
		{"reconnected, idle between", Open(phy, at(0, 100, 0)),
			[]disk.Reading{at(500, 140, 40), at(1000, 150, 10)}, ptr(at(4000, 150, 10)), phy, at(5000, 150), false, Certain},
		{"reconnected with writes between", Open(phy, at(0, 100, 0)),
			[]disk.Reading{at(500, 140, 40), at(1000, 158, 10)}, ptr(at(4000, 158, 10)), phy, at(5000, 158), false, Uncertain},
		{"guest discards", Open(phy, at(0, 100, 0, 0)),
			[]disk.Reading{at(500, 140, 40, 3)}, ptr(at(600, 140, 40, 3)), phy, discarded(at(3000, 140), 24), false, Certain},
		{"discards by others", Open(phy, at(0, 100, 0, 0)),
			[]disk.Reading{discarded(at(500, 140, 40), 8)}, ptr(discarded(at(600, 140, 40), 8)), phy, discarded(at(3000, 140), 8), false, Broken},
		{"discards while down", Open(phy, at(0, 100)), nil, ptr(at(600, 100)), phy, discarded(at(3000, 100), 8), false, Broken},
		{"not counted while the guest ran", trace(Open(phy, at(0, 100, 0))),
			[]disk.Reading{uncounted(at(500, 100, 40))}, ptr(at(600, 100, 40)), phy, at(3000, 100), false, Uncertain},
		{"not counted when it was first looked at", Open(phy, uncounted(at(0, 100))), nil, ptr(at(600, 100)), phy, at(3000, 100), false, Uncertain},
		{"not counted while the guest was down", Open(phy, at(0, 100)), nil, ptr(at(600, 100)), phy, uncounted(at(3000, 100)), false, Uncertain},
		{"counter reset", Open(phy, at(0, 100)), nil, ptr(at(600, 100)), phy, at(3000, 10), false, Uncertain},

		{"image, untouched, other loop device", Open(loop, file(at(0, 0), 7)),
			[]disk.Reading{file(at(500, 40, 40), 8)}, ptr(file(at(600, 40, 40), 8)), reloop, file(at(3000, 7), 8), false, Certain},
		{"image modified", Open(loop, file(at(0, 0), 7)), nil, ptr(file(at(600, 0), 8)), loop, file(at(3000, 0), 9), false, Broken},
		{"image replaced", Open(loop, file(at(0, 0), 7)), nil, ptr(file(at(600, 0), 8)), replaced, file(at(3000, 0), 8), false, Broken},
		{"image modified, guest is up", Open(loop, file(at(0, 0), 7)), nil, ptr(file(at(600, 0), 8)), loop, file(at(3000, 9, 9), 9), true, Uncertain},
		{"image modified, guest is up but has not written", Open(loop, file(at(0, 0), 7)), nil, ptr(file(at(600, 0), 8)), loop, file(at(3000, 0, 0), 9), true, Broken},
	} {
		a := c.open
		for _, r := range c.alive {
			a.Enter(r)
		}
		if c.closed != nil {
			a.Close(*c.closed)
		}
		got, why := a.Judge(c.id, c.now, c.ran)
		if got != c.want || (why == "") != (got == Certain) {
			t.Errorf("%s: %s (%s), want %s", c.name, got, why, c.want)
		}
	}
}

func ptr(r disk.Reading) *disk.Reading { return &r }

func uncounted(r disk.Reading) disk.Reading {
	r.Uncounted = true
	return r
}

func discarded(r disk.Reading, sectors uint64) disk.Reading {
	r.Discarded = sectors
	return r
}

// TestResume: what was not settled when the agent went away never is.
func TestResume(t *testing.T) {
	for _, c := range []struct {
		a    Account
		want Judgement
	}{{Open(phy, at(0, 100, 50)), Uncertain}, {Open(phy, at(0, 100, 0)), Certain}} {
		a := c.a
		a.Resume()
		a.Enter(at(9000, a.Last.Written, a.Last.Guest.Written))
		a.Close(at(9500, a.Last.Written, a.Last.Guest.Written))
		if got, why := a.Judge(phy, at(9900, a.Last.Written), false); got != c.want {
			t.Errorf("%s (%s), want %s", got, why, c.want)
		}
	}
}

// TestSettled: a reading with writes under way is not the one to judge by.
func TestSettled(t *testing.T) {
	a := Open(phy, at(0, 100, 0))
	a.Close(at(600, 140, 40))
	for _, c := range []struct {
		r    disk.Reading
		want bool
	}{{at(3000, 140), true}, {at(3000, 156, 16), true}, {at(3000, 148, 16), false}, {at(3000, 164, 16), true}} {
		if got := a.Settled(c.r); got != c.want {
			t.Errorf("%+v: %v", c.r, got)
		}
	}
}

// TestDrain: the books balance when the guest has died, and its backend has 24
// sectors of the ring yet to come to.
func TestDrain(t *testing.T) {
	for _, c := range []struct {
		name   string
		after  []disk.Reading // the death, at which 140 sectors had been written
		now    uint64
		traced bool
		want   Judgement
	}{
		{"they come", []disk.Reading{at(10, 140, 64), at(20, 164, 64), at(30, 164)}, 164, false, Certain},
		{"they come, and no reading shows it", []disk.Reading{at(30, 164)}, 164, false, Uncertain},
		{"the same, with a trace", []disk.Reading{at(30, 164)}, 164, true, Certain},
		{"they come after the last reading", nil, 164, false, Broken},
		{"somebody else's hide among them", []disk.Reading{at(10, 164, 64), at(30, 188)}, 188, false, Uncertain},
		{"somebody else's do not", []disk.Reading{at(10, 164, 64), at(20, 188, 64)}, 188, false, Broken},
		{"somebody else's afterwards", []disk.Reading{at(10, 140, 64), at(20, 164, 64), at(30, 164)}, 172, false, Broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := Open(phy, at(-1000, 100))
			a.Traced = c.traced
			a.Enter(at(-500, 140, 40))
			if a.Drain(at(0, 140, 40)); a.Closed == nil {
				t.Fatal("not closed when the books balanced: an agent that is killed now would know nothing")
			}
			for i, r := range c.after {
				if last := a.Drain(r); last != (i == len(c.after)-1) {
					t.Errorf("reading %d: last %v", i, last)
				}
			}
			if got, why := a.Judge(phy, at(3000, c.now), false); got != c.want {
				t.Errorf("judged %s (%s), want %s", got, why, c.want)
			}
		})
	}
}

// TestRandomHistories: a guest, its backend and somebody else write at random,
// also after the guest's death. Somebody else's write is never judged Certain;
// without one, nothing is judged Broken, and nothing Uncertain if the backend
// was seen with nothing under way before it disconnected.
func TestRandomHistories(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	certain := 0
	for i := range 20000 {
		written, guest, inflight := uint64(r.IntN(1000)), uint64(0), uint64(0)
		connected, foreign := false, uint64(0)
		ms := 0
		read := func() disk.Reading {
			ms += 100
			if connected {
				return at(ms, written, guest)
			}
			return at(ms, written)
		}
		a := Open(phy, read())
		evil := r.IntN(2) == 0
		step := func() {
			switch r.IntN(6) {
			case 0, 1:
				if connected {
					n := uint64(r.IntN(3) * 8)
					guest += n
					inflight += n
				}
			case 2:
				n := min(inflight, 8)
				inflight -= n
				written += n
			case 3:
				if !connected || inflight == 0 {
					// A connection that no reading sees is taken for somebody
					// else, which is wrong but safe: let it be seen.
					connected, guest = !connected, 0
					a.Enter(read())
				}
			case 4:
				if evil && r.IntN(4) == 0 {
					foreign += 8
					written += 8
				}
			case 5:
				a.Enter(read())
			}
		}
		for range r.IntN(30) {
			step()
		}
		// The guest dies. What it left in the ring the backend may still come to.
		ring := uint64(r.IntN(3) * 8)
		settled, certainBefore := false, a.Firm && a.Doubt == ""
		for last := false; !last; {
			switch r.IntN(6) {
			case 0:
				if connected {
					n := min(ring, 8)
					ring -= n
					guest += n
					inflight += n
					settled = settled && n == 0
				}
			case 1:
				n := min(inflight, 8)
				inflight -= n
				written += n
			case 2:
				if connected = connected && inflight > 0; !connected {
					guest = 0
				}
			case 3:
				if evil && r.IntN(4) == 0 {
					foreign += 8
					written += 8
				}
			default:
				settled = settled || connected && inflight == 0
				last = a.Drain(read())
			}
		}
		if evil && r.IntN(2) == 0 {
			foreign += 8
			written += 8
		}
		j, why := a.Judge(phy, read(), false)
		if foreign != 0 && j == Certain {
			t.Fatalf("history %d: %d foreign sectors, judged certain: %+v", i, foreign, a)
		}
		if foreign == 0 && j == Broken {
			t.Fatalf("history %d: nobody else wrote, judged broken: %s: %+v", i, why, a)
		}
		if foreign == 0 && settled && certainBefore && j != Certain {
			t.Fatalf("history %d: nothing was under way when the backend went, judged %s: %s: %+v", i, j, why, a)
		}
		if j == Certain {
			certain++
		}
	}
	if certain < 1000 {
		t.Errorf("only %d histories judged certain", certain)
	}
}
