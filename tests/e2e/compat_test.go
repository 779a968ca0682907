package e2e

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// Errors of Xen's, negative: the guest prints what it was told.
const (
	notEnabled   = -19 // -ENODEV
	otherVersion = -13 // -EACCES
	badAddress   = -14 // -EFAULT
	invalid      = -22 // -EINVAL
)

var compatLine = regexp.MustCompile(`\(d(\d+)\) COMPAT (\w+)=(-?\d+)`)

// compat runs a guest of 32 bits: Xen takes the same structures from it, and says the
// same as to others.
func (b *bed) compat(t *testing.T) {
	t.Helper()
	b.dom0(t, `printf 'name="compat"\nuuid="5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b05"\ntype="pvh"\nkernel="/root/compat"\nmemory=64\non_poweroff="preserve"\n' >/tmp/compat.cfg; xl create -p /tmp/compat.cfg`)
	domid := b.domid(t, "compat")
	b.must(t, "enable", domid)
	b.dom0(t, "xl unpause compat")
	var got map[string]int
	await(t, "the guest of 32 bits has said all", func() bool {
		got = b.said(t, domid)
		_, end := got["end"]
		return end
	})
	if got["max_pfn"] < 64<<8 {
		t.Errorf("a guest of 32 bits with 64 MiB: max_pfn is %d", got["max_pfn"])
	}
	for name, want := range map[string]int{
		"feature": 1, "version": otherVersion, "unattached": notEnabled, "attach": 0, "held": 0, "register": 0, "registered": 1,
		"beyond": badAddress, "pad": invalid, "commit": 0, "get_held": 0, "words": 64, "get_approved": 0,
		"long": 0, "elements": 4096,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("a guest of 32 bits: %s is %d (said: %v), want %d", name, value, ok, want)
		}
	}
	// It announced a page, which nobody then filled, and Xen took note.
	if c := b.counters(t, domid); c.Registered != 1 || c.Committed != 0 {
		t.Errorf("a guest of 32 bits: %+v", c)
	}
	b.dom0(t, "xl destroy compat; rm /tmp/compat.cfg")
}

// said is what the domain has printed on Xen's console, by name.
func (b *bed) said(t *testing.T, domid int) map[string]int {
	t.Helper()
	text, err := os.ReadFile(b.ConsoleLog())
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]int{}
	for _, line := range compatLine.FindAllSubmatch(text, -1) {
		value, err := strconv.Atoi(string(line[3]))
		if err != nil {
			t.Fatal(err)
		}
		if string(line[1]) == strconv.Itoa(domid) {
			values[string(line[2])] = value
		}
	}
	return values
}
