package e2e

import (
	"strconv"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/agent"
	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// complaints is what the checks of a kernel for debugging print.
const complaints = `BUG|WARNING|INFO: (possible|task|rcu)|bad page|Bad page|suspicious|ODEBUG|corrupt|Out of memory|XFS.*Assertion`

// TestDebugKernel: what the guest's patches do, under the kernel's own checks of
// locks, pages, lists and objects, and with the late initialisation of struct
// page that distributions' kernels have. Large folios come back as such, and an
// unmount leaves nothing in use.
func TestDebugKernel(t *testing.T) {
	t.Parallel()
	b := boot(t, lab.Variant{Unthrottled: true, DebugKernel: true})
	b.create(t, true)
	b.domU(t, "dmesg | grep 'deferred pages initialised'")
	const sums = "sha256sum " + build.ImageRoot + "/* " + build.WebRoot + "/00/*"
	want := b.domU(t, sums)
	before := b.folios(t)
	if before.Large == 0 {
		t.Fatalf("%s has %d pages, none in a large folio", fileOnXFS, before.Pages)
	}
	silent := func() {
		t.Helper()
		// It turns itself off at its first finding, and when it has no more memory.
		b.domU(t, "grep 'debug_locks: *1' /proc/lockdep_stats")
		if text := b.dom0(t, "grep -aE '"+complaints+"' /var/log/xen/console/guest-domU-web.log | grep -v sysrq || true"); text != "" {
			t.Errorf("the guest's kernel complains:\n%s", text)
		}
	}
	for _, trigger := range []string{"graceful", "force", "crash"} {
		domid := b.dom0(t, "xl domid domU-web")
		switch trigger {
		case "crash":
			panicGuest(t, b.DomU())
		case "force":
			b.dom0(t, "warmreboot --force domU-web")
		default:
			b.dom0(t, "warmreboot domU-web")
		}
		if err := b.AwaitNewDomid(t.Context(), domid); err != nil {
			t.Fatal(err)
		}
		b.awaitDomU(t)
		last := b.status(t, "--wait").Last
		if last == nil || last.Outcome != "warm" || last.PagesRestored < last.PagesPreserved*9/10 {
			t.Fatalf("%s: %+v", trigger, last)
		}
		t.Logf("%s: %d of %d pages restored", trigger, last.PagesRestored, last.PagesPreserved)
		sectors := b.sectors(t, "xvdb")
		after := b.folios(t)
		if read := b.sectors(t, "xvdb") - sectors; after.Large < before.Large*9/10 || read > 0 {
			t.Errorf("%s: %s has %+v, had %+v before; %d sectors were read", trigger, fileOnXFS, after, before, read)
		}
		if got := b.domU(t, sums); got != want {
			t.Errorf("%s: the files are\n%s\nwant\n%s", trigger, got, want)
		}
		b.check(t)
		silent()
	}

	// As a shutdown does, but nothing follows: the memory is there for others.
	free := func(what string) int64 {
		t.Helper()
		return b.domUNumber(t, "awk '/^"+what+":/ { print int($2 / 4) }' /proc/meminfo")
	}
	was := free("MemFree")
	b.domU(t, "busybox umount "+build.ImageRoot)
	if now := free("MemFree"); now < was+int64(before.Pages)*9/10 {
		t.Errorf("%d pages are free after an unmount, %d before it, and it had %d in the page cache", now, was, before.Pages)
	}
	b.check(t)
	b.domU(t, "busybox mount -t xfs /dev/xvdb "+build.ImageRoot)
	if got := b.domU(t, sums); got != want {
		t.Errorf("after unmounting and mounting, the files are\n%s\nwant\n%s", got, want)
	}
	b.domU(t, "busybox umount "+build.ImageRoot)
	b.domU(t, "mkdir -p /tmp/full && busybox mount -t tmpfs -o size=100% full /tmp/full")
	b.domU(t, "dd if=/dev/zero of=/tmp/full/zeros bs=1M count="+strconv.FormatInt(free("MemAvailable")/256-16, 10)+" 2>/dev/null")
	b.domU(t, "busybox umount /tmp/full && busybox mount -t xfs /dev/xvdb "+build.ImageRoot)
	if got := b.domU(t, sums); got != want {
		t.Errorf("after memory was short, the files are\n%s\nwant\n%s", got, want)
	}
	b.check(t)
	silent()
}

func (b *bed) folios(t *testing.T) agent.FolioCount {
	t.Helper()
	count, err := lab.JSON[agent.FolioCount](t.Context(), b.DomU(), "labagent", "folios", fileOnXFS)
	if err != nil {
		t.Fatal(err)
	}
	return count
}
