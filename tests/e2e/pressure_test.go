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

// image is how many pages Xen keeps of the domU.
func (s *scene) image(t *testing.T) uint64 {
	t.Helper()
	image, err := lab.JSON[struct {
		Pages uint64 `json:"image_pages"`
	}](t.Context(), s.Machine.Dom0(), "warmreboot", "status", "-o", "json", lab.Domain)
	if err != nil {
		t.Fatal(err)
	}
	return image.Pages
}

// kept destroys the domU, which has read many files, and returns how many pages
// Xen keeps of it, and what is free then, in MiB.
func (s *scene) kept(t *testing.T) (pages uint64, free int) {
	t.Helper()
	s.destroy(t)
	await(t, "more than 10000 pages are kept", func() bool { pages = s.image(t); return pages > 10000 })
	// What is not kept is scrubbed before it is free.
	await(t, "the rest is free", func() bool { was := free; free = s.heapMiB(t); return was == free })
	return pages, free
}

// filler is a command that creates a domain which takes memory, and never runs.
// Besides, its paging takes 1 MiB for each vCPU and 1/128 of the memory.
func filler(mib, vcpus int) string {
	return fmt.Sprintf(`printf 'name="filler%[2]d"\ntype="pvh"\nkernel="/boot/guest-kernel"\nmemory=%[1]d\nvcpus=%[2]d\n' >/tmp/filler.cfg; xl create -p /tmp/filler.cfg`, mib, vcpus)
}

// TestMemoryPressure: a new domain that needs the memory of an image gets as
// much as it needs, whatever for, and the domain whose image it was comes back
// with the rest. One that asks for more than there is gets nothing, and takes
// nothing.
func TestMemoryPressure(t *testing.T) {
	t.Parallel()
	s := &scene{bed: boot(t, lab.Variant{Unthrottled: true})}
	s.create(t, true)
	s.domU(t, "cat /srv/www/0[0-3]/* /srv/img/* >/dev/null")
	kept, free := s.kept(t)
	mib := int(kept / 256)

	s.dom0(t, "if "+filler(free+mib+64, 1)+"; then exit 1; fi; xl destroy filler1 2>/dev/null || true")
	if now := s.image(t); now != kept {
		t.Errorf("an impossible domain left %d pages of %d", now, kept)
	}
	// All but a few MiB that are free, and then a domain whose paging pool, which
	// is the first that it is given, is larger than that.
	s.dom0(t, filler(free-24, 1))
	if now := s.image(t); now != kept {
		t.Errorf("a domain for which memory was free left %d pages of %d", now, kept)
	}
	rest := s.heapMiB(t)
	s.dom0(t, filler(mib/2, 32))
	left := s.image(t)
	t.Logf("%d MiB were free and %d pages kept; with %d MiB free another domain of %d MiB and 32 vCPUs was created; %d pages are left",
		free, kept, rest, mib/2, left)
	if left == 0 || left >= kept {
		t.Errorf("%d pages of %d are left", left, kept)
	}
	s.dom0(t, "xl dmesg | grep 'memory needed, taking from'; xl destroy filler1; xl destroy filler32")
	r := s.comeBack(t, ordinaryConfig)
	if r.Outcome != "warm" || r.PagesRestored == 0 || r.PagesRestored > left {
		t.Errorf("%+v", *r)
	}
	s.check(t)
	s.verify(t)
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
	// With less free than the domain needs and its own image holding the rest.
	t.Run("maxmem-short", func(t *testing.T) {
		defer gone()
		defer s.dom0(t, "sed -i /claim_mode/d /etc/xen/xl.conf")
		s.dom0(t, "xl create -p /tmp/maxmem.cfg; warmreboot enable domU-web; xl unpause domU-web")
		s.awaitDomU(t)
		for claim := range 2 {
			s.load(t)
			kept, free := s.kept(t)
			s.dom0(t, fmt.Sprintf("sed -i /claim_mode/d /etc/xen/xl.conf; echo claim_mode=%d >>/etc/xen/xl.conf; ", claim)+filler(free+int(kept/256)-560, 1))
			t.Logf("claim_mode %d: %d MiB free, %d pages kept", claim, s.heapMiB(t), kept)
			s.dom0(t, "xl create /tmp/maxmem.cfg && xl destroy filler1")
			s.awaitDomU(t)
			s.verify(t)
		}
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
