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
	const imageMiB = 1024
	b := boot(t, lab.Variant{MemoryMiB: 2560 + imageMiB/2, SpareMiB: imageMiB + imageMiB/8})
	b.create(t, true)
	s := b.misbehave(t)

	// Without anything enabled, and while the other is only an image, of 1 GiB.
	b.dom0(t, "xl destroy "+lab.Domain+"; sh /root/small-disk /tmp/small.img 0")
	b.largeImage(t, imageMiB)
	domid := b.makeSmall(t, s)
	uuid := b.dom0(t, "sed -n 's/^uuid *= *\"\\(.*\\)\"/\\1/p' "+ordinaryConfig)
	b.overcommit(t, b.runSmall(t, s), domid, uuid, imageMiB<<8)
	prompt(t, "an image is dropped", b.latency(t, func() { b.must(t, "image-drop", uuid) }))
}

// misbehave calls Xen from a small domU, which it returns and which is gone by then, and
// from dom0 with all that the interface forbids. The warm cache of the other domU, which
// runs, has to be untouched by it.
func (b *bed) misbehave(t *testing.T) small {
	t.Helper()
	b.bringHostile(t)
	dom0 := b.Machine.Dom0()
	if _, err := b.DomU().Shell(t.Context(), "cat /srv/www/00/* /srv/www/01/* >/dev/null"); err != nil {
		t.Fatal(err)
	}
	victim := b.domid(t, lab.Domain)
	untouched := b.counters(t, victim)
	if untouched.Committed < 1000 {
		t.Fatalf("the other domU has only %d pages to lose", untouched.Committed)
	}
	// Whoever looks at a table makes Xen allocate all of it, and the agent does so
	// when it pleases.
	b.check(t)
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
	prompt(t, "others call Xen", late)
	// All is as before for one who behaves.
	hostile(t, domU, program, "guest", "tricks", domid, victim, "10.0.5.1")

	b.compat(t)

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
	return s
}

// prompt asserts that dom0 did not wake up late while something was done: whatever
// that was, no call lasted for long.
func prompt(t *testing.T, what string, late float64) {
	t.Helper()
	t.Logf("%s: dom0 woke up %.0f ms late at worst", what, late)
	if late > longestHang && *processors == 1 {
		t.Errorf("%s: dom0 woke up %.0f ms late, want at most %.0f", what, late, longestHang)
	}
}

// largeImage has Xen keep an image of the domU of at least so many MiB: it writes a
// file of that size, and is destroyed.
func (b *bed) largeImage(t *testing.T, mib int) {
	t.Helper()
	const config = "/tmp/large.cfg"
	b.dom0(t, "mke2fs -q -t ext4 -b 4096 -E lazy_itable_init=0,lazy_journal_init=0 -F /dev/vdc")
	b.dom0(t, fmt.Sprintf(`sed -e 's/^memory = .*/memory = %d/' -e 's|^disk.*|disk = [ "phy:/dev/vdb,xvda,w", "phy:/dev/vdc,xvdc,w" ]|' %s >%s`,
		mib+mib/8, ordinaryConfig, config))
	b.createEnabled(t, config)
	b.domU(t, fmt.Sprintf("mkdir -p %[1]s && /bin/busybox mount -t ext4 /dev/xvdc %[1]s && dd if=/dev/zero of=%[1]s/file bs=1M count=%[2]d 2>/dev/null && sync", spareRoot, mib))
	b.destroy(t)
}

// overcommit has a domU ask for more memory than it may have, again and again,
// while Xen keeps an image of at least so many pages, which has to be untouched.
func (b *bed) overcommit(t *testing.T, domU *lab.Client, domid int, uuid string, least int) {
	t.Helper()
	before := b.must(t, "image", uuid)
	if before < least {
		t.Fatalf("the image has only %d pages", before)
	}
	free := b.heapMiB(t)
	late := b.latency(t, func() { hostile(t, domU, "/bin/hostile", "guest", "overcommit", domid, 0) })
	prompt(t, fmt.Sprintf("a domU asks for more than it may have, with %d MiB free and %d pages in an image", free, before), late)
	if after := b.must(t, "image", uuid); after != before {
		t.Errorf("the image had %d pages, and has %d", before, after)
	}
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

// TestImagesGiveWay: what is preserved of a domU goes to one that is created when
// nothing else is left, and not before, nor to one that runs. The pages are made
// known without a kernel's help.
func TestImagesGiveWay(t *testing.T) {
	t.Parallel()
	b := boot(t, lab.Variant{})
	b.bringHostile(t)
	b.dom0(t, "sh /root/small-disk /tmp/small.img 0")
	first := small{name: "first", uuid: "5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b04", memory: 192, disk: "/tmp/small.img"}
	domid := b.makeSmall(t, first)
	b.must(t, "enable", domid)
	b.must(t, "arm", domid, 600)
	hostile(t, b.runSmall(t, first), "/bin/hostile", "guest", "secret", domid, 0, "10.0.5.1")
	b.dom0(t, "xl destroy first")
	pages := b.must(t, "image", first.uuid)
	if pages < 10 {
		t.Fatalf("%d pages are preserved", pages)
	}

	second := small{name: "second", uuid: "5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b05", memory: 192, disk: "/tmp/small.img"}
	domid = b.makeSmall(t, second)
	b.overcommit(t, b.runSmall(t, second), domid, first.uuid, pages)
	b.dom0(t, "xl destroy second")

	free := 0
	await(t, "the memory is free", func() bool { was := free; free = b.heapMiB(t); return was == free })
	if err := b.try(t, filler(free+64, 1)); err == nil {
		t.Error("a domain was created with more memory than there is")
	}
	b.dom0(t, "xl destroy filler1 2>/dev/null || true; "+filler(free-24, 1))
	if rc, now := b.control(t, "image", first.uuid); rc != 0 || now != pages {
		t.Errorf("%d: %d pages of %d are left with memory to spare", rc, now, pages)
	}
	// Its paging pool alone is more than what is free.
	t.Logf("%d MiB are free, and %d pages preserved", b.heapMiB(t), pages)
	err := b.try(t, filler(16, 32))
	rc, _ := b.control(t, "image", first.uuid)
	t.Logf("the last domain: %v; the image: %d", err, rc)
	if rc != errNoImage {
		t.Errorf("the image is still there: %d", rc)
	}
	b.dom0(t, "xl dmesg | grep 'memory needed, taking from'")
}

// try is a command that may fail.
func (b *bed) try(t *testing.T, command string) error {
	t.Helper()
	_, err := b.Machine.Dom0().Shell(t.Context(), command)
	return err
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
