package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/build"
	"github.com/warmreboot/warmreboot/tests/lab/demo"
)

const (
	webUUID   = "5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b01" // in ordinaryConfig
	savedFile = "/mnt/saved"
	// latinName is in Latin-1, as xl.cfg may have it, and latinShown how it is shown.
	latinName  = "caf\xe9"
	latinShown = `caf\xe9`
	latinUUID  = "5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b02"
)

// operators is a lab in which an operator does to domU-web what he does beside
// rebooting it, and Prometheus looks on.
type operators struct {
	*bed
}

func (o *operators) seen() seen           { return seen{o.bed} }
func (o *operators) scheduled() scheduled { return scheduled{o.bed} }

// TestOperators: xl save, restore, migrate and rename, and a name in Latin-1. Nothing
// stale comes back, what is said of it is true, and a boot later it is warm again. Each
// step goes on from where the last one has ended.
func TestOperators(t *testing.T) {
	t.Parallel()
	o := &operators{bed: boot(t, lab.Variant{Unthrottled: true, SpareMiB: 1024})}
	if err := o.StopAgent(t.Context(), "TERM"); err != nil {
		t.Fatal(err)
	}
	if err := o.StartAgent(t.Context(), "--listen 127.0.0.1:9816"); err != nil {
		t.Fatal(err)
	}
	o.dom0(t, "mke2fs -q -t ext4 -O ^has_journal /dev/vdc && mount /dev/vdc /mnt")
	o.create(t, true)
	o.sound(t) // which reads some files
	for _, step := range []struct {
		name string
		do   func(*operators, *testing.T)
	}{
		{"a name in Latin-1", (*operators).latin},
		{"saved and restored", (*operators).savedAndRestored},
		{"migrated within the host", (*operators).migrated},
		{"renamed", (*operators).renamed},
	} {
		begun := time.Now()
		if !t.Run(step.name, func(t *testing.T) { step.do(o, t) }) {
			return
		}
		t.Logf("%s: %.0f s", step.name, time.Since(begun).Seconds())
	}
	o.verify(t)
	o.check(t)
}

// standing is what `warmreboot status -o json` says of a domain, as far as it is
// needed here.
type standing struct {
	Domain, State, Phase, Message, Toolstack string
	Domid, Twin                              int
	Resumed, Attached                        bool
	Committed                                uint64
	Current, Last                            *demo.Reboot
}

func (o *operators) standing(t *testing.T, domain string, flags ...string) standing {
	t.Helper()
	s, err := lab.JSON[standing](t.Context(), o.Machine.Dom0(), append([]string{"warmreboot", "status", "-o", "json", domain}, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// reboots are the entries of the history about domU-web, the last one first.
func (o *operators) reboots(t *testing.T) []past {
	t.Helper()
	return o.scheduled().history(t, webUUID)
}

// counted is how many reboots of domU-web Prometheus has seen.
func (o *operators) counted(t *testing.T, kind, result string) float64 {
	t.Helper()
	return o.seen().metric(t, "warmreboot_reboots_total", `uuid="`+webUUID+`"`, `kind="`+kind+`"`, `result="`+result+`"`)
}

// noReboot asserts that nothing takes domU-web for being in a reboot, and that the
// history has so many.
func (o *operators) noReboot(t *testing.T, want int) {
	t.Helper()
	if s := o.standing(t, webUUID); s.Current != nil {
		t.Errorf("in a reboot: %+v", s)
	}
	if v := o.seen().metric(t, "warmreboot_reboot_under_way", `uuid="`+webUUID+`"`); v != 0 {
		t.Errorf("Prometheus takes it for being in a reboot")
	}
	if all := o.reboots(t); len(all) != want {
		t.Errorf("%d reboots, want %d: %+v", len(all), want, all)
	}
}

// overwrite has the guest write a file anew in its place, so that what was cached of
// its blocks is stale.
func (o *operators) overwrite(t *testing.T, with byte) {
	t.Helper()
	size := o.domUNumber(t, "stat -c %s "+fileOnExt4)
	o.domU(t, fmt.Sprintf(`head -c %d /dev/zero | tr '\0' %c | dd of=%s bs=64k conv=notrunc iflag=fullblock 2>/dev/null; sync`, size, with, fileOnExt4))
	sum := sha256.Sum256(bytes.Repeat([]byte{with}, int(size)))
	o.truth[strings.TrimPrefix(fileOnExt4, build.WebRoot+"/")] = hex.EncodeToString(sum[:])
}

// sound compares files of the folder that is written to with the truth, which reads
// them, and each page with the disk.
func (o *operators) sound(t *testing.T) {
	t.Helper()
	sums, err := o.DomU().Sums(t.Context(), build.WebRoot+"/03")
	if err != nil {
		t.Fatal(err)
	}
	for name, sum := range sums {
		if sum != o.truth["03/"+name] {
			t.Errorf("%s differs from the truth", name)
		}
	}
	if len(sums) == 0 {
		t.Error("no files")
	}
	o.check(t)
}

// warm asserts that the domU has come back warm, with what it had read.
func (o *operators) warm(t *testing.T, r *demo.Reboot) {
	t.Helper()
	if r == nil {
		t.Fatal("no reboot has ended")
	}
	if r.Outcome != "warm" || r.PagesBefore < 1000 || float64(r.PagesRestored) < 0.9*float64(r.PagesBefore) {
		t.Errorf("%+v", r)
	}
	o.sound(t)
}

// comesBack waits until the restore of the next domU has ended.
func (o *operators) comesBack(t *testing.T) *demo.Reboot {
	t.Helper()
	o.awaitDomU(t)
	return o.standing(t, webUUID, "--wait", "--timeout", "9m").Last
}

// savedAndRestored: neither a checkpoint nor a restore is a reboot. A restored guest
// is not tracked, whatever it writes; once it has been booted, it is again.
func (o *operators) savedAndRestored(t *testing.T) {
	before := o.standing(t, "domU-web")
	o.dom0(t, "xl save -c domU-web "+savedFile)
	o.overwrite(t, 'c')
	o.sound(t)
	if s := o.standing(t, "domU-web"); s.State != "running" || s.Domid != before.Domid || !s.Resumed || s.Attached || s.Committed != 0 || !strings.Contains(s.Message, "suspended") {
		t.Errorf("after a checkpoint: %+v, and before %+v", s, before)
	}
	o.noReboot(t, 0)

	o.dom0(t, "rm "+savedFile+"; xl save domU-web "+savedFile)
	o.seen().ends(t, "warmreboot status domU-web --wait --timeout 1m", 0, "gone")
	for _, flag := range []string{"", "--force", "--cold", "--dry-run"} {
		o.seen().ends(t, "warmreboot domU-web "+flag, 10, "it was saved, or has moved to another host")
	}
	o.noReboot(t, 0)

	o.dom0(t, "xl restore "+savedFile)
	o.awaitDomU(t)
	o.overwrite(t, 'r')
	o.sound(t)
	if s := o.standing(t, "domU-web"); s.State != "running" || !s.Resumed || s.Attached || s.Committed != 0 || s.Toolstack != "xl" || !strings.Contains(s.Message, "suspended") {
		t.Errorf("after a restore: %+v", s)
	}
	o.seen().ends(t, "warmreboot domU-web", 5, "from its next boot on")
	o.noReboot(t, 0)

	domid := o.dom0(t, "xl domid domU-web")
	panicGuest(t, o.DomU())
	o.awaitNewDomid(t, domid)
	if r := o.comesBack(t); r == nil || r.Outcome != "cold" || r.Trigger != "crash" || !strings.Contains(r.Reason, "suspended") {
		t.Errorf("after a panic: %+v", r)
	}
	o.sound(t)
	o.domU(t, "cat /srv/img/* >/dev/null")
	r, err := o.Reboot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.awaitDomU(t)
	o.warm(t, &r)
	o.noReboot(t, 2)
	for kind, result := range map[string]string{"crash": "cold", "graceful": "warm"} {
		if n := o.counted(t, kind, result); n != 1 {
			t.Errorf("%v %s reboots (%s), want 1", n, result, kind)
		}
	}
}

// migrated: to this host, so that two domains have the UUID for a while. xl needs no
// ssh for that.
func (o *operators) migrated(t *testing.T) {
	was := o.dom0(t, "xl domid domU-web")
	o.dom0(t, "xl migrate -s '' domU-web 'xl migrate-receive' 2>&1")
	if now := o.dom0(t, "xl domid domU-web"); now == was {
		t.Fatal("it has not been migrated")
	}
	o.awaitDomU(t)
	o.overwrite(t, 'm')
	o.sound(t)
	if s := o.standing(t, "domU-web"); s.State != "running" || s.Domain != "domU-web" || !s.Resumed || s.Attached || s.Twin != 0 || s.Toolstack != "xl" || !strings.Contains(s.Message, "suspended") {
		t.Errorf("%+v", s)
	}
	o.noReboot(t, 2)
}

// renamed: the name follows xl's, which gives the domain that of its configuration
// again when it reboots.
func (o *operators) renamed(t *testing.T) {
	o.dom0(t, "xl rename domU-web shop")
	if s := o.standing(t, webUUID); s.Domain != "shop" || s.State != "running" {
		t.Errorf("%+v", s)
	}
	o.seen().ends(t, "warmreboot domU-web", 10, "there is no domain")
	await(t, "Prometheus has the new name", func() bool {
		_, body := o.seen().get(t, "/metrics", "localhost")
		return strings.Contains(body, `warmreboot_domain_up{name="shop",uuid="`+webUUID+`"} 1`) && !strings.Contains(body, `name="domU-web"`)
	})
	o.seen().ends(t, "warmreboot shop --cold --timeout 9m", 0, "a normal reboot was asked for")
	o.awaitDomU(t)
	if s := o.standing(t, webUUID); s.Domain != o.dom0(t, "xl domname "+fmt.Sprint(s.Domid)) {
		t.Errorf("%+v", s)
	}
	o.sound(t)
	o.domU(t, "cat /srv/img/* >/dev/null")
	o.noReboot(t, 3)
}

// latinDisk makes the disk of the domain with the name in Latin-1: busybox, which can
// reboot.
const latinDisk = `
set -e
root=$(mktemp -d /tmp/latin.XXXXXX)
mkdir $root/sbin $root/dev $root/proc $root/etc
cp /bin/busybox $root/sbin/init
ln -s init $root/sbin/reboot
echo '# nothing is started' >$root/etc/inittab
mke2fs -q -t ext4 -b 4096 -O ^has_journal -d $root -F /srv/latin.raw 8M
rm -rf $root
`

// latin: a domain with a name that is not UTF-8 is enabled, scraped and found by that
// name.
func (o *operators) latin(t *testing.T) {
	o.dom0(t, latinDisk)
	config := "name = \"" + latinName + "\"\nuuid = \"" + latinUUID + `"
type = "pvh"
kernel = "/boot/guest-kernel"
cmdline = "root=/dev/xvda rootfstype=ext4 ro console=hvc0 panic=1"
memory = 64
vcpus = 1
tsc_mode = "native"
disk = [ "file:/srv/latin.raw,xvda,r" ]
on_reboot = "restart"
`
	if err := o.Machine.Dom0().PutBytes(t.Context(), []byte(config), "/tmp/latin.cfg"); err != nil {
		t.Fatal(err)
	}
	o.dom0(t, "xl create -p /tmp/latin.cfg && warmreboot enable "+latinUUID)
	o.dom0(t, fmt.Sprint("xl unpause ", o.standing(t, latinUUID).Domid))
	if text := o.seen().ends(t, `warmreboot status "$(printf 'caf\351')"`, 0, latinShown); strings.Contains(text, "note:") {
		t.Error("the agent did not answer")
	}
	for range 2 { // one scrape that ends the daemon would be answered
		if v := o.seen().metric(t, "warmreboot_domain_enabled", `name="caf\\xe9"`, latinUUID); v != 1 {
			t.Errorf("enabled is %v", v)
		}
	}
}
