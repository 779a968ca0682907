package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/tests/faults/guest"
	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/build"
)

var stressTime = flag.Duration("stress", time.Hour, "how long TestSMPStress goes on")

const (
	stressProgram = "/usr/local/sbin/stressguest"
	// What is only read, on ext4 and on XFS, and what is written to.
	stressServed = build.WebRoot + "," + build.ImageRoot + "/image-0.bin," + build.ImageRoot + "/image-1.bin," + build.ImageRoot + "/image-3.bin"
	stressRound  = time.Minute
	stressMiB    = "512" // as in its configuration
	stressWork   = "/srv/work," + build.ImageRoot + "/work"
	imageSums    = "sha256sum " + build.ImageRoot + "/*.bin"
)

// stressKinds are the ways to reboot, which come in turn, each in the middle of the
// work. One that takes the agent's life may be cold.
var stressKinds = []struct {
	name   string
	killed bool
	do     func(t *testing.T, b *bed)
}{
	{"graceful", false, func(t *testing.T, b *bed) { b.inBackground(t, "warmreboot domU-web") }},
	{"force", false, func(t *testing.T, b *bed) { b.inBackground(t, "warmreboot --force domU-web") }},
	{"panic", false, func(t *testing.T, b *bed) { panicGuest(t, b.DomU()) }},
	{"the guest's own", false, func(t *testing.T, b *bed) { b.inBackground(t, "xl reboot domU-web") }},
	{"destroyed and created", false, func(t *testing.T, b *bed) {
		b.inBackground(t, "xl destroy domU-web && xl create "+ordinaryConfig)
	}},
	{"graceful, the agent killed", true, func(t *testing.T, b *bed) {
		b.inBackground(t, "warmreboot domU-web")
		b.dom0(t, "sleep 3; kill -9 $(pidof warmrebootd)")
		if err := b.StartAgent(t.Context()); err != nil {
			t.Fatal(err)
		}
	}},
}

func (b *bed) inBackground(t *testing.T, line string) {
	t.Helper()
	b.dom0(t, "setsid sh -c '"+line+"' >/tmp/background.out 2>&1 </dev/null &")
}

// comparison is what `warmreboot check` found.
type comparison struct {
	Pages      int64 `json:"pages"`
	Mismatches int64 `json:"mismatches"`
}

// stress is a run of TestSMPStress.
type stress struct {
	*bed
	random   *rand.Rand
	compared int64 // pages, by `warmreboot check`
	checks   int
	done     guest.Done
}

// TestSMPStress has a domU with two vCPUs on two processors, under a Xen that checks
// itself, do everything at once that is done to a page cache, while dom0 maps its
// memory, compares it and makes it smaller and larger, and reboots it in the middle of
// that in every way there is, until the time is over. What comes back, and what is
// there at any time, equals the disk; what is only read is what it was; no file system
// is damaged; Xen has nothing to complain about; nothing is left over.
func TestSMPStress(t *testing.T) {
	t.Parallel()
	s := &stress{bed: boot(t, lab.Variant{Unthrottled: true, DebugXen: true, Processors: 2}), random: rand.New(rand.NewPCG(1, 2))}
	s.bringHostile(t)
	s.quickDisks(t)
	s.create(t, true)
	cache, checkout, _, tools := patchedXen(t)
	program, err := cache.Program(t.Context(), tools, checkout, "./tests/faults/cmd/stressguest")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DomU().Put(t.Context(), program, stressProgram, 0o755); err != nil {
		t.Fatal(err)
	}
	s.domU(t, "mkdir -p /srv/work "+build.ImageRoot+"/work; sync; grep -c ^processor /proc/cpuinfo | grep -x 2")
	images := s.domU(t, imageSums)
	outcomes := make(map[string]int)
	var baseline resources
	rounds := 0
	for end := time.Now().Add(*stressTime); time.Now().Before(end) || rounds < 2; rounds++ {
		kind := stressKinds[rounds%len(stressKinds)]
		outcome := s.round(t, uint64(rounds), kind.killed, func() { kind.do(t, s.bed) })
		outcomes[outcome]++
		t.Logf("round %d, %s: %s; %s left", rounds, kind.name, outcome, time.Until(end).Round(time.Second))
		if got := s.domU(t, imageSums); got != images {
			t.Errorf("round %d: the files are\n%s\nwant\n%s", rounds, got, images)
		}
		if t.Failed() {
			break
		}
		if rounds == 0 { // the first reboot of all leaves folders in xenstore
			baseline = s.resources(t)
		}
	}
	t.Logf("%d rounds: %v; %d operations, %d of which failed: %v; %d times `warmreboot check`, %d pages compared",
		rounds, outcomes, s.done.Operations, s.done.Failed, s.done.Errors, s.checks, s.compared)
	if err := baseline.leak(s.resources(t)); err != nil {
		t.Error(err)
	}
	s.verify(t)
	s.soundDisks(t)
}

// round is some work with a reboot in the middle of it. It returns the outcome.
func (s *stress) round(t *testing.T, seed uint64, killed bool, reboot func()) string {
	before := s.dom0(t, "xl domid "+lab.Domain)
	touched := make(chan string)
	go func() {
		text, err := s.Machine.Dom0().Run(t.Context(), "/root/hostile", "touch", before, fmt.Sprint(int(stressRound.Seconds())))
		touched <- fmt.Sprintf("%s%v", text, err)
	}()
	worked := s.work(t.Context(), seed, stressRound)
	for working := true; working; {
		s.dom0(t, fmt.Sprintf("xl mem-set %s %d", lab.Domain, 440+s.random.IntN(73)))
		s.compare(t)
		select {
		case done := <-worked:
			working = false
			if done.Operations == 0 {
				t.Errorf("the guest did no work: %v", done.Errors)
			}
			s.done.Operations += done.Operations
			s.done.Failed += done.Failed
			s.done.Errors = done.Errors
		default:
		}
	}
	if text := <-touched; !strings.Contains(text, `"rc":0}`) {
		t.Errorf("dom0 maps the domain's memory: %s", text)
	} else {
		t.Logf("dom0 maps the domain's memory: %s", text)
	}
	// With less memory than it may have, the next domain would be populated on demand,
	// and come back cold.
	s.dom0(t, "xl mem-set "+lab.Domain+" "+stressMiB)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	ended := s.work(ctx, seed+1<<32, patience)
	s.dom0(t, "sleep 5") // for the reboot to be in the middle of it
	reboot()
	s.awaitNewDomid(t, before)
	end() // nobody may tell of the end of a guest's connections
	<-ended
	s.awaitDomU(t)
	status, err := s.Status(t.Context(), "--wait", "--timeout", patience.String())
	if err != nil || status.Last == nil {
		t.Fatalf("%+v, %v", status, err)
	}
	last := status.Last
	if warm := last.Outcome == "warm" && last.PagesRestored > 0; !warm && (!killed || last.Reason == "") {
		t.Errorf("%+v", *last)
	}
	t.Logf("%d of %d pages restored %s", last.PagesRestored, last.PagesPreserved, last.Reason)
	s.compare(t)
	// Before anything is written anew.
	s.same(t)
	s.verify(t)
	return last.Outcome
}

// work begins what the guest does, and says what it was when it is over; a reboot
// ends it, too.
func (s *stress) work(ctx context.Context, seed uint64, duration time.Duration) <-chan guest.Done {
	worked := make(chan guest.Done, 1)
	go func() {
		done, err := lab.JSON[guest.Done](ctx, s.DomU(), stressProgram, "-seed", fmt.Sprint(seed), "-for", duration.String(), "stress", stressServed, stressWork)
		if err != nil {
			done = guest.Done{Errors: []string{err.Error()}}
		}
		worked <- done
	}()
	return worked
}

// compare is the invariant, and counts.
func (s *stress) compare(t *testing.T) {
	t.Helper()
	c, err := lab.JSON[comparison](t.Context(), s.Machine.Dom0(), "warmreboot", "check", "-o", "json", lab.Domain)
	if err != nil || c.Mismatches != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	s.checks++
	s.compared += c.Pages
}

// same asserts that files hold through the page cache what they hold on the disk.
func (s *stress) same(t *testing.T) {
	t.Helper()
	seen, err := lab.JSON[guest.Seen](t.Context(), s.DomU(), stressProgram, "compare", stressServed+","+stressWork)
	if err != nil || seen.Files == 0 || len(seen.Differ) != 0 {
		t.Errorf("%+v, %v", seen, err)
	}
}

// quickDisks has the domU's disks attached by a script of one process. Xen's own has
// dozens, for which libxl does not wait where the emulator is slow: its 40 s are the
// host's.
func (s *stress) quickDisks(t *testing.T) {
	t.Helper()
	s.dom0(t, `cat >/etc/xen/scripts/block-quick <<'END'
#!/bin/sh
[ "$1" = add ] || exit 0
device=$(xenstore-read "$XENBUS_PATH/params")
exec xenstore-write "$XENBUS_PATH/physical-device" $(stat -L -c %t:%T $device) "$XENBUS_PATH/hotplug-status" connected
END
chmod 755 /etc/xen/scripts/block-quick`)
	s.dom0(t, "l=$(losetup -f --show "+imageFile+`); sed -i "s|^disk.*|disk = [ \"format=raw,vdev=xvda,access=rw,backendtype=phy,script=block-quick,target=/dev/vdb\", \"format=raw,vdev=xvdb,access=rw,backendtype=phy,script=block-quick,target=$l\" ]|" `+ordinaryConfig)
}

// soundDisks shuts the domU down and has dom0 check its file systems.
func (s *stress) soundDisks(t *testing.T) {
	t.Helper()
	s.dom0(t, "xl shutdown -w "+lab.Domain)
	for _, line := range []string{"e2fsck -fn /dev/vdb", "xfs_repair -f -n " + imageFile} {
		if code, text := s.exitCode(t, line); code != 0 {
			t.Errorf("%s: %s", line, text)
		}
	}
}
