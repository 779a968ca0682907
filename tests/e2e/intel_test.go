package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
)

// TestIntel is the core of all this on Intel's VMX and EPT, where Xen's tables, faults
// and flushes are others than on AMD's: a warm reboot of each kind, and callers that
// misbehave. Bochs emulates that, slowly.
func TestIntel(t *testing.T) {
	t.Parallel()
	b := boot(t, lab.Variant{Bochs: true})
	console, err := os.ReadFile(b.ConsoleLog())
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"Extended Page Tables (EPT)", "HVM: VMX enabled", "Hardware Assisted Paging (HAP) detected"} {
		if !strings.Contains(string(console), word) {
			t.Errorf("Xen has not said %q", word)
		}
	}
	b.create(t, true)
	b.read(t)
	for _, trigger := range []string{"graceful", "panic", "force"} {
		before := b.dom0(t, "xl domid domU-web")
		switch trigger {
		case "panic":
			panicGuest(t, b.DomU())
		case "force":
			b.dom0(t, "warmreboot --force domU-web")
		default:
			b.dom0(t, "warmreboot domU-web")
		}
		if err := b.AwaitNewDomid(t.Context(), before); err != nil {
			t.Fatal(err)
		}
		b.awaitDomU(t)
		last := b.status(t, "--wait", "--timeout", "9m").Last
		if last == nil || last.Outcome != "warm" {
			t.Fatalf("%s: %+v", trigger, last)
		}
		pass := b.read(t)
		t.Logf("%s: %d of %d pages restored, first pass %.2f s, %d bytes from disk", trigger, last.PagesRestored, last.PagesPreserved,
			pass.Seconds, pass.Disks["xvda"].Bytes)
		if float64(last.PagesRestored) < 0.98*float64(last.PagesPreserved) {
			t.Errorf("%s: %d of %d pages restored", trigger, last.PagesRestored, last.PagesPreserved)
		}
		if most := pass.Bytes / 100; pass.Disks["xvda"].Bytes > most {
			t.Errorf("%s: %d bytes came from disk, want at most %d", trigger, pass.Disks["xvda"].Bytes, most)
		}
		b.verify(t)
		b.check(t)
	}
	b.misbehave(t)
}
