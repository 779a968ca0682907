package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/scrub"
)

// TestScrubbed: a page differs though nobody is known to have written to the disk. It is
// found while the guest runs; what is known of that disk is dropped, its next boot is
// cold as far as that disk is concerned, whatever the guest reads until then, and the
// boot after that is as any other. The other disk is warm all the time.
func TestScrubbed(t *testing.T) { bubble(testScrubbed)(t) }

func testScrubbed(t *testing.T) {
	w, a, d, dir := running(t, 5, api.Policy{Content: "none"})
	source := a.Scrubbed()
	soon(t, w, a, "there is something to scrub", func() bool { return len(source.Disks()) == 2 })
	w.mu.Lock()
	copy(w.disks[xvda].data[4096:], "of somebody that no counter has seen")
	w.mu.Unlock()
	s := &scrub.Scrubber{Source: source, Memory: w, Limits: scrub.Limits{Rate: 1 << 30, Share: 1}, Log: testLog(t)}
	scrubbing := ctx(t, 20*time.Second)
	go s.Run(scrubbing)
	soon(t, w, a, "the page is found", func() bool {
		return a.keeper(webUUID).status().Custody[0].State == "broken"
	})
	w.mu.Lock()
	for p, e := range d.entries {
		if e.VBD == xvda && d.reuse[p/64]>>(p%64)&1 != 0 {
			t.Errorf("page %d is still known", p)
		}
	}
	w.mu.Unlock()
	if c := a.keeper(webUUID).status(); c.Custody[1].State != "certain" || !strings.Contains(c.Custody[0].Reason, "compared while the guest ran") {
		t.Errorf("%+v", c.Custody)
	}
	w.load(d, 5) // it reads the disk again
	a.Stop()
	a = w.start(dir, func(*Options) {}) // and the agent forgets nothing
	for i, want := range []api.Verdict{api.Refused, api.Approved} {
		summary, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range summary.VBDs {
			if v.VBD == xvda && (v.Verdict != want || want == api.Refused && v.Refusals[0].Reason != api.Content) || v.VBD == xvdb && v.Verdict != api.Approved {
				t.Errorf("reboot %d: %+v", i, v)
			}
		}
		w.mu.Lock()
		d = w.domains[0]
		w.mu.Unlock()
		soon(t, w, a, "it is watched again", func() bool { return len(a.Scrubbed().Disks()) == 2 })
		w.load(d, 5)
	}
}
