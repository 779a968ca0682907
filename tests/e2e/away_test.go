package e2e

import (
	"strings"
	"testing"
)

// TestAgentAwayAndDisk: the agent does not see the guest go down. One block of
// one disk changes meanwhile: comparing every page finds it. The other disk,
// of which nobody can vouch either, is warm after every page was compared.
func TestAgentAwayAndDisk(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.load(t)
	s.quiet(t)
	s.dom0(t, "warmreboot enable --content none domU-web")
	if err := s.StopAgent(t.Context(), "KILL"); err != nil {
		t.Fatal(err)
	}
	const mark = "one block of many"
	s.dom0(t, "xl destroy domU-web; "+putDirect(mark, "/dev/vdb", s.block)+"; xl create "+ordinaryConfig)
	// The guest waits for the verdict for a minute.
	if err := s.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.awaitDomU(t)
	last := s.status(t, "--wait", "--timeout", "9m").Last
	a, b := last.vbd(t, "xvda"), last.vbd(t, "xvdb")
	t.Logf("%+v\n%+v", a, b)
	if a.Verdict != "refused" || a.Custody != "uncertain" || a.Mismatches != 1 || len(a.Refusals) == 0 || a.Refusals[0].Reason != "content" ||
		!strings.Contains(a.Reason, "1 of ") {
		t.Errorf("the changed disk: %+v", a)
	}
	if b.Verdict != "approved" || b.Custody != "uncertain" || b.Held == 0 || b.Checked < b.Held || b.Mismatches != 0 {
		t.Errorf("the other disk: %+v", b)
	}
	s.begins(t, fileOnExt4, 0, mark)
	s.check(t)

	// Restarted while the guest runs: pages may have been read while nobody
	// watched, so all are compared.
	s.load(t)
	s.quiet(t)
	if err := s.StopAgent(t.Context(), "KILL"); err != nil {
		t.Fatal(err)
	}
	if err := s.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reboot(t.Context(), "--force"); err != nil {
		t.Fatal(err)
	}
	s.awaitDomU(t)
	last = s.status(t).Last
	a, b = last.vbd(t, "xvda"), last.vbd(t, "xvdb")
	for _, disk := range []verdictOf{a, b} {
		if disk.Verdict != "approved" || disk.Custody != "uncertain" || disk.Checked < disk.Held || !strings.Contains(disk.Note, "every page was compared") {
			t.Errorf("%+v", disk)
		}
	}
	s.begins(t, fileOnExt4, 0, mark)
	s.check(t)
}
