package e2e

import (
	"fmt"
	"testing"
)

// TestLeftInTheRing: a guest panics with a write in its ring that the backend
// has not come to, as all of dom0 but the agent and xenstored waits for a process
// of a higher priority. The agent sees the guest dead, and the disk's books
// balance; the write comes afterwards. It is the guest's, and no reason for a cold
// reboot.
func TestLeftInTheRing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const file, sectors = "/root/ring", 24
	s.domU(t, "dd if=/dev/zero of="+file+" bs=12k count=1 oflag=direct 2>/dev/null; sync")
	s.load(t)
	s.quiet(t)
	// Linux leaves ordinary processes some time beside those of real-time priority.
	s.dom0(t, `warmreboot enable --content none domU-web
		echo -1 >/proc/sys/kernel/sched_rt_runtime_us
		mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug
		for cpu in /sys/kernel/debug/sched/fair_server/*; do echo 0 >$cpu/runtime; done
		chrt -a -f -p 60 $(pidof warmrebootd); chrt -a -f -p 55 $(pidof xenstored)`)
	// The guest notices that it is time by dom0 not answering any more.
	s.domU(t, fmt.Sprintf(`(
		while busybox ping -c 1 -W 1 10.0.5.1; do :; done
		head -c 12288 /dev/urandom | dd of=%s bs=12k count=1 conv=notrunc oflag=direct iflag=fullblock &
		sleep 1
		echo c >/proc/sysrq-trigger
	) >/dev/null 2>&1 &`, file))
	const written = "read x x x x x x sectors rest </sys/block/vdb/stat; echo $sectors"
	s.dom0(t, written+` >/tmp/before
		chrt -f 50 sh -c '
			read now rest </proc/uptime; end=$((${now%.*} + 20))
			until grep -q "domain went down" /var/log/warmrebootd.log; do
				read now rest </proc/uptime; [ ${now%.*} -lt $end ] || exit 1
			done
			`+written+` >/tmp/balanced'`)
	s.awaitDomU(t)
	last := s.status(t, "--wait", "--timeout", "9m").Last
	before, balanced, after := s.number(t, "cat /tmp/before"), s.number(t, "cat /tmp/balanced"), s.number(t, written)
	if balanced != before || after < before+sectors {
		t.Errorf("%d sectors written before, %d when the agent saw the death, %d in the end: nothing had been left in the ring", before, balanced, after)
	}
	for _, name := range []string{"xvda", "xvdb"} {
		if v := last.vbd(t, name); v.Verdict != "approved" || v.Custody != "certain" {
			t.Errorf("%+v", v)
		}
	}
	s.verify(t)
	s.check(t)
}
