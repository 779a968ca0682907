package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/agent"
)

var largeMiB = flag.Int("large", 1024, "TestLargeGuest: the domU's memory in MiB; the machine has 1.5 GiB more")

// TestLargeGuest has three quarters of a large domU's memory come back, all from
// one file. It is for what only many pages show: something that is not linear, a
// number that is too short, a lock held for too long; and for what a guest does
// by how much memory there is, which is that of any boot, although most of it is
// kept. What each part took is logged, by the machine's clock.
func TestLargeGuest(t *testing.T) {
	t.Parallel()
	const root, config, seed = "/srv/spare", "/tmp/large.cfg", 7
	bytes := int64(*largeMiB) << 20 / 4 * 3
	pages := uint64(bytes / 4096)
	b := boot(t, lab.Variant{Unthrottled: true, MemoryMiB: *largeMiB + 1536, SpareMiB: *largeMiB})
	b.dom0(t, "mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 -F /dev/vdc")
	b.dom0(t, fmt.Sprintf(`sed -e 's/^memory = .*/memory = %d/' -e 's|^disk.*|disk = [ "phy:/dev/vdb,xvda,w", "phy:/dev/vdc,xvdc,w" ]|' %s >%s`, *largeMiB, ordinaryConfig, config))
	b.createEnabled(t, config)
	b.domU(t, "mkdir "+root+"; echo '/bin/busybox mount -t ext4 /dev/xvdc "+root+"' >>/etc/lab/boot; /bin/busybox mount -t ext4 /dev/xvdc "+root)
	b.domU(t, fmt.Sprintf("labagent content %s/file %d %d; sync", root, seed, bytes))
	want := sha256.New()
	if _, err := io.CopyN(want, agent.Content(seed), bytes); err != nil {
		t.Fatal(err)
	}
	pass := func(what string) agent.ReadResult {
		t.Helper()
		result := b.readFrom(t, root, "xvdc")
		t.Logf("%s: %d bytes in %.2f s, %d of them from the disk", what, result.Bytes, result.Seconds, result.Disks["xvdc"].Bytes)
		return result
	}
	pass("read before")
	limits := b.limits(t)

	for _, flags := range [][]string{nil, {"--force"}} {
		r, err := b.Reboot(t.Context(), flags...)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(r)
		t.Logf("%s (%v)", text, err)
		if r.Outcome != "warm" || r.PagesRestored < pages*99/100 {
			t.Errorf("%s, %d pages restored, want at least %d", r.Outcome, r.PagesRestored, pages*99/100)
		}
		if from := pass("read after").Disks["xvdc"].Bytes; from > bytes/200 {
			t.Errorf("%d bytes were read from the disk", from)
		}
		for name, now := range b.limits(t) {
			if was := limits[name]; 100*now < 99*was || 100*now > 101*was {
				t.Errorf("%s is %d, was %d", name, now, was)
			}
		}
		t.Logf("domU: %s", b.domU(t, "dmesg | grep -E 'xen_warmcache|Memory:|as init'"))
		t.Logf("dom0: %s", b.dom0(t, "grep -E 'VmHWM|VmRSS' /proc/$(pidof warmrebootd)/status; warmreboot status; xl info free_memory"))
	}
	sums, err := b.DomU().Sums(t.Context(), root)
	if err != nil || sums["file"] != hex.EncodeToString(want.Sum(nil)) {
		t.Errorf("the file is %s, want %x (%v)", sums["file"], want.Sum(nil), err)
	}
	start := time.Now()
	b.check(t)
	t.Logf("compared in %v of the host's time", time.Since(start))
}

// limits are what a guest's kernel and its boot size by the memory that there is.
func (b *bed) limits(t *testing.T) map[string]int {
	t.Helper()
	limits := make(map[string]int)
	for _, line := range strings.Split(b.domU(t, limitsScript), "\n") {
		name, value, _ := strings.Cut(line, " ")
		n, err := strconv.Atoi(value)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		limits[name] = n
	}
	return limits
}

const limitsScript = `cd /proc/sys
for f in kernel/threads-max fs/file-max fs/epoll/max_user_watches vm/min_free_kbytes; do echo "$f $(cat $f)"; done
for i in 1 2 3; do echo "tcp_mem.$i $(cut -f $i net/ipv4/tcp_mem)"; done
awk '/^MemTotal|^CommitLimit/ { print $1, $2 }' /proc/meminfo
awk '$1 == "min" || $1 == "high" || $1 == "managed" { n[$1] += $2 } END { for (i in n) print "zones." i, n[i] }' /proc/zoneinfo
busybox df -k /tmp | awk 'END { print "tmpfs", $2 }'
echo "huge.pages $(grep -c '\[always\]' /sys/kernel/mm/transparent_hugepage/enabled)"`
