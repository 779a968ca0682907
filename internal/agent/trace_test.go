package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/internal/api"
	"github.com/warmreboot/warmreboot/xenctl"
)

// traced is running, with a trace of xvda that says what it is told to.
func traced(t *testing.T, trace func(domid, successor xenctl.Domid) (unclear, breach string)) (*world, *Agent, *fakeDomain) {
	t.Helper()
	w := newWorld(t)
	w.disks[xvda].trace = trace
	d := w.create("domU-web", webUUID)
	a := w.agent(t.TempDir())
	if _, err := a.Enable(ctx(t, 5*time.Second), "domU-web", api.Policy{Content: "none"}); err != nil {
		t.Fatal(err)
	}
	soon(t, w, a, "the accounts are open", func() bool { return len(a.keeper(webUUID).status().Custody) == 2 })
	w.load(d, 20)
	return w, a, d
}

// TestThrottledGuest: where the kernel's workers submit the guest's writes, the
// counters have to say whether they were the guest's.
func TestThrottledGuest(t *testing.T) {
	t.Parallel()
	const worker = "254,0 WS 800 + 8 [kworker/0:1]"
	for name, c := range map[string]struct {
		disk, guest uint64 // sectors written
		custody     string
		reason      api.Reason
	}{
		"all by the guest":        {16, 16, "certain", ""},
		"some of it under way":    {8, 16, "uncertain", ""},
		"some by somebody else":   {24, 16, "certain", api.Written}, // the account starts anew
		"all by somebody else":    {8, 0, "certain", api.Written},
		"nothing has arrived yet": {0, 0, "certain", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, a, d := traced(t, func(_, _ xenctl.Domid) (string, string) { return worker, "" })
			w.mu.Lock()
			w.disks[xvda].written += c.disk
			w.disks[xvda].guest[d.info.Domid].Written += c.guest
			w.mu.Unlock()
			a.Wake()
			s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful)
			if err != nil {
				t.Fatal(err)
			}
			if c.reason != "" {
				if st := status(t, a); s.PagesRestored != 20 || len(st.Refusals) != 1 || st.Refusals[0].Refusals[0].Reason != c.reason {
					t.Errorf("%+v, %+v", s, st.Refusals)
				}
				return
			}
			v := vbd(t, s, xvda)
			checked := uint64(0)
			if c.custody == "uncertain" {
				checked = 20
			}
			if v.Custody != c.custody || v.Verdict != "approved" || uint64(v.Checked) != checked {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestCountedLate: a request that the backend has just handed on, and not counted,
// is not somebody else's; one that it never counts is.
func TestCountedLate(t *testing.T) {
	t.Parallel()
	for readings, refused := range map[int]bool{2: false, 200: true} {
		w, a, d := traced(t, func(_, _ xenctl.Domid) (string, string) { return "", "" })
		w.mu.Lock()
		w.disks[xvda].written += 8
		w.disks[xvda].guest[d.info.Domid].Written += 8
		w.disks[xvda].uncounted = readings
		w.mu.Unlock()
		a.Wake()
		s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful)
		if err != nil || (len(status(t, a).Refusals) != 0) != refused || s.PagesRestored != map[bool]uint64{false: 40, true: 20}[refused] {
			t.Errorf("%d readings: %+v, %v", readings, s, err)
		}
	}
}

// TestTraceNamesTheCulprit: what cannot be the guest's is never believed to be,
// whatever the counters say.
func TestTraceNamesTheCulprit(t *testing.T) {
	t.Parallel()
	told := false
	w, a, d := traced(t, func(_, _ xenctl.Domid) (string, string) {
		if told {
			return "", "written to by another process: dd"
		}
		return "", ""
	})
	w.mu.Lock()
	told = true
	w.disks[xvda].written += 8
	w.disks[xvda].guest[d.info.Domid].Written += 8
	w.mu.Unlock()
	w.die(d, xenctl.ShutdownCrash)
	a.Wake()
	if v := vbd(t, *status(t, a).Last, xvda); v.Verdict != "refused" || !strings.Contains(v.Reason, "dd") {
		t.Errorf("%+v", v)
	}
}

// TestStalled: an agent that was stalled while the domain went down and came
// back does not take the new domain's writes for a stranger's; but it cannot be
// certain of anything then. Nor is it where the trace cannot tell whose the last
// writes were.
func TestStalled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		wrote            func(successor xenctl.Domid) (unclear, breach string)
		guest            uint64 // sectors that the successor has written
		custody, verdict string
		checked          int
	}{
		"the successor has written": {func(successor xenctl.Domid) (string, string) {
			if successor != 2 {
				return "", "written to by another process: 2.xvda-0"
			}
			return "254,0 WS 800 + 8 [2.xvda-0]", ""
		}, 8, "uncertain", "approved", 20},
		"a worker of the kernel has": {func(xenctl.Domid) (string, string) {
			return "254,0 WS 800 + 8 [kworker/0:1]", ""
		}, 0, "uncertain", "approved", 20},
		"another domain has": {func(xenctl.Domid) (string, string) {
			return "", "written to by another process: 3.xvda-0"
		}, 0, "broken", "refused", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wrote := false
			w, a, d := traced(t, func(domid, successor xenctl.Domid) (string, string) {
				if !wrote || domid != 1 {
					return "", ""
				}
				return c.wrote(successor)
			})
			time.Sleep(100 * time.Millisecond)
			stalled, goOn := make(chan bool), make(chan bool)
			go func() {
				_ = a.keeper(webUUID).do(ctx(t, 20*time.Second), func() error { close(stalled); <-goOn; return nil })
			}()
			<-stalled
			w.die(d, xenctl.ShutdownReboot)
			for up := false; !up; time.Sleep(10 * time.Millisecond) {
				w.mu.Lock()
				up = len(w.domains) == 1 && w.domains[0].info.Domid == 2
				if up {
					wrote = true
					w.disks[xvda].written += 8
					w.disks[xvda].guest[2].Written += c.guest
				}
				w.mu.Unlock()
			}
			close(goOn)
			v := vbd(t, *status(t, a).Last, xvda)
			if v.Custody != c.custody || v.Verdict != c.verdict || int(v.Checked) != c.checked {
				t.Errorf("%+v", v)
			}
		})
	}
}
