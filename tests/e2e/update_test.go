package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
)

// updated is a lab whose domU is given other kernels.
type updated struct{ *bed }

// stored is what libxl has stored of the domU: what xl boots next.
const storedConfig = "/var/lib/xen/userdata-d.*." + webUUID + ".libxl-json"

// line is the command line of the guest that runs.
func (u updated) line(t *testing.T) string {
	t.Helper()
	return u.domU(t, "cat /proc/cmdline")
}

// settled asserts what the domU was booted with, that it stays so, and that nothing
// stale came back.
func (u updated) settled(t *testing.T, kernel, mark string) {
	t.Helper()
	u.awaitDomU(t)
	if line := u.line(t); !strings.HasSuffix(line, mark) {
		t.Errorf("it was booted with %q, want %s", line, mark)
	}
	stored := u.dom0(t, "cat "+storedConfig)
	if !strings.Contains(stored, `"`+kernel+`"`) || !strings.Contains(stored, mark) || strings.Contains(stored, "bootloader\":") {
		t.Errorf("it is to boot %s", stored)
	}
	if left := u.dom0(t, "ls /var/lib/warmreboot/updates"); left != "" {
		t.Errorf("left: %s", left)
	}
	u.verify(t)
	u.check(t)
}

// TestUpdate: a kernel that is well becomes the domU's; one that panics, without an
// agent to see it, and one that is not well, lead back to it.
func TestUpdate(t *testing.T) {
	t.Parallel()
	u := updated{boot(t, lab.Variant{Unthrottled: true})}
	u.create(t, true)
	u.verify(t) // which reads all files
	options := u.line(t)
	update := func(kernel, mark, flags string) string {
		return fmt.Sprintf("warmreboot update domU-web --kernel %s --cmdline '%s %s' --deadline 8m %s", kernel, options, mark, flags)
	}

	// What cannot be booted is not tried.
	if code, text := u.exitCode(t, update("/bin/busybox", "x=1", "")); code != 14 || !strings.Contains(text, "Xen note") {
		t.Errorf("busybox: code %d: %s", code, text)
	}

	u.dom0(t, "cp /boot/guest-kernel /boot/another-kernel")
	code, text := u.exitCode(t, update("/boot/another-kernel", "trial=good", "--health tcp:"+lab.DomainAddress+":80 --probation 5s --write-config"))
	if code != 0 || !strings.Contains(text, "came back warm") || !strings.Contains(text, ordinaryConfig+" has the new kernel") {
		t.Fatalf("a good one: code %d: %s", code, text)
	}
	t.Log(text)
	u.settled(t, "/boot/another-kernel", "trial=good")
	if code, text := u.exitCode(t, "grep -q another-kernel "+ordinaryConfig+" && grep -q trial=good "+ordinaryConfig+" && ! grep guest-kernel "+ordinaryConfig+" && xl create -n "+ordinaryConfig); code != 0 {
		t.Errorf("its configuration: %s", text)
	}

	// It panics as it looks for an init. The agent is killed once it is tried, and comes
	// back when it is all over.
	u.dom0(t, "cp /boot/guest-kernel /boot/third-kernel; setsid "+update("/boot/third-kernel", "init=/nowhere", "")+" >/tmp/update 2>&1 </dev/null &")
	await(t, "the new kernel is tried", func() bool {
		return u.dom0(t, "cat /var/lib/warmreboot/updates/*/boots 2>/dev/null || true") != ""
	})
	if err := u.StopAgent(t.Context(), "KILL"); err != nil {
		t.Fatal(err)
	}
	await(t, "the old kernel is back, without an agent", func() bool {
		return strings.Contains(u.dom0(t, "cat /var/lib/warmreboot/updates/*/boots"), " old")
	})
	u.dom0(t, "rm /boot/third-kernel") // nobody needs it any more
	u.awaitDomU(t)
	if err := u.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := scheduled(u)
	await(t, "it is said that it fell back", func() bool {
		all := s.history(t, webUUID)
		return len(all) > 0 && strings.Contains(all[0].Followed, "fell back")
	})
	u.settled(t, "/boot/another-kernel", "trial=good")
	if code, text := u.exitCode(t, "grep -a 'Kernel panic' /var/log/xen/console/guest-domU-web.log"); code != 0 {
		t.Errorf("it did not panic: %s", text)
	}

	// It does not say that it is well, as the one before has: the old one is back, warm.
	u.verify(t)
	sick := update("/boot/guest-kernel", "trial=sick", "--health xenstore:data/boot-complete --health-timeout 3s")
	if code, text := u.exitCode(t, sick); code != 14 || !strings.Contains(text, "has not written 1 to data/boot-complete") {
		t.Errorf("one that has not said so before: code %d: %s", code, text)
	}
	// What xenstore-write sends: WRITE, a request, no transaction, 20 bytes.
	u.domU(t, `printf '\013\0\0\0\001\0\0\0\0\0\0\0\024\0\0\0data/boot-complete\0001' >/dev/xen/xenbus`)
	code, text = u.exitCode(t, sick)
	if code != 13 || !strings.Contains(text, "not well") || !strings.Contains(text, "trial=sick") || !strings.Contains(text, "came back warm") {
		t.Errorf("one that is not well: code %d: %s", code, text)
	}
	t.Log(text)
	u.settled(t, "/boot/another-kernel", "trial=good")
}

// TestScheduledUpdate: a schedule gives the domU another kernel, by what its guest says of
// itself, and is stopped where that panics, with the domU as it was.
func TestScheduledUpdate(t *testing.T) {
	t.Parallel()
	u := updated{boot(t, lab.Variant{Unthrottled: true})}
	u.create(t, true)
	u.verify(t) // which reads all files
	s := scheduled(u)
	options := u.line(t)
	u.dom0(t, "cp /boot/guest-kernel /boot/another-kernel")
	schedule := func(name, mark, more string) string {
		return fmt.Sprintf(`[[schedule]]
name = %q
domains = ["domU-*"]
cron = "* * * * *"
minimum_distance = "0s"
%s[schedule.health]
tcp = "%s:80"
[schedule.update]
kernel = "/boot/another-kernel"
cmdline = "%s %s"
deadline = "8m"
probation = "5s"
write_config = true
`, name, more, lab.DomainAddress, options, mark)
	}
	// Its last hook removes it, so that there is one run only.
	s.configure(t, schedule("good", "trial=scheduled", "[[schedule.after]]\ncommand = [\"/bin/rm\", \""+configFile+"\"]\n"))
	var e past
	await(t, "it is updated", func() bool {
		all := s.history(t, webUUID)
		if len(all) > 0 {
			e = all[0]
		}
		return len(e.Hooks) > 0
	})
	if e.Schedule != "good" || e.Followed != "update to /boot/another-kernel: updated" || e.Outcome != "warm" || e.Health == nil || !e.Health.OK {
		t.Errorf("%+v", e)
	}
	u.settled(t, "/boot/another-kernel", "trial=scheduled")
	u.dom0(t, "grep trial=scheduled "+ordinaryConfig)

	s.configure(t, schedule("bad", "init=/nowhere", ""))
	await(t, "its schedule is stopped", func() bool {
		return strings.Contains(u.dom0(t, "warmreboot plan"), "bad is stopped: the update of domU-web")
	})
	u.settled(t, "/boot/another-kernel", "trial=scheduled")
	if code, text := u.exitCode(t, "grep init=/nowhere "+ordinaryConfig); code != 1 {
		t.Errorf("its configuration: %s", text)
	}
}
