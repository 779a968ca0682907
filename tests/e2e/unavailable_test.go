package e2e

import (
	"fmt"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
)

// Exit codes of warmreboot; docs/operations.md has them all.
const (
	exitNotAvailable = 4
	exitCold         = 3
	exitNotEnabled   = 5
)

// refuses asserts that a command ends with the code, says something, and
// leaves the domain as it is.
func (b *bed) refuses(t *testing.T, domain, line string, want int) {
	t.Helper()
	before := b.dom0(t, "xl domid "+domain)
	code, output := b.exitCode(t, line)
	t.Logf("%s: %s", line, output)
	if code != want {
		t.Errorf("%s: exit code %d, want %d", line, code, want)
	}
	if len(output) < 10 {
		t.Errorf("%s: no message", line)
	}
	if after := b.dom0(t, "xl domid "+domain); after != before {
		t.Errorf("%s: the domain was rebooted all the same", line)
	}
}

// ordinaryReboot asserts that --cold works where warm does not.
func (b *bed) ordinaryReboot(t *testing.T) {
	t.Helper()
	before := b.dom0(t, "xl domid domU-web")
	b.dom0(t, "warmreboot --cold domU-web")
	b.awaitDomU(t)
	if after := b.dom0(t, "xl domid domU-web"); after == before {
		t.Error("--cold did not reboot the domain")
	}
}

func TestNotEnabled(t *testing.T) {
	t.Parallel()
	b := boot(t, lab.Variant{})
	b.create(t, false)
	cold := b.read(t)
	b.refuses(t, "domU-web", "warmreboot domU-web", exitNotEnabled)
	for _, counter := range []string{"registered", "committed", "restored", "held"} {
		value, err := b.DomU().Shell(t.Context(), "cat /sys/hypervisor/warmcache/"+counter+" 2>/dev/null || echo 0")
		if err != nil || value != "0" {
			t.Errorf("%s is %q (%v) though nobody has enabled the warm cache", counter, value, err)
		}
	}
	b.ordinaryReboot(t)
	again := b.read(t)
	if again.Disks["xvda"].Bytes < cold.Bytes*95/100 {
		t.Errorf("%d of %d bytes came from disk after an ordinary reboot", again.Disks["xvda"].Bytes, again.Bytes)
	}
	// One that is enabled while it runs tracks from its next boot on.
	b.dom0(t, "warmreboot enable domU-web")
	b.refuses(t, "domU-web", "warmreboot domU-web", exitNotEnabled)
	b.dom0(t, "warmreboot --cold domU-web && warmreboot status -o json domU-web | grep '\"attached\": true'")
	b.awaitDomU(t)
	b.read(t)
	b.dom0(t, "warmreboot domU-web")
	b.awaitDomU(t)
	b.verify(t)
}

func TestPVGuest(t *testing.T) {
	t.Parallel()
	b := boot(t, lab.Variant{})
	// Debian's kernel is one that a PV domain can boot; it need not get far.
	b.dom0(t, `printf 'name="pv"\ntype="pv"\nkernel="%s"\nmemory=128\n' /boot/vmlinuz-* >/tmp/pv.cfg; xl create -p /tmp/pv.cfg`)
	b.refuses(t, "pv", "warmreboot enable pv", exitNotEnabled)
	b.refuses(t, "pv", "warmreboot pv", exitNotEnabled)
}

func TestGuestWithoutPatches(t *testing.T) {
	t.Parallel()
	guestThatDoesNotTrack(t, lab.Variant{StockKernel: true}, "")
}

func TestGuestSwitchedOff(t *testing.T) {
	t.Parallel()
	guestThatDoesNotTrack(t, lab.Variant{}, "xen_warmcache=off")
}

// guestThatDoesNotTrack is rebooted as ever, and not warm, for which the agent waits
// half a minute: the next kernel might track. The option is one of its kernel's.
func guestThatDoesNotTrack(t *testing.T, v lab.Variant, option string) {
	t.Helper()
	b := boot(t, v)
	b.dom0(t, fmt.Sprintf(`sed 's/^cmdline = "/&%s /' %s >/tmp/domU.cfg`, option, ordinaryConfig))
	b.createEnabled(t, "/tmp/domU.cfg")
	b.refuses(t, "domU-web", "warmreboot domU-web", exitNotEnabled)
	const uptime = "cut -d. -f1 /proc/uptime"
	begun := b.number(t, uptime)
	b.ordinaryReboot(t)
	if took := b.number(t, uptime) - begun; took > 120 {
		t.Errorf("the reboot took %d s: the agent waited longer for what the guest would say of its page cache", took)
	}
	b.read(t)
	b.verify(t)
}

func TestXenWithoutPatches(t *testing.T) {
	t.Parallel()
	b := boot(t, lab.Variant{StockXen: true})
	b.create(t, false)
	b.refuses(t, "domU-web", "warmreboot enable domU-web", exitNotAvailable)
	b.refuses(t, "domU-web", "warmreboot domU-web", exitNotAvailable)
	b.ordinaryReboot(t)
	b.read(t)
	b.verify(t)
}
