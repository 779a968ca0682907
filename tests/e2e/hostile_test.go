package e2e

import (
	"fmt"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
)

const (
	errNoDomain = -3 // -ESRCH
	errNoImage  = -2 // -ENOENT
)

// longestHang is how late dom0 may wake up while others misbehave.
const longestHang = 100.0 // ms

// raceSeconds is how long two vCPUs and dom0 work on the same pages at once.
const raceSeconds = 6

// TestHostileCallers calls Xen from a domU and from dom0 with all that the
// interface forbids, while another domU has a warm cache of its own.
func TestHostileCallers(t *testing.T) {
	t.Parallel()
	b := boot(t, lab.Variant{})
	b.bringHostile(t)
	dom0 := b.Machine.Dom0()

	b.create(t, true)
	if _, err := b.DomU().Shell(t.Context(), "cat /srv/www/00/* /srv/www/01/* >/dev/null"); err != nil {
		t.Fatal(err)
	}
	victim := b.domid(t, lab.Domain)
	untouched := b.counters(t, victim)
	if untouched.Committed < 1000 {
		t.Fatalf("the other domU has only %d pages to lose", untouched.Committed)
	}
	baseline := b.resources(t)

	b.dom0(t, "sh /root/small-disk /tmp/small.img 0")
	s := small{name: "hostile", uuid: "5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b02", memory: 192, disk: "/tmp/small.img"}
	domid := b.makeSmall(t, s)
	domU := b.runSmall(t, s)
	const program = "/bin/hostile"
	hostile(t, domU, program, "guest", "disabled", domid, victim)
	hostile(t, domU, program, "guest", "privileges", domid, victim)
	b.must(t, "enable", domid)

	late := b.latency(t, func() { hostile(t, domU, program, "guest", "calls", domid, victim) })
	hostile(t, domU, program, "guest", "frames", domid, victim, "10.0.5.1")
	hostile(t, domU, program, "guest", "tricks", domid, victim, "10.0.5.1")
	b.dom0Calls(t, domid)
	late = max(late, b.latency(t, func() {
		b.dom0(t, fmt.Sprintf("/root/hostile storm %d %d >/tmp/storm 2>&1 </dev/null &", domid, raceSeconds))
		hostile(t, domU, program, "guest", "races", domid, victim, "10.0.5.1", raceSeconds+1)
	}))
	hostile(t, dom0, "cat", "/tmp/storm")
	t.Logf("dom0 woke up %.0f ms late at worst", late)
	if late > longestHang {
		t.Errorf("dom0 woke up %.0f ms late, want at most %.0f", late, longestHang)
	}
	// All is as before for one who behaves.
	hostile(t, domU, program, "guest", "tricks", domid, victim, "10.0.5.1")

	b.must(t, "disable", domid)
	hostile(t, domU, program, "guest", "disabled", domid, victim)
	b.must(t, "enable", domid)
	b.dom0(t, fmt.Sprintf("setsid /root/hostile hold %d >/tmp/hold 2>&1 </dev/null & echo $! >/tmp/hold.pid", domid))
	await(t, "the bitmap is mapped", func() bool { return b.dom0(t, "cat /tmp/hold") == "held" })
	b.dom0(t, "xl destroy "+s.name)
	hostile(t, dom0, "/root/hostile", "zombie", domid)
	b.dom0(t, "kill $(cat /tmp/hold.pid) $(pidof hostile); rm /tmp/small.img")
	await(t, "the domain is gone", func() bool {
		rc, _ := b.control(t, "disable", domid)
		return rc == errNoDomain
	})

	if now := b.counters(t, victim); now.ForeignWrites != untouched.ForeignWrites || now.P2MChanges != untouched.P2MChanges ||
		now.Committed < untouched.Committed*99/100 {
		t.Errorf("the other domU's warm cache was %+v, is %+v", untouched, now)
	}
	if err := baseline.leak(b.resources(t)); err != nil {
		t.Error(err)
	}
	b.check(t)
}

// TestHostileGuestsOwnIO is about guests that do themselves, or announce in one
// breath, what the backend should do after the announcement.
func TestHostileGuestsOwnIO(t *testing.T) {
	t.Parallel()
	b := boot(t, lab.Variant{})
	b.bringHostile(t)
	b.dom0(t, "sh /root/small-disk /tmp/small.img 0")
	s := small{name: "hostile", uuid: "5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b02", memory: 192, disk: "/tmp/small.img"}
	domid := b.makeSmall(t, s)
	b.must(t, "enable", domid)
	hostile(t, b.runSmall(t, s), "/bin/hostile", "guest", "lies", domid, 0, "10.0.5.1")
	hostile(t, b.Machine.Dom0(), "/root/hostile", "writable", domid)
}

// dom0Calls is dom0's share, with a domain that is not enabled, and a PV one.
func (b *bed) dom0Calls(t *testing.T, enabled int) {
	t.Helper()
	b.dom0(t, `printf 'name="pv"\ntype="pv"\nkernel="%s"\nmemory=128\n' /boot/vmlinuz-* >/tmp/pv.cfg; xl create -p /tmp/pv.cfg`)
	b.dom0(t, `printf 'name="plain"\ntype="pvh"\nkernel="/root/scan"\nmemory=32\n' >/tmp/plain.cfg; xl create -p /tmp/plain.cfg`)
	const dead = 0x7000
	hostile(t, b.Machine.Dom0(), "/root/hostile", "dom0", enabled, b.domid(t, "plain"), b.domid(t, "pv"), dead)
	b.dom0(t, "xl destroy pv; xl destroy plain")
}

// latency is how late a process in dom0 wakes up at worst while do goes on.
// There is one processor: whatever Xen does in one stretch delays it.
func (b *bed) latency(t *testing.T, do func()) float64 {
	t.Helper()
	b.dom0(t, "rm -f /tmp/latency; setsid /root/hostile latency 600 >/tmp/latency 2>&1 </dev/null & echo $! >/tmp/latency.pid")
	do()
	b.dom0(t, "kill $(cat /tmp/latency.pid)")
	await(t, "the latency is known", func() bool { return b.dom0(t, "cat /tmp/latency") != "" })
	return hostile(t, b.Machine.Dom0(), "cat", "/tmp/latency")
}
