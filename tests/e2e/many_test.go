package e2e

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/demo"
)

var reboots = flag.Int("reboots", 8, "how many reboots TestManyReboots does")

// manyMiB is the size of the file that has to come back.
const manyMiB = 32

// longestKill is the end of what a reboot of the small domU takes, in seconds
// of dom0's clock: after that much the agent has nothing left to do.
const longestKill = 6

// TestManyReboots reboots a small domU again and again: asked for politely, by
// force, by a panic of its kernel; in every other reboot the agent is killed.
// In the end nothing is left over.
func TestManyReboots(t *testing.T) {
	t.Parallel()
	b := boot(t, lab.Variant{Unthrottled: true})
	b.bringHostile(t)
	b.dom0(t, fmt.Sprintf("sh /root/small-disk /tmp/small.img %d", manyMiB))
	truth := strings.Fields(b.dom0(t, fmt.Sprintf("/root/hostile pattern %d | sha256sum", manyMiB)))[0]
	s := small{name: lab.Domain, uuid: "5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b05", memory: 160, disk: "/tmp/small.img", restart: true}
	b.makeSmall(t, s)
	b.dom0(t, "warmreboot enable "+s.name)
	domU := b.runSmall(t, s)
	intact := func() {
		t.Helper()
		if sum, err := domU.Run(t.Context(), "busybox", "sha256sum", "/secret"); err != nil || strings.Fields(string(sum))[0] != truth {
			t.Fatalf("the file is %s (%v), want %s", sum, err, truth)
		}
	}
	intact()

	triggers := []string{"warmreboot " + s.name, "warmreboot --force " + s.name, ""}
	var baseline resources
	results := make(map[string]int)
	for i := range *reboots {
		trigger, killed := triggers[i/2%len(triggers)], i%2 == 1
		before := b.dom0(t, "xl domid "+s.name)
		if trigger == "" {
			trigger = "panic"
			panicGuest(t, domU)
		} else {
			b.dom0(t, "setsid "+trigger+" >/tmp/reboot.out 2>&1 </dev/null &")
		}
		if killed {
			after := longestKill * rand.New(rand.NewPCG(1, uint64(i))).Float64()
			trigger += fmt.Sprintf(", agent killed after %.1f s", after)
			b.dom0(t, fmt.Sprintf("sleep %.1f; kill -9 $(pidof warmrebootd)", after))
			if err := b.StartAgent(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		b.awaitNewDomid(t, before)
		if err := domU.Await(t.Context()); err != nil {
			t.Fatalf("reboot %d (%s): %v", i, trigger, err)
		}
		status, err := b.Status(t.Context(), "--wait")
		if err != nil || status.Last == nil {
			t.Fatalf("reboot %d (%s): %+v, %v", i, trigger, status, err)
		}
		last := status.Last
		t.Logf("reboot %d (%s): %s %s, %d of %d pages restored", i, trigger, last.Outcome, last.Reason, last.PagesRestored, last.PagesPreserved)
		results[last.Outcome]++
		if err := unharmed(last, killed); err != nil {
			t.Errorf("reboot %d (%s): %v", i, trigger, err)
		}
		intact()
		b.check(t)
		if i == 0 { // the first reboot of all leaves folders in xenstore
			baseline = b.resources(t)
		}
	}
	t.Logf("%d reboots: %v", *reboots, results)
	if err := baseline.leak(b.resources(t)); err != nil {
		t.Error(err)
	}
}

// unharmed says whether a reboot ended as it may: warm with all of the file,
// or, if the agent was killed, cold for a stated reason.
func unharmed(r *demo.Reboot, killed bool) error {
	const least = manyMiB << 8 * 95 / 100
	switch {
	case r.Outcome == "warm" && r.PagesRestored >= least:
		return nil
	case killed && r.Outcome != "warm" && r.Reason != "":
		return nil
	}
	return errors.Join(fmt.Errorf("%+v", *r), fmt.Errorf("want at least %d pages", least))
}
