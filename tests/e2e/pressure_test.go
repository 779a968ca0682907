package e2e

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
)

func (b *bed) heapMiB(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(b.dom0(t, "xl info free_memory"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestMemoryPressure: a new domain that needs the memory of an image gets it.
// Xen and the agent say so, and the domain whose image it was comes back cold.
func TestMemoryPressure(t *testing.T) {
	t.Parallel()
	s := &scene{bed: boot(t, lab.Variant{Unthrottled: true})}
	s.create(t, true)
	s.domU(t, "cat /srv/www/0[0-3]/* /srv/img/* >/dev/null")
	s.destroy(t)
	var kept uint64
	await(t, "more than 10000 pages are kept", func() bool {
		image, err := lab.JSON[struct {
			Pages uint64 `json:"image_pages"`
		}](t.Context(), s.Machine.Dom0(), "warmreboot", "status", "-o", "json", lab.Domain)
		if err != nil {
			t.Fatal(err)
		}
		kept = image.Pages
		return kept > 10000
	})
	// More than is free, by half of what the image holds.
	free := s.heapMiB(t)
	memory := free + int(kept/256/2)
	s.dom0(t, fmt.Sprintf(`printf 'name="filler"\ntype="pvh"\nkernel="/boot/guest-kernel"\nmemory=%d\n' >/tmp/filler.cfg; xl create -p /tmp/filler.cfg`, memory))
	t.Logf("%d MiB were free and %d pages kept; a domain of %d MiB was created", free, kept, memory)
	if text := s.dom0(t, "xl dmesg | grep 'memory needed, freeing'"); !strings.Contains(text, fmt.Sprintf("freeing %d pages", kept)) {
		t.Errorf("Xen: %s", text)
	}
	await(t, "the agent says so", func() bool { return strings.Contains(s.status(t).Message, "Xen gave up the") })
	s.dom0(t, "grep 'image gone' /var/log/warmrebootd.log; xl destroy filler")
	r := s.comeBack(t, ordinaryConfig)
	if r.Outcome != "cold" || !strings.Contains(r.Reason, "gave up") || r.PagesRestored != 0 {
		t.Errorf("%+v", *r)
	}
	s.check(t)
	s.verify(t)
	// It is warm again the next time.
	if reboot, err := s.Reboot(t.Context(), "--force"); err != nil || reboot.PagesRestored == 0 {
		t.Errorf("%+v, %v", reboot, err)
	}
}

// TestMemorySizes: guests that have been ballooned down, or may grow, come back
// with nothing wrong. xl creates a domain whose memory is below its maxmem so
// that pages come into being when they are first used: none of those that were
// preserved finds its place then, and the summary says so.
func TestMemorySizes(t *testing.T) {
	t.Parallel()
	s := &scene{bed: boot(t, lab.Variant{Unthrottled: true})}
	sizes := func(t *testing.T) string { return s.dom0(t, "xl list domU-web | tail -n 1") }
	reboot := func(t *testing.T, flags ...string) {
		t.Helper()
		s.load(t)
		before := sizes(t)
		r, err := s.Reboot(t.Context(), flags...)
		var exit *lab.ExitError
		if err != nil && !(errors.As(err, &exit) && exit.Code == exitCold && strings.Contains(r.Reason, "on demand")) {
			t.Fatalf("%+v, %v", r, err)
		}
		s.awaitDomU(t)
		t.Logf("%s; then %s; %d pages known before, %d preserved, %d restored %s", before, sizes(t), r.PagesBefore, r.PagesPreserved, r.PagesRestored, r.Reason)
		if err == nil && r.PagesRestored == 0 {
			t.Errorf("warm with nothing restored: %+v", r)
		}
		s.check(t)
		s.verify(t)
	}
	gone := func() { s.dom0(t, "xl destroy domU-web; warmreboot drop domU-web || true") }
	t.Run("ballooned", func(t *testing.T) {
		defer gone()
		s.create(t, true)
		s.load(t)
		s.dom0(t, "xl mem-set domU-web 400")
		// xl's figure is what the domain has, and not exactly what was asked for.
		await(t, "the guest balloons", func() bool { return s.number(t, "xl list domU-web | awk 'NR == 2 { print $3 }'") <= 404 })
		s.check(t)
		reboot(t, "--force")
	})
	t.Run("maxmem", func(t *testing.T) {
		defer gone()
		s.dom0(t, "{ cat "+ordinaryConfig+"; echo maxmem = 768; } >/tmp/maxmem.cfg; xl create -p /tmp/maxmem.cfg; warmreboot enable domU-web; xl unpause domU-web")
		s.awaitDomU(t)
		reboot(t)
		s.dom0(t, "xl mem-set domU-web 700")
		reboot(t, "--force")
	})
	t.Run("smaller", func(t *testing.T) {
		defer gone()
		s.create(t, true)
		s.load(t)
		s.destroy(t)
		s.dom0(t, "sed 's/^memory.*/memory = 320/' "+ordinaryConfig+" >/tmp/smaller.cfg")
		r := s.comeBack(t, "/tmp/smaller.cfg")
		t.Logf("%d pages preserved, %d restored", r.PagesPreserved, r.PagesRestored)
		if r.PagesRestored == 0 {
			t.Errorf("nothing restored: %+v", *r)
		}
		s.check(t)
		s.verify(t)
	})
}
