package scrub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
)

const xvda = ident.VBD(51712)

// ordinary are limits as the daemon has them.
var ordinary = Limits{Rate: 4 << 20, Share: 0.05}

// machine is a guest, its disk and what Xen knows of them, as far as the scrubber sees
// it. While anything of it is looked at, the guest may go on: tick is what it does.
type machine struct {
	entries []cachemap.Entry
	reuse   []uint64
	memory  [][]byte
	disk    []byte
	tick    func()
	domid   ident.Domid
	gone    bool // the domain is
	stale   []string
	now     time.Time
	waited  time.Duration
	busy    time.Duration
	mapped  int // pages at the most
	err     error
}

func newMachine(pages int) *machine {
	m := &machine{entries: make([]cachemap.Entry, pages), reuse: make([]uint64, (pages+63)/64), memory: make([][]byte, pages),
		disk: make([]byte, pages*4096), tick: func() {}, domid: 3, now: time.Unix(1e9, 0)}
	for p := range pages {
		m.memory[p] = make([]byte, 4096)
	}
	return m
}

// write is the guest's, of page p to the disk: Xen forgets the page when it is announced,
// and knows it again when the backend has done it. Others may come in between.
func (m *machine) write(p int, content string, between func()) {
	m.reuse[p/64] &^= 1 << (p % 64)
	between()
	copy(m.memory[p], content)
	between()
	copy(m.disk[p*4096:(p+1)*4096], m.memory[p])
	between()
	m.entries[p] = cachemap.Entry{VBD: xvda, Cookie: cachemap.File{Inode: 7, Index: uint32(p)}.Cookie(), Sector: cachemap.Sector(8 * p)}
	m.reuse[p/64] |= 1 << (p % 64)
}

// Each of them is a copy, taken at one moment; the guest goes on before it.

type copied struct {
	entries []cachemap.Entry
	words   []uint64
	pages   [][]byte
}

func (c copied) Entries() []cachemap.Entry  { return c.entries }
func (c copied) Words() []uint64            { return c.words }
func (c copied) Page(i int) ([]byte, error) { return c.pages[i], nil }
func (copied) Close() error                 { return nil }

var errGone = errors.New("no such domain")

func (m *machine) ask(d ident.Domid) error {
	m.tick()
	if m.gone || d != m.domid {
		return errGone
	}
	return m.err
}

func (m *machine) MapTable(d ident.Domid) (hypervisor.Table, error) {
	return copied{entries: append([]cachemap.Entry(nil), m.entries...)}, m.ask(d)
}

func (m *machine) MapReuse(d ident.Domid) (hypervisor.Bitmap, error) {
	err := m.ask(d)
	return copied{words: append([]uint64(nil), m.reuse...)}, err
}

func (m *machine) MapHeld(ident.Domid) (hypervisor.Bitmap, error) {
	return nil, errors.New("not asked for")
}

func (m *machine) MapPages(d ident.Domid, pfns []ident.PFN) (hypervisor.Pages, error) {
	err := m.ask(d)
	m.mapped = max(m.mapped, len(pfns))
	var c copied
	for _, p := range pfns {
		c.pages = append(c.pages, bytes.Clone(m.memory[p]))
	}
	return c, err
}

func (m *machine) ReadAt(p []byte, off int64) (int, error) {
	m.tick()
	return copy(p, m.disk[off:]), nil
}
func (m *machine) Size() int64 { return int64(len(m.disk)) }
func (*machine) Close() error  { return nil }

func (m *machine) Disks() []Disk {
	if m.gone {
		return nil
	}
	return []Disk{{ID: ID{ident.UUID{5}, xvda}, Name: "web", Domid: m.domid, Open: func() (Reader, error) { return m, nil },
		BusyTime: func() (time.Duration, error) { return m.busy, nil }}}
}

func (m *machine) Stale(_ context.Context, _ Disk, why string) error {
	m.stale = append(m.stale, why)
	clear(m.reuse)
	return nil
}

// scrubber is of the machine, by a clock that runs while it waits. It ends after a while.
func (m *machine) scrubber(waits int) *Scrubber {
	return &Scrubber{Source: m, Memory: m, Limits: ordinary, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Now: func() time.Time { return m.now },
		Wait: func(ctx context.Context, d time.Duration) error {
			m.now, m.waited = m.now.Add(d), m.waited+d
			m.tick()
			if waits--; waits < 0 {
				return context.Canceled
			}
			return ctx.Err()
		}}
}

// run runs it for so many waits.
func (m *machine) run(t *testing.T, waits int) *Scrubber {
	t.Helper()
	s := m.scrubber(waits)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := s.Wait
	s.Wait = func(ctx context.Context, d time.Duration) error {
		err := wait(ctx, d)
		if err != nil {
			cancel()
		}
		return err
	}
	s.Run(ctx)
	return s
}

// TestFindsAny: one page that differs, wherever it is, is found in the first pass, and
// nothing is said of the others.
func TestFindsAny(t *testing.T) {
	const pages = 2*chunk + 17
	for _, p := range []int{0, 1, batch, chunk - 1, chunk, pages - 1} {
		m := newMachine(pages)
		for p := range pages {
			m.write(p, fmt.Sprint("content ", p), func() {})
		}
		copy(m.disk[p*4096:], "of somebody else")
		s := m.run(t, 3*pages/batch)
		if len(m.stale) != 1 || !strings.Contains(m.stale[0], fmt.Sprintf("PFN %#x,", p)) {
			t.Errorf("page %d: %q", p, m.stale)
		}
		if c := s.Counts(); len(c) != 1 || c[0].Differed != 1 || m.mapped > batch {
			t.Errorf("%+v, %d pages mapped at a time", c, m.mapped)
		}
	}
}

// TestGuestGoesOn: a guest writes pages, out and again, at every moment that there is
// between two looks of the scrubber. Nothing is ever said to be stale that is not; and
// what somebody else writes is found all the same, unless the guest writes there.
func TestGuestGoesOn(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	found, gone := 0, 0
	for history := range 60 {
		const pages = 40
		m := newMachine(pages)
		for p := range pages {
			m.write(p, fmt.Sprint("first ", p), func() {})
		}
		n, inside, activity := 0, false, 1+r.IntN(40)
		victim, spoiled := r.IntN(pages), false
		m.tick = func() {
			for !inside && r.IntN(40) < activity {
				inside = true
				n++
				p := r.IntN(pages)
				if p != victim || !spoiled {
					// Of three parts, each in a moment of its own, which the scrubber
					// sees as well: it asks within.
					m.write(p, fmt.Sprint("content ", n), func() {})
				}
				inside = false
				if activity == 40 {
					break
				}
			}
		}
		evil := history%2 == 0
		if evil {
			copy(m.disk[victim*4096:], "of somebody else")
			spoiled = true
		}
		m.run(t, 100)
		for _, why := range m.stale {
			if !evil || !strings.Contains(why, fmt.Sprintf("PFN %#x,", victim)) {
				t.Fatalf("history %d: %s, victim %d of somebody else %v", history, why, victim, evil)
			}
		}
		if evil {
			if gone++; len(m.stale) > 0 {
				found++
			}
		}
	}
	if found != gone {
		t.Errorf("%d of %d found", found, gone)
	}
}

// TestTorn: what is under way when it is looked at. The guest's write is in three
// parts, and the scrubber looks at each of them.
func TestTorn(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 50 {
		m := newMachine(4)
		for p := range 4 {
			m.write(p, "first", func() {})
		}
		// steps are the guest's, one at each look.
		var steps []func()
		n := 0
		next := func() {
			n++
			p, content := r.IntN(4), fmt.Sprint("content ", n)
			steps = append(steps,
				func() { m.reuse[0] &^= 1 << p },
				func() { copy(m.memory[p], content) },
				func() { copy(m.disk[p*4096:], content) },
				func() { m.reuse[0] |= 1 << p })
		}
		m.tick = func() {
			for range r.IntN(5) {
				if len(steps) == 0 {
					next()
				}
				steps[0]()
				steps = steps[1:]
			}
		}
		if m.run(t, 100); len(m.stale) > 0 {
			t.Fatalf("%q", m.stale)
		}
	}
}

// TestLimits: it reads no more than it may, works for no more of the time than it may,
// and not at all while others need the disk or the processor.
func TestLimits(t *testing.T) {
	l := Limits{Rate: 1 << 20, Share: 0.1}
	if got, want := l.pause(256, 0), time.Second; got != want {
		t.Errorf("by rate: %v, want %v", got, want)
	}
	if got, want := l.pause(1, time.Second), 9*time.Second; got < want-time.Millisecond || got > want+time.Millisecond {
		t.Errorf("by share: %v, want %v", got, want)
	}
	m := newMachine(batch)
	for p := range batch {
		m.write(p, "x", func() {})
	}
	s := m.run(t, 400)
	c := s.Counts()[0]
	if rate := float64(c.Compared*pageSize) / m.waited.Seconds(); c.Compared < 100*batch || rate > 1.01*ordinary.Rate {
		t.Errorf("%d pages in %v: %.0f bytes a second", c.Compared, m.waited, rate)
	}
	if c.Since.IsZero() || c.Uncompared(m.now) > time.Second {
		t.Errorf("all were compared all the time: %+v", c)
	}
	for what, loaded := range map[string]func(*machine, *Scrubber){
		"processor": func(_ *machine, s *Scrubber) { s.Loaded = func() bool { return true } },
		"disk": func(m *machine, s *Scrubber) {
			m.tick = func() { m.busy = m.now.Sub(time.Unix(0, 0)) }
		},
	} {
		m := newMachine(batch)
		for p := range batch {
			m.write(p, "x", func() {})
		}
		s := m.scrubber(1000)
		ctx, cancel := context.WithCancel(t.Context())
		wait := s.Wait
		s.Wait = func(ctx context.Context, d time.Duration) error {
			err := wait(ctx, d)
			if err != nil {
				cancel()
			}
			return err
		}
		loaded(m, s)
		s.Run(ctx)
		cancel()
		if n := s.Counts()[0].Compared; n > 20*batch { // half a second of it
			t.Errorf("%s: %d pages compared", what, n)
		}
	}
	off := m.scrubber(1)
	off.Limits.Rate = 0
	off.Run(t.Context()) // returns
	if len(off.Counts()) != 0 {
		t.Errorf("%+v", off.Counts())
	}
}

// TestReboot: a domain that goes down ends what is done to it, quietly; the next one
// begins a pass of its own.
func TestReboot(t *testing.T) {
	var log strings.Builder
	m := newMachine(3 * chunk)
	for p := range m.memory {
		m.write(p, "x", func() {})
	}
	looks := 0
	m.tick = func() {
		switch looks++; looks {
		case 40:
			m.gone = true
		case 60:
			m.gone, m.domid = false, 4
		}
	}
	s := m.scrubber(4 * 3 * chunk / batch)
	s.Log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	wait := s.Wait
	s.Wait = func(ctx context.Context, d time.Duration) error {
		err := wait(ctx, d)
		if err != nil {
			cancel()
		}
		return err
	}
	s.Run(ctx)
	if looks < 60 || log.Len() > 0 || len(m.stale) > 0 {
		t.Errorf("%d looks, %q, log: %s", looks, m.stale, &log)
	}
	if c := s.Counts(); len(c) != 1 || c[0].Since.IsZero() || c[0].First.Equal(time.Unix(1e9, 0)) {
		t.Errorf("%+v", c)
	}
	m = newMachine(1)
	m.err = errors.New("the table cannot be mapped")
	s = m.scrubber(20)
	s.Log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel = context.WithCancel(t.Context())
	n := 0
	s.Wait = func(context.Context, time.Duration) error {
		if n++; n > 10 {
			cancel()
		}
		return ctx.Err()
	}
	s.Run(ctx)
	if got := strings.Count(log.String(), "cannot be mapped"); got != 1 {
		t.Errorf("logged %d times: %s", got, &log)
	}
}

func TestPressure(t *testing.T) {
	for text, want := range map[string]float64{
		"some avg10=12.50 avg60=1.00 avg300=0.10 total=123\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n": 12.5,
		"full avg10=1.00\n":      -1,
		"some avg10=x\n":         -1,
		"some avg10=NaN\n":       -1,
		"some avg10=101\n":       -1,
		"some total=1 avg10=0\n": 0,
		"":                       -1,
	} {
		if got, err := pressure(text); (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func FuzzPressure(f *testing.F) {
	f.Add("some avg10=12.50 avg60=1.00 avg300=0.10 total=123\n")
	f.Add("some avg10=1e2")
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := pressure(text); err == nil && !(got >= 0 && got <= 100) {
			t.Fatalf("%q: %v", text, got)
		}
	})
}
