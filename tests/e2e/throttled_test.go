package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
)

// TestThrottledGuest: dom0 limits the guest's writes with a cgroup, so that the
// kernel's workers submit them. They are not taken for somebody else's; what
// somebody else writes, who is held back as well, still is.
func TestThrottledGuest(t *testing.T) {
	t.Parallel()
	b := boot(t, lab.Variant{Unthrottled: true})
	block := b.number(t, "debugfs -R 'bmap "+fileOnExt4+" 0' /dev/vdb 2>/dev/null")
	b.create(t, true)
	b.dom0(t, "mkdir /run/blkio && mount -t cgroup -o blkio none /run/blkio")
	limit := func(perSecond int) {
		b.dom0(t, fmt.Sprintf(`echo "$(cat /sys/block/vdb/dev) %d" >/run/blkio/blkio.throttle.write_bps_device`, perSecond))
	}
	limit(1 << 20)
	workers := func() int64 {
		return b.number(t, "grep -c 'block_bio_queue: .*kworker/' /sys/kernel/tracing/instances/warmreboot-*-51712/trace")
	}
	write := func() {
		b.domU(t, "dd if=/dev/zero of=/root/throttled bs=1M count=4 conv=fsync status=none; sync")
		t.Logf("the last requests that the trace has of kernel workers: %d", workers())
	}
	custody := func() {
		t.Helper()
		for _, c := range b.status(t).Custody {
			if c.State != "certain" {
				t.Errorf("%+v", c)
			}
		}
	}
	read := func() { b.domU(t, "cat /usr/bin/* >/dev/null") }
	reboot := func(flags ...string) {
		t.Helper()
		r, err := b.Reboot(t.Context(), flags...)
		if err != nil || r.Outcome != "warm" {
			t.Fatalf("%+v, %v", r, err)
		}
		b.awaitDomU(t)
		last := b.status(t).Last
		v := last.vbd(t, "xvda")
		t.Logf("%+v", v)
		if v.Verdict != "approved" || v.Held == 0 || 10*last.PagesRestored < 9*last.PagesApproved {
			t.Errorf("%+v", *last)
		}
		b.check(t)
	}

	read()
	write()
	custody()
	reboot("--force")
	read()
	write()
	custody()
	reboot()
	if n := b.status(t).refused("xvda", "written"); n != 0 {
		t.Errorf("the guest's writes were taken for somebody else's %d times", n)
	}

	limit(4096) // a second for the page that dom0 writes, of what is there already
	b.dom0(t, fmt.Sprintf("dd if=/dev/vdb of=/tmp/page bs=4096 skip=%[1]d count=1 iflag=direct && dd if=/tmp/page of=/dev/vdb bs=4096 seek=%[1]d count=1 oflag=direct conv=notrunc", block))
	await(t, "the write is noticed", func() bool { return b.status(t).refused("xvda", "written") == 1 })
	if text := b.dom0(t, "grep 'behind the guest' /var/log/warmrebootd.log | tail -n 1"); !strings.Contains(text, "of /dev/vdb were written by somebody else than the guest") {
		t.Error(text)
	} else {
		t.Log(text)
	}
}
