package scheduler

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
)

// TestCancelled: a run that is cancelled does not come to its reboot, whether one of its
// hooks runs just then or the guest is being asked. The hooks that always run do; it is in
// the history; nobody is alerted, as somebody knows; and it is not tried again at once.
func TestCancelled(t *testing.T) {
	for what, c := range map[string]struct {
		before string // the hook before the reboot
		hold   bool
		asked  []string
	}{
		"in a hook":                {"echo before >>%[1]s; sleep 600", false, nil},
		"in a hook that may fail":  {"echo before >>%[1]s; sleep 600\"]\non_failure = \"continue\"#", false, nil},
		"while the guest is asked": {"echo before >>%[1]s", true, []string{"graceful web", "withdraw"}},
	} {
		for _, killed := range []bool{false, true} {
			out := filepath.Join(t.TempDir(), "out")
			hook := func(script string) string {
				return "command = [\"/bin/sh\", \"-c\", \"" + fmt.Sprintf(script, out) + "\"]\n"
			}
			h := newHost(t, cronNoon+"every = \"1d\"\n[[schedule.before]]\n"+hook(c.before)+
				"[[schedule.before]]\n"+hook("echo second >>%s")+
				"[[schedule.after]]\n"+hook("echo after $WARMREBOOT_OUTCOME >>%s")+"always = true\n[[schedule.after]]\n"+hook("echo well >>%s")+
				"[schedule.alert]\n"+hook("echo alert >>%s"))
			if c.hold {
				h.hold = make(chan struct{})
			}
			h.create("web", 10*day)
			var kill context.CancelFunc
			h.ctx, kill = context.WithCancel(t.Context())
			defer kill()
			r := h.runner(nil)
			h.pass(day - time.Minute)
			h.look(r)
			h.pass(time.Minute)
			r.Look(t.Context())
			waitFor(t, func() bool {
				text, _ := os.ReadFile(out)
				return len(text) > 0 && (!c.hold || len(h.asked()) > 0)
			})
			id := r.Operations.List()[0].ID
			if op, err := h.operator.Cancel(t.Context(), id, "bob"); err != nil || op.Kind != api.KindSchedule {
				t.Fatalf("%s: %+v, %v", what, op, err)
			}
			if killed {
				kill()
				wait(r)
				h.ctx = t.Context()
				r = h.runner(nil)
			}
			wait(r)
			h.pass(time.Minute)
			h.look(r) // and is not begun again
			text, err := os.ReadFile(out)
			want := "before\nafter cancelled\n"
			if c.hold { // the guest is asked when all of them have run
				want = "before\nsecond\nafter cancelled\n"
			}
			got := string(text)
			if killed && strings.HasSuffix(got, "alert\n") {
				// The hook afterwards had begun: nobody knows how far it came, and
				// that is what somebody is told.
				got = strings.TrimSuffix(strings.TrimSuffix(got, "alert\n"), "after cancelled\n") + "after cancelled\n"
			}
			if err != nil || got != want || !slices.Equal(h.asked(), c.asked) {
				t.Errorf("%s, killed %v: %q, %v, asked %q", what, killed, text, err, h.asked())
			}
			all := h.history()
			if len(all) != 1 || all[0].Outcome != api.OutcomeCancelled || all[0].Schedule != "noon" || all[0].Operation != id || !strings.Contains(all[0].Error, "cancelled by bob") ||
				len(all[0].Hooks) < 2 || !c.hold && !killed && !strings.Contains(all[0].Hooks[0].Detail, "cancelled by bob") {
				t.Errorf("%s, killed %v: %+v", what, killed, all)
			}
			op, err := h.operator.Operation(t.Context(), id)
			if err != nil || op.State != api.OperationCancelled || len(r.Operations.List()) != 1 || len(h.kept.Locks(h.moment())) != 0 {
				t.Errorf("%s, killed %v: %+v, %v, %v", what, killed, op, err, h.kept.Locks(h.moment()))
			}
			if counts := r.RunCounts(); !killed && (len(counts) != 1 || counts[0].Result != api.RunCancelled) {
				t.Errorf("%s: %+v", what, counts)
			}
		}
	}
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for begun := time.Now(); !what(); time.Sleep(time.Millisecond) {
		if time.Since(begun) > time.Minute {
			t.Fatal("it does not come to it")
		}
	}
}
