package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
)

// secretMiB of the first domain's page cache are nothing but the pattern that
// no other domain may see.
const secretMiB = 64

const secretPages = secretMiB << 8

// scanSlack is what Xen needs to itself for a domain that gets all the rest.
const scanSlack = 16 // MiB

// found is what the scanner saw in its memory.
type found struct {
	pages int // that it looked through
	hits  int // pages with the pattern in them
	used  int // pages that are not all zero
}

// TestOthersPages gives memory to a domain after another one's image was let
// go of, in each way there is, and looks through all of it.
func TestOthersPages(t *testing.T) {
	t.Parallel()
	b := boot(t, lab.Variant{})
	b.bringHostile(t)
	b.dom0(t, fmt.Sprintf("sh /root/small-disk /tmp/secret.img %d", secretMiB))
	var baseline resources
	for i, way := range []struct {
		name string
		ttl  int
		give func(t *testing.T, s small) (extra int)
	}{
		{"dropped", 900, func(t *testing.T, s small) int {
			b.must(t, "image-drop", s.uuid)
			return 0
		}},
		{"expired", 5, func(t *testing.T, s small) int {
			await(t, "the image has expired", func() bool { return b.imagePages(t, s) == 0 })
			return 0
		}},
		{"given up by Xen", 900, func(t *testing.T, s small) int {
			return b.imagePages(t, s) >> 8
		}},
		{"adopted by less memory", 900, func(t *testing.T, s small) int {
			kept := b.imagePages(t, s)
			// Too little for all of the secret, so that some is freed now.
			own := b.scan(t, s.name, s.uuid, secretMiB)
			t.Logf("the domain itself, with less memory: %+v of %d pages kept", own, kept)
			// It also shows that the scanner finds what is there.
			if own.hits < 100 {
				t.Errorf("the domain itself has %d of its %d pages", own.hits, secretPages)
			}
			return 0
		}},
	} {
		ok := t.Run(way.name, func(t *testing.T) {
			s := small{name: "first", uuid: "5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b03", memory: 160, disk: "/tmp/secret.img"}
			b.keepSecret(t, s, way.ttl)
			extra := way.give(t, s)
			if extra == 0 {
				b.settled(t)
			}
			memory := b.freeHeap(t) + extra - scanSlack
			got := b.scan(t, "next", "5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b04", memory)
			left := b.freeHeap(t)
			t.Logf("a new domain with %d MiB, of which %d came from the image: %+v; %d MiB are left", memory, extra, got, left)
			if got.pages < memory<<8-1024 {
				t.Errorf("only %d pages of %d MiB were looked through", got.pages, memory)
			}
			if got.hits != 0 {
				t.Errorf("%d pages with another domain's data", got.hits)
			}
			// The scanner, what it was started with, and nothing else.
			if got.used > 64 {
				t.Errorf("%d pages were not scrubbed", got.used)
			}
			// Xen takes no more than it needs, and does not need all of scanSlack.
			pages, most := b.imagePages(t, s), 0
			if extra != 0 {
				most = scanSlack << 8
			}
			if pages > most {
				t.Errorf("an image of %d pages is left, want at most %d", pages, most)
			}
			if pages != 0 {
				b.must(t, "image-drop", s.uuid)
			}
			b.dom0(t, "for name in first next; do xl destroy $name 2>/dev/null; done; true")
			b.settled(t)
		})
		if !ok {
			return // what is left of it would spoil the others
		}
		if i == 0 { // the first domain of all leaves folders in xenstore
			baseline = b.resources(t)
		}
	}
	b.dom0(t, "kill $(pidof hostile)")
	if err := baseline.leak(b.resources(t)); err != nil {
		t.Error(err)
	}
}

// keepSecret runs the domain until its page cache is full of the secret, has
// it put the secret into the cache-mapping table as well, and destroys it: its
// image is kept.
func (b *bed) keepSecret(t *testing.T, s small, ttl int) {
	t.Helper()
	domid := b.makeSmall(t, s)
	b.must(t, "enable", domid, ttl)
	b.must(t, "arm", domid, ttl)
	domU := b.runSmall(t, s)
	if _, err := domU.Shell(t.Context(), "cat /secret >/dev/null"); err != nil {
		t.Fatal(err)
	}
	hostile(t, domU, "/bin/hostile", "guest", "secret", domid, 0, "10.0.5.1")
	committed := b.counters(t, domid).Committed
	b.dom0(t, "xl destroy "+s.name)
	kept := b.imagePages(t, s)
	t.Logf("%d pages were committed, %d are kept", committed, kept)
	if kept < secretPages*9/10 {
		t.Fatalf("only %d of %d pages with the secret are kept", kept, secretPages)
	}
}

// imagePages is 0 when there is no image.
func (b *bed) imagePages(t *testing.T, s small) int {
	t.Helper()
	rc, pages := b.control(t, "image", s.uuid)
	if rc != 0 && rc != errNoImage {
		t.Fatalf("image of %s: %d", s.uuid, rc)
	}
	return pages
}

func (b *bed) freeHeap(t *testing.T) int {
	t.Helper()
	mib, err := strconv.Atoi(b.dom0(t, "xl info free_memory"))
	if err != nil {
		t.Fatal(err)
	}
	return mib
}

// settled waits until Xen has freed what it frees piecemeal.
func (b *bed) settled(t *testing.T) {
	t.Helper()
	last := -1
	await(t, "no more memory comes free", func() bool {
		now := b.freeHeap(t)
		same := now == last
		last = now
		return same
	})
}

var scanLine = regexp.MustCompile(`\(d(\d+)\) SCAN pages=(\d+) hits=(\d+) used=(\d+)`)

// scan creates a domain that looks through all of its memory. The domain keeps
// that memory until it is destroyed.
func (b *bed) scan(t *testing.T, name, uuid string, memory int) found {
	t.Helper()
	b.dom0(t, fmt.Sprintf(`printf 'name="%s"\nuuid="%s"\ntype="pvh"\nkernel="/root/scan"\nmemory=%d\non_poweroff="preserve"\n' >/tmp/scan.cfg; xl create /tmp/scan.cfg`,
		name, uuid, memory))
	domid := b.domid(t, name)
	var result found
	await(t, "the scan has ended", func() bool {
		text, err := os.ReadFile(b.ConsoleLog())
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range scanLine.FindAllSubmatch(text, -1) {
			var numbers [4]int
			for i := range numbers {
				if numbers[i], err = strconv.Atoi(string(line[i+1])); err != nil {
					t.Fatal(err)
				}
			}
			if numbers[0] == domid {
				result = found{pages: numbers[1], hits: numbers[2], used: numbers[3]}
				return true
			}
		}
		return false
	})
	return result
}
