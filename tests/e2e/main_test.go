// Package e2e tests the product on the lab: patched Xen, a Debian dom0 and a
// domU, in QEMU. It needs root and the flag -lab; without the flag nothing is
// run, and that is said. With it nothing is ever skipped.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/agent"
	"github.com/warmreboot/warmreboot/tests/lab/build"
	"github.com/warmreboot/warmreboot/tests/lab/demo"
)

var (
	onLab  = flag.Bool("lab", false, "run the tests that boot the lab")
	xen    = flag.String("xen", "", "boot this Xen instead of building it from the series")
	kernel = flag.String("kernel", "", "boot this guest kernel instead of building it from the series")
	hang   = flag.String("hang", "", "the module to hang that kernel with")

	debugXen    = flag.Bool("debug-xen", false, "boot a Xen with its own checks")
	newerKernel = flag.Bool("newer-kernel", false, "have the domU run Linux 7.3 instead of 6.12")
	processors  = flag.Int("processors", 1, "how many processors the labs have; with more than one, bounds on time mean nothing")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if !*onLab {
		fmt.Println("the lab is off: no test of this package was run; `make test-lab` runs them")
		return
	}
	os.Exit(m.Run())
}

// bed is a lab that a test has booted, with the programs under test in dom0.
type bed struct {
	*lab.Machine
	demo.Product
	truth   agent.Sums
	options string // further words of the guest kernels' command lines
}

// prepare builds the variant, from the files given by flags where it is patched.
func prepare(t *testing.T, v lab.Variant) (lab.Parts, build.Checkout, *build.Cache) {
	t.Helper()
	cache, checkout, err := build.Open()
	if err != nil {
		t.Fatal(err)
	}
	if !v.Bochs { // which has one
		v.Processors = max(v.Processors, *processors)
	}
	if !v.StockXen {
		v.XenFile = *xen
		v.DebugXen = v.DebugXen || *debugXen
	}
	if !v.StockKernel {
		v.KernelFile, v.HangFile = *kernel, *hang
		v.NewerKernel = v.NewerKernel || *newerKernel
	}
	parts, err := lab.Prepare(t.Context(), cache, checkout, v)
	if err != nil {
		t.Fatal(err)
	}
	return parts, checkout, cache
}

// patchedXen returns what it takes to build something with its headers.
func patchedXen(t *testing.T) (*build.Cache, build.Checkout, build.Series, build.Root) {
	t.Helper()
	cache, checkout, err := build.Open()
	if err != nil {
		t.Fatal(err)
	}
	series, err := checkout.Hypervisor(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	tools, err := cache.Tools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cache, checkout, series, tools
}

// labDir is the folder of the test's own lab: tests run side by side, two at a
// time on two processors.
func labDir(t *testing.T, cache *build.Cache) string {
	return filepath.Join(cache.Dir, "labs", "e2e-"+t.Name())
}

// boot boots a lab that ends with the test, and starts the agent in dom0.
func boot(t *testing.T, v lab.Variant) *bed {
	t.Helper()
	parts, _, cache := prepare(t, v)
	b := start(t, parts, cache, "tail -n 40 /var/log/warmrebootd.log /var/log/xen/console/guest-domU-web.log /var/log/xen/xl-domU-web.log")
	if err := b.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// start boots the parts into a lab that ends with the test. If the test has
// failed by then, showLogs is a line of shell for what to see of dom0's logs.
func start(t *testing.T, parts lab.Parts, cache *build.Cache, showLogs string) *bed {
	t.Helper()
	m, err := parts.Start(t.Context(), labDir(t, cache))
	if err != nil {
		t.Fatal(err)
	}
	booted, err := os.ReadFile(m.ConsoleLog())
	if err != nil {
		t.Error(err) // it is stopped below
	}
	t.Cleanup(func() {
		if t.Failed() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
			defer cancel()
			text, err := m.Dom0().Shell(ctx, showLogs)
			t.Logf("logs of dom0 (%v):\n%s", err, text)
		}
		if text, err := xenComplains(m.ConsoleLog(), len(booted)); err != nil || text != "" {
			t.Errorf("Xen complains (%v):\n%s", err, text)
		}
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	})
	b := &bed{Machine: m, Product: demo.Product{Dom0: m.Dom0()}, truth: parts.Config.Guest.Sums}
	if parts.Config.Processors > 1 {
		b.takeTime(t)
	}
	return b
}

// takeTime makes the bounds on time wide for which the guest and the tests would not
// wait: with more than one processor the machine's clock is the host's, and goes on
// while the emulator is slow.
func (b *bed) takeTime(t *testing.T) {
	t.Helper()
	b.RebootSeconds, b.options = 300, "xen_warmcache.deadline=600"
	b.dom0(t, "sed -i 's/panic=1/& "+b.options+"/' "+ordinaryConfig)
}

var complaint = regexp.MustCompile(`(?m)^.*(Assertion '|Xen BUG at|Xen WARN at|Panic on CPU|FATAL (TRAP|PAGE FAULT)|BUG: ).*$`)

// xenComplains returns what Xen and dom0 have printed, after so many bytes, that they
// print only if something is wrong with them. While it boots, a Xen with its own checks
// complains of the emulated processor (xstate.c).
func xenComplains(console string, after int) (string, error) {
	text, err := os.ReadFile(console)
	return strings.Join(complaint.FindAllString(string(text[min(after, len(text)):]), 10), "\n"), err
}

// dom0 runs a line of shell in dom0; it must succeed.
func (b *bed) dom0(t *testing.T, line string) string {
	t.Helper()
	output, err := b.Machine.Dom0().Shell(t.Context(), line)
	if err != nil {
		t.Fatalf("dom0: %s: %v", line, err)
	}
	return output
}

// domU runs a line of shell in the domU; it must succeed.
func (b *bed) domU(t *testing.T, line string) string {
	t.Helper()
	output, err := b.DomU().Shell(t.Context(), line)
	if err != nil {
		t.Fatalf("domU: %s: %v", line, err)
	}
	return output
}

// number runs a line of shell in dom0 that prints a number above 0.
func (b *bed) number(t *testing.T, line string) int64 {
	t.Helper()
	text := b.dom0(t, line)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n == 0 {
		t.Fatalf("%s: %q is no number above 0", line, text)
	}
	return n
}

// destroy takes the domU down and waits until the agent has noted it.
func (b *bed) destroy(t *testing.T) {
	t.Helper()
	b.dom0(t, "sync; xl destroy domU-web; until warmreboot status domU-web | grep -q 'under way'; do sleep 0.1; done")
}

// create makes the domU, enabled or not, and waits until it is up.
func (b *bed) create(t *testing.T, enable bool) {
	t.Helper()
	if enable {
		b.createEnabled(t, ordinaryConfig)
		return
	}
	b.dom0(t, "xl create "+ordinaryConfig)
	b.awaitDomU(t)
}

// createEnabled makes the domU of a configuration, enabled with flags of
// `warmreboot enable`, and waits until it is up.
func (b *bed) createEnabled(t *testing.T, config string, flags ...string) {
	t.Helper()
	b.dom0(t, "xl create -p "+config+" && warmreboot enable "+strings.Join(flags, " ")+" domU-web && xl unpause domU-web")
	b.awaitDomU(t)
}

func (b *bed) awaitDomU(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.DomU().Await(ctx); err != nil {
		t.Fatal(err)
	}
}

// panicGuest makes a guest's kernel panic.
func panicGuest(t *testing.T, guest *lab.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := guest.Shell(ctx, "echo c >/proc/sysrq-trigger"); err == nil {
		t.Fatal("the guest survived its panic")
	}
}

// read is one pass over the served files.
func (b *bed) read(t *testing.T) agent.ReadResult {
	t.Helper()
	return b.readFrom(t, build.WebRoot, "xvda")
}

// readFrom is one pass over the files of a folder that lies on a disk.
func (b *bed) readFrom(t *testing.T, root, disk string) agent.ReadResult {
	t.Helper()
	result, err := lab.JSON[agent.ReadResult](t.Context(), b.DomU(), "labagent", "read", root, disk)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// verify compares every served file with the truth, and every reusable page
// with its disk block.
func (b *bed) verify(t *testing.T) {
	t.Helper()
	sums, err := b.DomU().Sums(t.Context(), build.WebRoot)
	if err != nil {
		t.Fatal(err)
	}
	if differ := b.truth.Differences(sums); len(differ) != 0 {
		t.Errorf("files differ from the truth: %v", differ)
	}
}

// check is the invariant.
func (b *bed) check(t *testing.T) {
	t.Helper()
	mismatches, err := b.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if mismatches != 0 {
		t.Errorf("%d pages differ from their disk block", mismatches)
	}
}

// exitCode runs a line of shell in dom0 and returns its exit code and what it
// printed, on both streams.
func (b *bed) exitCode(t *testing.T, line string) (int, string) {
	t.Helper()
	output := b.dom0(t, "{ "+line+"; } >/tmp/out 2>&1; echo $?; cat /tmp/out")
	var code int
	if _, err := fmt.Sscanln(output, &code); err != nil {
		t.Fatalf("%s: no exit code in %q", line, output)
	}
	return code, output
}

// sectors is how many the guest has read of a disk so far.
func (b *bed) sectors(t *testing.T, disk string) int64 {
	t.Helper()
	return b.domUNumber(t, "awk '{ print $3 }' /sys/block/"+disk+"/stat")
}

// domUNumber runs a line of shell in the domU that prints a number.
func (b *bed) domUNumber(t *testing.T, line string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(b.domU(t, line), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
