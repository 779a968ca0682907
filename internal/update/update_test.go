package update

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/bootonce"
)

var terms = Terms{Deadline: 5 * time.Minute, Probation: 10 * time.Minute, Checked: true}

// Looks at a domain: 7 has the kernel from before, 8 the new one, 9 the old one again.
var (
	before   = Observation{Domid: 7}
	asNew    = Observation{Domid: 8, Runs: bootonce.New, Tried: true, Booted: true}
	asOld    = Observation{Domid: 9, Runs: bootonce.Old, Tried: true, Booted: true}
	down     = Observation{Tried: true, Booted: true}
	notAsked = Observation{Domid: 7, NotAsked: "the guest does not react"}
)

func busy(o Observation) Observation          { o.Busy = true; return o }
func well(o Observation, ok bool) Observation { o.Health = &Health{OK: ok, Detail: "503"}; return o }
func rebooted(o Observation) Observation      { o.Rebooted = true; return o }
func foreign(o Observation) Observation       { o.Runs = ""; return o }
func elsewhere(o Observation) Observation     { o.Left = "it has moved"; return o }
func unloaded(o Observation) Observation      { o.Booted = false; return o }
func in(p Phase, age time.Duration) (r Record) {
	r = Record{Phase: p, Since: time.Hour - age}
	r.Domid = 8
	return r
}
func because(r Record, why string) (with Record) { r.Why = why; return r }

func TestNext(t *testing.T) {
	long := 6 * time.Minute
	gone := in(Trying, 2*time.Minute)
	gone.Down = time.Hour - Gone - time.Second
	made := gone
	made.Made, made.Down = true, time.Hour-time.Second
	lost := made
	lost.Down = time.Hour - long
	for what, c := range map[string]struct {
		r    Record
		o    Observation
		want Phase
		do   Action
		why  string
	}{
		"it goes down":                         {in(Trying, 0), before, Trying, Wait, ""},
		"it does not":                          {in(Trying, long), before, Untried, Wait, "not gone down"},
		"nobody could ask it":                  {in(Trying, 0), notAsked, Untried, Wait, "does not react"},
		"nobody could, but it has":             {in(Trying, 0), Observation{Domid: 8, Runs: bootonce.New, Tried: true, Booted: true, NotAsked: "x"}, Checking, Wait, ""},
		"between two domains":                  {in(Trying, 0), down, Trying, Wait, ""},
		"it is up, and comes back":             {in(Trying, 0), busy(asNew), Trying, Wait, ""},
		"it hangs":                             {in(Trying, long), busy(asNew), Returning, Wait, "not up after 5m"},
		"it is back":                           {in(Trying, 0), asNew, Checking, Wait, ""},
		"a panic":                              {in(Trying, 0), busy(asOld), Returning, Wait, "before it was up"},
		"the loader had none":                  {in(Trying, 0), unloaded(asOld), Returning, Wait, "could not be loaded"},
		"another configuration":                {in(Trying, 0), foreign(asOld), Lost, Wait, "another configuration"},
		"restored on probation":                {in(Probation, 0), foreign(asNew), Lost, Wait, "was restored"},
		"the old one is being built":           {in(Trying, long), Observation{Domid: 9, Tried: true, Booted: true, Paused: true}, Trying, Wait, ""},
		"restored on its way back":             {because(in(Returning, 0), "y"), foreign(asNew), Lost, Wait, "was restored"},
		"nobody creates it":                    {gone, down, Trying, Create, ""},
		"it is elsewhere":                      {gone, elsewhere(down), Lost, Wait, "moved"},
		"it has just gone":                     {in(Probation, 0), elsewhere(down), Probation, Wait, ""},
		"we do":                                {made, down, Trying, Wait, ""},
		"we cannot":                            {lost, down, Lost, Wait, "could not be created"},
		"we have":                              {made, foreign(asOld), Returning, Wait, "could not be loaded"},
		"to be asked":                          {in(Checking, 0), asNew, Checking, Check, ""},
		"well":                                 {in(Checking, 0), well(asNew, true), Probation, Wait, ""},
		"not well":                             {in(Checking, 0), well(asNew, false), Returning, Wait, "not well: 503"},
		"a panic while it is asked":            {in(Checking, 0), well(asOld, true), Returning, Wait, "while it was asked"},
		"on probation":                         {in(Probation, 9*time.Minute), asNew, Probation, Wait, ""},
		"a panic on probation":                 {in(Probation, 9*time.Minute), asOld, Returning, Wait, "on probation"},
		"down on probation":                    {in(Probation, 11*time.Minute), down, Probation, Wait, ""},
		"probation is over":                    {in(Probation, 10*time.Minute), asNew, Confirming, Wait, ""},
		"asked once more":                      {in(Confirming, 0), asNew, Confirming, Check, ""},
		"well at the end":                      {in(Confirming, 0), well(asNew, true), Blessed, Wait, ""},
		"not well at the end":                  {in(Confirming, 0), well(asNew, false), Returning, Wait, "not well"},
		"another domain with the new kernel":   {in(Confirming, 0), well(Observation{Domid: 12, Runs: bootonce.New, Tried: true, Booted: true}, true), Lost, Wait, "domain 12"},
		"a panic at the last moment":           {in(Blessed, 0), asOld, Returning, Wait, "on probation"},
		"blessed":                              {in(Blessed, 0), asNew, Blessed, Wait, ""},
		"on its way back":                      {because(in(Returning, 0), "y"), asNew, Returning, Wait, "y"},
		"down on its way back":                 {because(in(Returning, 0), "y"), down, Returning, Wait, "y"},
		"nearly back":                          {because(in(Returning, 0), "y"), busy(asOld), Returning, Wait, "y"},
		"nobody knows how warm":                {because(in(Returning, long), "y"), busy(asOld), Returned, Wait, "y"},
		"back":                                 {because(in(Returning, 0), "y"), asOld, Returned, Wait, "y"},
		"it cannot be taken down":              {because(in(Returning, long), "y"), asNew, Lost, Wait, "y, and"},
		"the host was booted":                  {in(Probation, 0), rebooted(before), Lost, Wait, "host was booted"},
		"the host was booted, and all is over": {in(Returned, 0), rebooted(before), Returned, Wait, ""},
	} {
		r, do := Next(c.r, terms, c.o, time.Hour)
		if r.Phase != c.want || do != c.do || c.why == "" != (r.Why == "") || !strings.Contains(r.Why, c.why) {
			t.Errorf("%s: %+v, %q; want %s, %q, %q", what, r, do, c.want, c.do, c.why)
		}
	}
	r, _ := Next(in(Checking, 0), Terms{}, asNew, time.Hour)
	if r.Phase != Probation {
		t.Errorf("without a check: %+v", r)
	}
	if r, _ = Next(in(Checking, 0), terms, well(asNew, false), time.Hour); !r.Polite {
		t.Errorf("one that can be asked: %+v", r)
	}
	if r, _ = Next(in(Trying, long), terms, busy(asNew), time.Hour); r.Polite {
		t.Errorf("one that hangs: %+v", r)
	}
}

// world is a domain that does as it likes.
type world struct {
	*rand.Rand
	o      Observation
	armed  bool
	next   ident.Domid
	health bool
}

// step lets something happen.
func (w *world) step() {
	boot := func() { // what the loader does
		w.next++
		w.o.Domid, w.o.Runs, w.o.Busy, w.o.Left = 10+w.next, bootonce.Old, w.IntN(2) == 0, ""
		if w.armed {
			w.armed, w.o.Tried, w.o.Booted, w.o.Runs = false, true, true, bootonce.New
		}
	}
	switch n := w.IntN(20); {
	case n < 4 && w.o.Domid != 0:
		if w.o.Domid, w.o.Runs = 0, ""; w.IntN(4) == 0 {
			w.o.Left = "saved"
		}
	case n < 12 && w.o.Domid == 0:
		boot()
	case n == 12:
		w.o.Busy = !w.o.Busy
	case n == 13:
		w.health = !w.health
	}
}

// TestAnyWorld: whatever happens, a trial ends; the new kernel is blessed only if the
// domain had it without a break for all of its probation, and was well before and
// after; and one that was not tried is not said to have been.
func TestAnyWorld(t *testing.T) {
	ends := map[Phase]int{}
	for seed := range uint64(20000) {
		w := &world{Rand: rand.New(rand.NewPCG(seed, 1)), o: before, armed: true, health: seed%2 == 0}
		if seed%10 == 0 { // one that nothing happens to, but what should
			w.o, w.armed = asNew, false
			w.health = true
		}
		quiet := seed%10 == 0
		r := Record{Phase: Trying}
		newSince := time.Duration(-1)
		wellAt := time.Duration(-1)
		wellAfter := false
		now := time.Duration(0)
		for range 100000 {
			if r.Phase.Last() {
				break
			}
			now += time.Duration(w.IntN(20)) * time.Second
			if !quiet && w.IntN(8) == 0 {
				w.step()
			}
			if w.o.Runs != bootonce.New || w.o.Domid == 0 {
				newSince, wellAt, wellAfter = -1, -1, false
			} else if newSince < 0 {
				newSince = now
			}
			next, do := Next(r, terms, w.o, now)
			w.o.Health = nil
			switch do {
			case Check:
				w.o.Health = &Health{OK: w.health, Detail: "?"}
				if w.health && wellAt < 0 {
					wellAt = now
				} else if w.health {
					wellAfter = now-wellAt >= terms.Probation
				}
			case Create:
				if w.o.Left != "" {
					t.Fatalf("seed %d: %+v is created, which may run elsewhere", seed, r)
				}
				w.o.Domid, w.o.Runs, w.o.Busy = 99, "", false
			}
			if next.Phase == Returning && r.Phase != Returning && w.o.Runs == bootonce.New {
				w.o.Domid, w.o.Runs = 0, "" // it is taken down
			}
			r = next
		}
		if !r.Phase.Last() {
			t.Fatalf("seed %d: it has not ended: %+v, %+v", seed, r, w.o)
		}
		ends[r.Phase]++
		switch r.Phase {
		case Blessed:
			if newSince < 0 || now-newSince < terms.Probation || !wellAfter {
				t.Fatalf("seed %d: blessed %+v: new since %v, well %v %v", seed, r, newSince, wellAt, wellAfter)
			}
		case Untried:
			if w.o.Tried {
				t.Fatalf("seed %d: %+v, and it was tried", seed, r)
			}
		case Returned:
			if w.o.Runs == bootonce.New && w.o.Domid != 0 {
				t.Fatalf("seed %d: %+v, and the new kernel runs", seed, r)
			}
		}
		if r.Phase != Blessed && r.Why == "" {
			t.Fatalf("seed %d: nobody is told why: %+v", seed, r)
		}
	}
	for _, p := range []Phase{Blessed, Returned, Untried} {
		if ends[p] < 100 {
			t.Errorf("%d of them ended as %s: the worlds are too much alike", ends[p], p)
		}
	}
}
