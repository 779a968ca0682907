package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
)

const trialConfig = "/tmp/trial.cfg"

// left is a line of shell that shows what a trial could leave on the host: what
// belongs to domains and disks, by name.
const left = `losetup -a | sort; dmsetup table 2>/dev/null; xl list | awk '{ print $1, $2, $4 }';
	find /mnt /srv /var/lib/xen /var/log/xen /var/lib/warmreboot/updates /var/lib/warmreboot/trials 2>/dev/null | sort;
	xenstore-ls -f / | sed 's/ = .*//' | grep -v '^/local/domain/[0-9]*/data' | sort`

// certain asserts that the custody of the domU's disks is.
func (u updated) certain(t *testing.T) {
	t.Helper()
	for _, c := range u.status(t).Custody {
		if c.State != "certain" {
			t.Errorf("custody of %s is %s: %s", c.Name, c.State, c.Reason)
		}
	}
}

// TestTrial: a kernel is tried on a clone of a domU, whose disks are images on a file
// system that shares blocks. One that panics there leaves the domU alone, and nothing on
// the host, also if the agent is killed meanwhile; one that is well becomes the domU's,
// warm, and with custody certain all the time.
func TestTrial(t *testing.T) {
	t.Parallel()
	u := updated{boot(t, lab.Variant{Unthrottled: true, SpareMiB: 2048})}
	u.dom0(t, `modprobe xfs && mkfs.xfs -q /dev/vdc && mount /dev/vdc /mnt && dd if=/dev/vdb of=/mnt/web.raw bs=1M 2>/dev/null && cp /srv/img.raw /mnt/img.raw && sync &&
		sed 's|^disk.*|disk = [ "file:/mnt/web.raw,xvda,w", "file:/mnt/img.raw,xvdb,w" ]|' `+ordinaryConfig+" >"+trialConfig)
	u.createEnabled(t, trialConfig)
	u.verify(t) // which reads all files
	u.certain(t)
	options := u.line(t)
	u.dom0(t, "cp /boot/guest-kernel /boot/another-kernel; mkdir -p /var/lib/warmreboot/trials /var/lib/warmreboot/updates")
	update := func(kernel, mark, flags string) string {
		return fmt.Sprintf("warmreboot update domU-web --kernel %s --cmdline '%s %s' --deadline 8m --probation 5s --trial-space 256 %s", kernel, options, mark, flags)
	}
	before, domid := u.dom0(t, left), u.dom0(t, "xl domid domU-web")
	untouched := func(what string) {
		t.Helper()
		if now := u.dom0(t, left); now != before {
			t.Errorf("%s has left something: before\n%s\nand now\n%s", what, before, now)
		}
		if now := u.dom0(t, "xl domid domU-web"); now != domid || u.line(t) != options {
			t.Errorf("%s: the domain was rebooted: it was %s, and is %s", what, domid, now)
		}
		u.certain(t)
	}

	code, text := u.exitCode(t, update("/boot/another-kernel", "init=/nowhere", "--trial"))
	if code != 15 || !strings.Contains(text, "went down before it was up") || !strings.Contains(text, "Kernel panic") {
		t.Errorf("a panic: code %d: %s", code, text)
	}
	t.Log(text)
	untouched("a panic")

	// It writes while it is tried, and so does the domU.
	u.dom0(t, "setsid "+update("/boot/another-kernel", "trial=long", "--trial-only --probation 1h")+" >/tmp/update 2>&1 </dev/null &")
	await(t, "the clone runs", func() bool { return strings.Contains(u.dom0(t, "xl list"), "domU-web-trial") })
	if err := u.StopAgent(t.Context(), "KILL"); err != nil {
		t.Fatal(err)
	}
	if err := u.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "the trial is done anew", func() bool { return strings.Contains(u.dom0(t, "xl list"), "domU-web-trial") })
	u.domU(t, "dd if=/dev/zero of=/root/written bs=1M count=8 2>/dev/null; sync; rm /root/written; sync")
	if code, text := u.exitCode(t, "warmreboot cancel domU-web"); code != 0 {
		t.Errorf("it is not cancelled: %s", text)
	}
	await(t, "the clone is gone", func() bool { return u.dom0(t, left) == before })
	// The agent was away while files were used: a reboot makes the custody of what is read
	// certain again.
	if _, err := u.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	u.awaitDomU(t)
	u.verify(t)

	code, text = u.exitCode(t, update("/boot/another-kernel", "trial=good", "--trial"))
	if code != 0 || !strings.Contains(text, "the clone domU-web-trial came up, and was well") || !strings.Contains(text, "came back warm") {
		t.Fatalf("a good one: code %d: %s", code, text)
	}
	t.Log(text)
	for _, d := range u.status(t).Last.VBDs {
		if d.Held > 0 && d.Custody != "certain" {
			t.Errorf("custody at the reboot after a trial: %+v", d)
		}
	}
	u.settled(t, "/boot/another-kernel", "trial=good")
	if now := u.dom0(t, "losetup -a; xl list; ls -A /mnt /var/lib/warmreboot/trials /var/log/xen /var/log/xen/console"); strings.Contains(now, "-trial") {
		t.Errorf("left: %s", now)
	}
}
