package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
)

// volume is the domU's xvda as LVM would have it: web, which the guest uses, lies on
// web-real, and that on the disk, so that snapshots can be put between the two.
type volume struct {
	*bed
	sectors int64
}

const volumeConfig = "/tmp/volume.cfg"

// table exchanges the table of web.
func (v volume) table(t *testing.T, target string) {
	t.Helper()
	v.dom0(t, fmt.Sprintf("export DM_DISABLE_UDEV=1; dmsetup suspend web && dmsetup load web --table '0 %d %s' && dmsetup resume web", v.sectors, target))
}

const (
	linear = "linear /dev/mapper/web-real 0"
	origin = "snapshot-origin /dev/mapper/web-real"
)

// snapshot makes a snapshot of the volume, as lvcreate -s does.
func (v volume) snapshot(t *testing.T) {
	t.Helper()
	v.dom0(t, "dd if=/dev/zero of=/dev/vdc bs=4096 count=1 oflag=direct 2>/dev/null")
	v.dom0(t, fmt.Sprintf("export DM_DISABLE_UDEV=1; dmsetup suspend web && "+
		"dmsetup create snap --table '0 %d snapshot /dev/mapper/web-real /dev/vdc P 8' && "+
		"dmsetup load web --table '0 %d %s' && dmsetup resume web", v.sectors, v.sectors, origin))
}

// unsnapshot removes it, as lvremove does.
func (v volume) unsnapshot(t *testing.T) {
	t.Helper()
	v.table(t, linear)
	v.dom0(t, "export DM_DISABLE_UDEV=1; dmsetup remove snap")
}

// load has the guest read what it has.
func (v volume) load(t *testing.T) {
	t.Helper()
	v.domU(t, "sync; cat /srv/www/03/* /srv/old/* >/dev/null")
}

// warm reboots the guest by force and asserts that it is warm, though every page of
// its disk was compared, for this reason.
func (v volume) warm(t *testing.T, why string) {
	t.Helper()
	if s, err := v.Reboot(t.Context(), "--force"); err != nil {
		t.Fatalf("%+v, %v", s, err)
	}
	v.awaitDomU(t)
	last := v.status(t, "--wait", "--timeout", "9m").Last
	d := last.vbd(t, "xvda")
	t.Logf("%s: %+v", last.Outcome, d)
	if last.Outcome != "warm" || d.Verdict != "approved" || d.Custody != "uncertain" || d.Held == 0 || d.Checked < d.Held || d.Mismatches != 0 || !strings.Contains(d.Note, why) {
		t.Errorf("it should be approved after all pages were compared, as %q", why)
	}
	v.check(t)
}

// TestRolledBackBelow: the guest's disk gets other contents below the device that it
// is attached to. The guest is off while a snapshot of it is merged: everything that
// this has changed is found, and nothing of it comes back. What leaves the contents
// alone costs a comparison of the pages, and no warmth: a snapshot that is taken and
// removed while the guest runs, and dom0 throttling the guest's writes.
func TestRolledBackBelow(t *testing.T) {
	t.Parallel()
	v := volume{bed: boot(t, lab.Variant{Unthrottled: true, SpareMiB: 128})}
	v.dom0(t, "modprobe dm-mod && modprobe dm-snapshot")
	v.sectors = v.number(t, "blockdev --getsz /dev/vdb")
	v.dom0(t, fmt.Sprintf("export DM_DISABLE_UDEV=1; dmsetup create web-real --table '0 %d linear /dev/vdb 0' && dmsetup create web --table '0 %d %s'",
		v.sectors, v.sectors, linear))
	v.dom0(t, `sed 's|^disk.*|disk = [ "phy:/dev/mapper/web,xvda,w" ]|' `+ordinaryConfig+" >"+volumeConfig)
	v.createEnabled(t, volumeConfig)
	const files = 40 // of two pages
	write := func(what string) {
		v.domU(t, fmt.Sprintf("mkdir -p /srv/old; for i in $(seq %d); do yes \"%s $i\" | head -c 8192 >/srv/old/$i; done; sync", files, what))
	}
	write("first")

	t.Run("certain", func(t *testing.T) { // else the rest would prove nothing
		v.load(t)
		if s, err := v.Reboot(t.Context(), "--force"); err != nil {
			t.Fatalf("%+v, %v", s, err)
		}
		v.awaitDomU(t)
		d := v.status(t, "--wait", "--timeout", "9m").Last.vbd(t, "xvda")
		t.Logf("%+v", d)
		if d.Verdict != "approved" || d.Custody != "certain" {
			t.Errorf("%+v", d)
		}
	})
	t.Run("snapshot", func(t *testing.T) {
		v.load(t)
		v.snapshot(t)
		v.domU(t, "echo nightly >/root/nightly; sync")
		v.unsnapshot(t)
		v.warm(t, "may have other contents than were written to it")
	})
	t.Run("throttled", func(t *testing.T) {
		v.load(t)
		// blkback's threads in a control group that may write 1 MiB a second.
		v.dom0(t, `mkdir -p /tmp/cgroup && mount -t cgroup2 none /tmp/cgroup && echo +io >/tmp/cgroup/cgroup.subtree_control && mkdir /tmp/cgroup/slow &&
			echo "$(dmsetup info -c --noheadings -o major,minor --separator : web) wbps=1048576" >/tmp/cgroup/slow/io.max &&
			for p in $(ls /proc | grep '^[0-9]'); do
				grep -q 'xvda-0$' /proc/$p/comm 2>/dev/null && echo $p >/tmp/cgroup/slow/cgroup.procs && echo $p; done | grep -q .`)
		v.domU(t, "dd if=/dev/zero of=/root/throttled bs=64k count=64 oflag=direct 2>/dev/null")
		v.dom0(t, `echo "$(dmsetup info -c --noheadings -o major,minor --separator : web) wbps=max" >/tmp/cgroup/slow/io.max`)
		v.warm(t, "worker of dom0's kernel")
	})
	t.Run("merged", func(t *testing.T) {
		v.load(t)
		v.snapshot(t)
		write("second")
		v.load(t)
		v.destroy(t)
		// What is to be merged, in pages.
		changed := v.number(t, "dmsetup status snap | sed 's|.* \\([0-9]*\\)/.* \\([0-9]*\\)$|\\1 \\2|' | awk '{ print ($1 - $2) / 8 }'")
		v.dom0(t, "export DM_DISABLE_UDEV=1; dmsetup remove snap")
		v.table(t, "snapshot-merge /dev/mapper/web-real /dev/vdc P 8")
		v.dom0(t, "until dmsetup status web | awk '{ split($4, n, \"/\"); exit !(n[1] == $5) }'; do sleep 0.1; done")
		v.table(t, linear)
		v.dom0(t, "xl create "+volumeConfig)
		v.awaitDomU(t)
		last := v.status(t, "--wait", "--timeout", "9m").Last
		d := last.vbd(t, "xvda")
		t.Logf("%d pages merged; %+v", changed, d)
		// The new guest may have written to a few of them by then.
		if d.Custody != "uncertain" || d.Verdict != "refused" || d.Checked < d.Held*9/10 || !strings.Contains(d.Note, "every page was compared") {
			t.Errorf("every page should be compared, and the disk refused")
		}
		if d.Mismatches < 2*files || d.Mismatches > uint64(changed) {
			t.Errorf("%d pages differ; %d have changed, and the guest had %d of them in its cache at least", d.Mismatches, changed, 2*files)
		}
		if got := v.domU(t, "for f in /srv/old/*; do head -n 1 $f | cut -d ' ' -f 1; done | sort -u"); got != "first" {
			t.Errorf("the files have %q", got)
		}
		v.check(t)
	})
}
