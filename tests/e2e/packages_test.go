package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/agent"
	"github.com/warmreboot/warmreboot/tests/lab/build"
	"github.com/warmreboot/warmreboot/tests/lab/demo"
)

// packages are built once for all tests of a run.
var packages struct {
	once sync.Once
	build.Packages
	err error
}

func builtPackages(t *testing.T, cache *build.Cache, tools build.Root, checkout build.Checkout) build.Packages {
	t.Helper()
	packages.once.Do(func() {
		// Nobody but the lab gets them.
		packages.Packages, packages.err = cache.Packages(context.WithoutCancel(t.Context()), tools, checkout, true)
	})
	if packages.err != nil {
		t.Fatal(packages.err)
	}
	return packages.Packages
}

// host boots a dom0 that is an ordinary Debian host, without the programs under
// test.
func host(t *testing.T) (*bed, lab.Parts) {
	t.Helper()
	parts, checkout, cache := prepare(t, lab.Variant{Systemd: true, NoProduct: true, Unthrottled: true})
	builtPackages(t, cache, parts.Config.Root, checkout)
	return start(t, parts, cache, "journalctl -b --no-pager -n 80; tail -n 20 /var/log/xen/xl-domU-web.log"), parts
}

// install puts a package into dom0 and installs it.
func (b *bed) install(t *testing.T, file string) {
	t.Helper()
	target := "/root/" + filepath.Base(file)
	if err := b.Machine.Dom0().Put(t.Context(), file, target, 0o644); err != nil {
		t.Fatal(err)
	}
	b.dom0(t, "dpkg -i "+target)
}

// olderThan makes a package that is the same with a lower version.
func olderThan(t *testing.T, file string) string {
	t.Helper()
	older := filepath.Join(t.TempDir(), "older.deb")
	const script = `dpkg-deb -R "$1" "$2.d" && sed -i 's/^Version: .*/Version: 0.0.1/' "$2.d/DEBIAN/control" && dpkg-deb -Znone -b "$2.d" "$2"`
	if output, err := exec.CommandContext(t.Context(), "sh", "-e", "-c", script, "older", file, older).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return older
}

// property asks systemd about the service.
func (b *bed) property(t *testing.T, name string) string {
	t.Helper()
	return b.dom0(t, "systemctl show --value -p "+name+" warmrebootd.service")
}

func (b *bed) awaitProperty(t *testing.T, name, want string) {
	t.Helper()
	await(t, name+" is "+want, func() bool { return b.property(t, name) == want })
}

// TestPackages installs the packages on a Debian host, lets the service do its
// work, and upgrades and removes them again.
func TestPackages(t *testing.T) {
	t.Parallel()
	b, parts := host(t)
	b.install(t, olderThan(t, packages.Product))
	b.awaitProperty(t, "ActiveState", "active")
	for name, want := range map[string]string{"Type": "notify", "WatchdogUSec": "3min", "UnitFileState": "enabled", "NRestarts": "0", "StartLimitIntervalUSec": "0"} {
		if got := b.property(t, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	t.Log(b.property(t, "StatusText"), b.dom0(t, "systemd-analyze security warmrebootd.service | tail -n 1"))
	b.dom0(t, "test -d /etc/warmreboot && test $(stat -c %a /var/lib/warmreboot) = 700 && test $(stat -c %a /run/warmreboot/agent.sock) = 600")

	b.create(t, true)
	b.read(t)
	before := b.property(t, "MainPID")
	b.install(t, packages.Product)
	b.awaitProperty(t, "ActiveState", "active")
	if after := b.property(t, "MainPID"); after == before {
		t.Error("the upgrade has not restarted the service")
	}
	b.scheduled(t)
	b.check(t)
	// Who is confined, and sees less, would have doubts: none of them may be of
	// its own making. The hook that is to fail is not the service.
	if log := b.dom0(t, "journalctl -b --no-pager -u warmrebootd | grep -E 'level=(WARN|ERROR)' | grep -v /root/confined || true"); log != "" {
		t.Errorf("the service complains:\n%s", log)
	}

	b.watchdog(t)
	b.hypervisorPackage(t, parts)
	b.kernelPackage(t)
	b.xendomains(t)

	b.dom0(t, "dpkg -r warmreboot")
	if code, _ := b.exitCode(t, "systemctl is-active warmrebootd"); code == 0 {
		t.Error("the service still runs")
	}
	b.dom0(t, "! test -e /usr/sbin/warmrebootd && ! test -e /run/warmreboot/agent.sock && test -d /var/lib/warmreboot")
	if registered, err := b.DomU().Shell(t.Context(), "a=$(cat /sys/hypervisor/warmcache/registered); cat /srv/www/* >/dev/null 2>&1; echo 3 >/proc/sys/vm/drop_caches; cat /srv/www/* >/dev/null 2>&1; echo $(($(cat /sys/hypervisor/warmcache/registered) - a))"); err != nil || registered != "0" {
		t.Errorf("the domU is still tracked: %q, %v", registered, err)
	}
	b.dom0(t, "dpkg -P warmreboot && ! test -e /var/lib/warmreboot && ! test -e /etc/warmreboot")
	b.dom0(t, "xl list domU-web")
}

// scheduled has the service, confined as it is, reboot the domU by a schedule with
// hooks, and looks at what it shows of that.
func (b *bed) scheduled(t *testing.T) {
	t.Helper()
	b.dom0(t, `sed -i 's/^OPTIONS=.*/OPTIONS="--listen 127.0.0.1:9816"/' /etc/default/warmreboot && systemctl restart warmrebootd && warmreboot plan`)
	s := scheduled{b}
	// A hook is confined as the service is; what needs more is started beside it. The
	// last one takes the schedule away, so that there is one reboot only.
	s.configure(t, `[[schedule]]
name = "unit"
domains = ["domU-web"]
timezone = "UTC"
cron = "* * * * *"
minimum_distance = "0s"
[[schedule.before]]
command = ["/bin/touch", "/root/confined"]
on_failure = "continue"
[[schedule.before]]
command = ["/usr/bin/systemd-run", "--quiet", "--wait", "--pipe", "/bin/sh", "-c", "echo drained {domain} | tee /root/beside"]
[[schedule.after]]
command = ["/usr/bin/systemd-run", "--quiet", "--wait", "/bin/rm", "`+configFile+`"]
[schedule.health]
http = "http://`+lab.DomainAddress+`/"
status = [200, 403, 404]
timeout = "3m"
`)
	if _, err := b.Machine.Dom0().Shell(t.Context(), `for i in $(seq 120); do warmreboot history --by schedule -o json | grep -q '"name": "after"' && exit 0; sleep 2; done; exit 1`); err != nil {
		t.Fatalf("no scheduled reboot; dom0 says:\n%s", b.dom0(t, "date; warmreboot plan; warmreboot history"))
	}
	b.awaitDomU(t)
	e := s.history(t, "--by schedule")[0]
	if e.Outcome != "warm" || e.Schedule != "unit" || e.PagesRestored < 40000 || e.Health == nil || !e.Health.OK || len(e.Hooks) != 3 {
		t.Fatalf("%+v, %+v", e, e.Health)
	}
	if h := e.Hooks[0]; h.OK || !strings.Contains(h.Detail, "Read-only file system") {
		t.Errorf("a hook writes past the service's confinement: %+v", h)
	}
	if h := e.Hooks[1]; !h.OK || h.Detail != "drained domU-web" || b.dom0(t, "cat /root/beside") != "drained domU-web" {
		t.Errorf("%+v", h)
	}
	if !e.Hooks[2].OK {
		t.Errorf("%+v", e.Hooks[2])
	}
	v := seen{b}
	if n := v.metric(t, "warmreboot_schedule_runs_total", `name="domU-web"`, `schedule="unit"`, `result="warm"`); n != 1 {
		t.Errorf("%v warm runs are counted", n)
	}
	if status, body := v.get(t, "/domains/domU-web", "localhost"); status != 200 || !strings.Contains(body, "preserved by Xen") {
		t.Errorf("page: %d %s", status, body)
	}
	if report := b.dom0(t, "cd /root && warmreboot report domU-web -f report.html && cat report.html"); !strings.Contains(report, `class="warm">warm`) {
		t.Errorf("%s", report)
	}
}

// warm reboots the domU and asserts that its page cache came back.
func (b *bed) warm(t *testing.T) demo.Reboot {
	t.Helper()
	reboot, err := b.Reboot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.awaitDomU(t)
	if reboot.Outcome != "warm" || reboot.PagesRestored < reboot.PagesBefore*9/10 {
		t.Errorf("%+v", reboot)
	}
	return reboot
}

// watchdog asserts that systemd restarts an agent that gives no sign of life.
func (b *bed) watchdog(t *testing.T) {
	t.Helper()
	b.dom0(t, "mkdir -p /run/systemd/system/warmrebootd.service.d && printf '[Service]\nWatchdogSec=10s\nTimeoutAbortSec=2s\n' >/run/systemd/system/warmrebootd.service.d/test.conf && systemctl daemon-reload && systemctl restart warmrebootd")
	b.awaitProperty(t, "ActiveState", "active")
	b.dom0(t, "sleep 30") // several intervals in which it has to feed it, as long as it is well
	if got := b.property(t, "NRestarts"); got != "0" {
		t.Fatalf("%s restarts of an agent that is well", got)
	}
	b.dom0(t, "kill -STOP "+b.property(t, "MainPID"))
	b.awaitProperty(t, "NRestarts", "1")
	b.awaitProperty(t, "ActiveState", "active")
	if log := b.dom0(t, "journalctl -b --no-pager -u warmrebootd"); !strings.Contains(log, "Watchdog timeout") {
		t.Errorf("restarted, but not by the watchdog:\n%s", log)
	}
	b.dom0(t, "rm -r /run/systemd/system/warmrebootd.service.d; systemctl daemon-reload; systemctl restart warmrebootd; warmreboot status domU-web")
}

// offered returns which Xen each of GRUB's entries boots, in their order.
func (b *bed) offered(t *testing.T) []string {
	t.Helper()
	return strings.Fields(b.dom0(t, `sed -nE 's/^\s*multiboot2?\s+(\S*xen\S*).*/\1/p' /boot/grub/grub.cfg`))
}

// hypervisorPackage installs the Xen that runs, beside Debian's.
func (b *bed) hypervisorPackage(t *testing.T, parts lab.Parts) {
	t.Helper()
	const patched, debian = "/boot/xen-4.20-warmreboot-amd64.gz", "/boot/xen-4.20-amd64.gz"
	// GRUB is in use; each entry takes it long, so that it makes those with Xen only.
	b.dom0(t, "mkdir -p /boot/grub && touch /boot/grub/grub.cfg && chmod -x /etc/grub.d/10_linux && echo GRUB_DISABLE_RECOVERY=true >>/etc/default/grub")
	b.install(t, packages.Xen)
	running, err := os.ReadFile(parts.Config.Xen)
	if err != nil {
		t.Fatal(err)
	}
	sum := b.dom0(t, "gzip -dc "+patched+" | sha256sum")
	if want := fmt.Sprintf("%x", sha256.Sum256(running)); !strings.HasPrefix(sum, want) {
		t.Errorf("installed %s, %s runs", sum, want)
	}
	if both := b.offered(t); len(both) < 2 || both[0] != patched || !slices.Contains(both, debian) {
		t.Errorf("GRUB offers %q, want %s first, and %s", both, patched, debian)
	}
	b.dom0(t, "dpkg -P "+strings.SplitN(filepath.Base(packages.Xen), "_", 2)[0]+" && ! test -e "+patched)
	if after := b.offered(t); slices.Contains(after, patched) || !slices.Contains(after, debian) {
		t.Errorf("GRUB offers %q after its removal", after)
	}
}

// kernelPackage installs the kernel in the domU that runs it: its modules fit.
func (b *bed) kernelPackage(t *testing.T) {
	t.Helper()
	file := "/root/" + filepath.Base(packages.Kernel)
	if err := b.DomU().Put(t.Context(), packages.Kernel, file, 0o644); err != nil {
		t.Fatal(err)
	}
	name := strings.SplitN(filepath.Base(packages.Kernel), "_", 2)[0]
	for _, line := range []string{
		"test $(uname -r) = " + packages.KernelRelease,
		"dpkg -i " + file,
		"test -s /boot/vmlinuz-$(uname -r) && grep -qx CONFIG_XEN_WARMCACHE=y /boot/config-$(uname -r)",
		"modprobe loop && grep -q '^loop ' /proc/modules",
		"dpkg -P " + name + " && ! test -e /boot/vmlinuz-$(uname -r)",
	} {
		if output, err := b.DomU().Shell(t.Context(), line); err != nil {
			t.Errorf("domU: %s: %v\n%s", line, err, output)
		}
	}
	installed := b.dom0(t, "sha256sum /boot/guest-kernel")
	content, err := exec.Command("dpkg-deb", "--fsys-tarfile", packages.Kernel).Output()
	if err != nil {
		t.Fatal(err)
	}
	tar := exec.Command("tar", "-xO", "./boot/vmlinuz-"+packages.KernelRelease)
	tar.Stdin = bytes.NewReader(content)
	packed, err := tar.Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%x", sha256.Sum256(packed)); !strings.HasPrefix(installed, want) {
		t.Errorf("the package has %s, the domU runs %s", want, installed)
	}
}

// xendomains shuts the domU down and creates it again, as when dom0 is serviced:
// it comes back warm, and nobody has asked the agent.
func (b *bed) xendomains(t *testing.T) {
	t.Helper()
	b.dom0(t, "sed -i 's/^XENDOMAINS_SAVE=.*/XENDOMAINS_SAVE=/' /etc/default/xendomains; mkdir -p /etc/xen/auto; ln -s /etc/xen/domU-web.cfg /etc/xen/auto/; systemctl start xendomains")
	before, err := b.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.dom0(t, "systemctl stop xendomains && ! xl domid domU-web && systemctl start xendomains && xl domid domU-web")
	b.awaitDomU(t)
	after, err := b.Status(t.Context(), "--wait")
	if err != nil {
		t.Fatal(err)
	}
	if last := after.Last; last == nil || last.Sequence != before.Last.Sequence+1 || last.Outcome != "warm" || last.PagesRestored < last.PagesBefore*9/10 {
		t.Errorf("by xendomains: %+v", last)
	}
}

// TestLibvirt: a domain that libvirt has created is recognised, comes back
// warm, also from a reboot of its own, and is not taken down while libvirt is
// away.
func TestLibvirt(t *testing.T) {
	t.Parallel()
	b, _ := host(t)
	b.install(t, packages.Product)
	b.awaitProperty(t, "ActiveState", "active")
	// Nothing of Debian's orders libvirtd after xen.service, without which it starts
	// without Xen. The unit does, from the next boot on.
	if before := b.dom0(t, "systemctl show --value -p Before warmrebootd.service"); !strings.Contains(before, "libvirtd.service") {
		t.Errorf("the service comes before %s", before)
	}
	b.dom0(t, "systemctl restart libvirtd && virsh -c xen:///system version")
	if err := b.Product.Dom0.PutBytes(t.Context(), []byte(libvirtDomain), "/root/domU-web.xml"); err != nil {
		t.Fatal(err)
	}
	b.dom0(t, "virsh -c xen:///system define /root/domU-web.xml && virsh -c xen:///system start --paused domU-web && warmreboot enable domU-web && virsh -c xen:///system resume domU-web")
	b.awaitDomU(t)
	b.read(t)
	if status := b.dom0(t, "warmreboot status domU-web"); !strings.Contains(status, "created by libvirt") {
		t.Error(status)
	}
	// It is asked for by an update, which the service makes in libvirt's definition.
	code, output := b.exitCode(t, fmt.Sprintf("warmreboot update domU-web --kernel /boot/guest-kernel --cmdline '%s trial=good' --deadline 8m --probation 1s", b.domU(t, "cat /proc/cmdline")))
	if code != 0 || !strings.Contains(output, "came back warm") {
		t.Errorf("an update: code %d: %s", code, output)
	}
	b.awaitDomU(t)
	if line := b.domU(t, "cat /proc/cmdline"); !strings.HasSuffix(line, "trial=good") {
		t.Errorf("updated, and booted with %q", line)
	}
	if definition := b.dom0(t, "virsh -c xen:///system dumpxml --inactive domU-web"); !strings.Contains(definition, "trial=good</cmdline>") || strings.Contains(definition, "bootloader") {
		t.Errorf("updated, and defined as %s", definition)
	}

	before, err := b.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	domid := b.dom0(t, "xl domid domU-web")
	if _, err := b.DomU().Shell(t.Context(), "reboot"); err != nil {
		t.Log("the domU's agent went with it:", err)
	}
	b.awaitNewDomid(t, domid)
	b.awaitDomU(t)
	status, err := b.Status(t.Context(), "--wait")
	if err != nil {
		t.Fatal(err)
	}
	if last := status.Last; last == nil || last.Sequence <= before.Last.Sequence || last.Outcome != "warm" || last.Trigger != "guest" {
		t.Errorf("the domU's own reboot: %+v", last)
	}
	if entry := (scheduled{b}).history(t, "--by guest"); len(entry) != 1 || entry[0].Trigger != "guest" || entry[0].Outcome != "warm" {
		t.Errorf("the history of it: %+v", entry)
	}
	b.verify(t)
	b.check(t)

	b.dom0(t, "systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service; ! pidof libvirtd")
	domid = b.dom0(t, "xl domid domU-web")
	code, output = b.exitCode(t, "warmreboot domU-web")
	if code != 1 || !strings.Contains(output, "start libvirtd") || b.dom0(t, "xl domid domU-web") != domid {
		t.Errorf("without libvirtd: %s", output)
	}
	b.dom0(t, "systemctl start libvirtd")
	t.Logf("after libvirtd was restarted: %+v", b.warm(t))
}

// TestToolstacks runs the suite of internal/toolstack against libvirt and xl as they
// are.
func TestToolstacks(t *testing.T) {
	t.Parallel()
	parts, checkout, cache := prepare(t, lab.Variant{Systemd: true, NoProduct: true, Unthrottled: true})
	b := start(t, parts, cache, "journalctl -b --no-pager -n 80; tail -n 20 /var/log/xen/xl-domU-web.log")
	b.dom0(t, "systemctl restart libvirtd && virsh -c xen:///system version")
	if err := b.Product.Dom0.PutBytes(t.Context(), []byte(libvirtDomain), "/root/domU-web.xml"); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "toolstack.test")
	compile := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, "./internal/toolstack")
	compile.Dir, compile.Env = checkout.Dir, append(os.Environ(), "CGO_ENABLED=0")
	if output, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	if err := b.Machine.Dom0().Put(t.Context(), program, "/root/toolstack.test", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, run := range []struct{ name, config string }{{"libvirt", "/root/domU-web.xml"}, {"xl", "/etc/xen/domU-web.cfg"}} {
		code, output := b.exitCode(t, fmt.Sprintf("cd /root && ./toolstack.test -test.v -test.run '^TestHost$' -toolstack %s -config %s -uuid 5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b01 -exec http://%s:%d/exec",
			run.name, run.config, lab.DomainAddress, agent.Port))
		if code != 0 || !strings.Contains(output, "--- PASS: TestHost (") {
			t.Errorf("%s: %s", run.name, output)
		}
	}
}

// libvirtDomain is the lab's domU as libvirt describes it. Its interface is
// xl's: the script gives it its address.
const libvirtDomain = `<domain type='xen'>
  <name>domU-web</name>
  <uuid>5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b01</uuid>
  <memory unit='MiB'>512</memory>
  <vcpu>2</vcpu>
  <os>
    <type arch='x86_64' machine='xenpvh'>xenpvh</type>
    <kernel>/boot/guest-kernel</kernel>
    <cmdline>root=/dev/xvda rootfstype=ext4 rw console=hvc0 panic=1 oops=panic net.ifnames=0</cmdline>
  </os>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>restart</on_crash>
  <devices>
    <disk type='block' device='disk'>
      <driver name='phy' type='raw'/>
      <source dev='/dev/vdb'/>
      <target dev='xvda' bus='xen'/>
    </disk>
    <interface type='ethernet'>
      <mac address='00:16:3e:00:00:01'/>
      <script path='/etc/xen/scripts/vif-lab'/>
    </interface>
    <console type='pty'>
      <target type='xen'/>
    </console>
  </devices>
</domain>
`
