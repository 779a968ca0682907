package update

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestNextClone(t *testing.T) {
	at := func(p Phase, age time.Duration) CloneRecord { return CloneRecord{Phase: p, Since: time.Hour - age} }
	up, dark, gone := CloneView{}, CloneView{Missing: "xvda is not connected"}, CloneView{Gone: true}
	said := func(ok bool) CloneView { return CloneView{Health: &Health{OK: ok, Detail: "503"}} }
	for what, c := range map[string]struct {
		r    CloneRecord
		o    CloneView
		want Phase
		do   Action
		why  string
	}{
		"it boots":                  {at(Trying, 0), dark, Trying, Wait, ""},
		"it hangs":                  {at(Trying, 6*time.Minute), dark, Against, Wait, "5m0s: xvda"},
		"a panic":                   {at(Trying, 0), gone, Against, Wait, "before it was up"},
		"up at the last moment":     {at(Trying, 6*time.Minute), up, Checking, Wait, ""},
		"to be asked":               {at(Checking, 0), up, Checking, Check, ""},
		"well":                      {at(Checking, 0), said(true), Probation, Wait, ""},
		"not well":                  {at(Checking, 0), said(false), Against, Wait, "503"},
		"gone while it is asked":    {at(Checking, 0), CloneView{Gone: true, Health: &Health{OK: true}}, Against, Wait, "went down"},
		"on probation":              {at(Probation, 9*time.Minute), up, Probation, Wait, ""},
		"a panic on probation":      {at(Probation, 11*time.Minute), gone, Against, Wait, "had been up"},
		"its disk lost":             {at(Probation, 0), dark, Against, Wait, "not any more: xvda"},
		"probation is over":         {at(Probation, 10*time.Minute), up, Confirming, Wait, ""},
		"asked once more":           {at(Confirming, 0), up, Confirming, Check, ""},
		"well at the end":           {at(Confirming, 0), said(true), Passed, Wait, ""},
		"not well at the end":       {at(Confirming, 0), said(false), Against, Wait, "503"},
		"no room, and a panic":      {at(Trying, 0), CloneView{Gone: true, Full: "no room"}, Stopped, Wait, "no room"},
		"what has passed":           {at(Passed, 0), gone, Passed, Wait, ""},
		"it never comes up, and ok": {at(Trying, 6*time.Minute), CloneView{Missing: "x", Health: &Health{OK: true}}, Against, Wait, "x"},
	} {
		r, do := NextClone(c.r, terms, c.o, time.Hour)
		if r.Phase != c.want || do != c.do || c.why == "" != (r.Why == "") || !strings.Contains(r.Why, c.why) {
			t.Errorf("%s: %+v, %q", what, r, do)
		}
	}
	if r, do := NextClone(at(Checking, 0), Terms{}, up, time.Hour); r.Phase != Probation || do != Wait {
		t.Errorf("without a check: %+v, %q", r, do)
	}
}

// TestAnyClone: whatever a clone does, its trial ends; it has passed only if it was up
// without a break for all of its probation, and well before and after.
func TestAnyClone(t *testing.T) {
	ends := map[Phase]int{}
	for seed := range uint64(5000) {
		w := rand.New(rand.NewPCG(seed, 2))
		var o CloneView
		o.Missing = "all"
		r := CloneRecord{Phase: Trying}
		now, upSince, asked := time.Duration(0), time.Duration(-1), 0
		for n := 0; r.Phase != Passed && r.Phase != Against && r.Phase != Stopped; n++ {
			if n > 10000 {
				t.Fatalf("seed %d: it has not ended: %+v", seed, r)
			}
			now += time.Duration(w.IntN(30)) * time.Second
			switch k := w.IntN(200); {
			case k < 20:
				o.Missing = ""
			case k == 20:
				o.Missing = "a disk"
			case k == 21:
				o.Gone = true
			case k == 22:
				o.Full = "no room"
			}
			if o.Missing != "" || o.Gone {
				upSince, asked = -1, 0
			} else if upSince < 0 {
				upSince = now
			}
			var do Action
			r, do = NextClone(r, terms, o, now)
			o.Health = nil
			if do == Check {
				o.Health = &Health{OK: w.IntN(10) > 0}
				if o.Health.OK {
					asked++
				}
			}
		}
		ends[r.Phase]++
		if r.Phase == Passed && (upSince < 0 || now-upSince < terms.Probation || asked < 2) {
			t.Fatalf("seed %d: passed, up since %v of %v, well %d times", seed, upSince, now, asked)
		}
		if (r.Phase == Passed) != (r.Why == "") {
			t.Fatalf("seed %d: %+v", seed, r)
		}
	}
	for _, p := range []Phase{Passed, Against, Stopped} {
		if ends[p] < 100 {
			t.Errorf("%d ended as %s: the clones are too much alike", ends[p], p)
		}
	}
}
