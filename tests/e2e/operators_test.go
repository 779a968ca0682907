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
	reboots int       // of domU-web, so far
	run     time.Time // of the schedule
}

func (o *operators) seen() seen           { return seen{o.bed} }
func (o *operators) scheduled() scheduled { return scheduled{o.bed} }

// bootOperators boots such a lab; before is what is done to dom0 while no agent runs.
func bootOperators(t *testing.T, v lab.Variant, before func(*operators)) *operators {
	t.Helper()
	o := &operators{bed: boot(t, v)}
	if err := o.StopAgent(t.Context(), "TERM"); err != nil {
		t.Fatal(err)
	}
	before(o)
	if err := o.StartAgent(t.Context(), "--listen 127.0.0.1:9816"); err != nil {
		t.Fatal(err)
	}
	o.create(t, true)
	o.sound(t) // which reads some files
	return o
}

type operatorsStep struct {
	name string
	do   func(*operators, *testing.T)
}

// does does steps of which each goes on from where the last one has ended. Whatever
// they were, nothing stale has come back.
func (o *operators) does(t *testing.T, steps ...operatorsStep) {
	t.Helper()
	for _, step := range steps {
		begun := time.Now()
		if !t.Run(step.name, func(t *testing.T) { step.do(o, t) }) {
			return
		}
		t.Logf("%s: %.0f s", step.name, time.Since(begun).Seconds())
	}
	o.verify(t)
	o.check(t)
}

// TestSavedAndMoved: xl save, restore, migrate and rename. None is a reboot; nothing
// stale comes back, what is said of it is true, and the next boot is warm again.
func TestSavedAndMoved(t *testing.T) {
	t.Parallel()
	o := bootOperators(t, lab.Variant{Unthrottled: true, SpareMiB: 1024}, func(o *operators) {
		o.dom0(t, "mke2fs -q -t ext4 -O ^has_journal /dev/vdc && mount /dev/vdc /mnt")
	})
	o.does(t,
		operatorsStep{"saved and restored", (*operators).savedAndRestored},
		operatorsStep{"migrated within the host", (*operators).migrated},
		operatorsStep{"renamed", (*operators).renamed})
}

// TestOperators: xl shutdown, destroy, create and what a configuration says of reboots
// and crashes, a UUID that is in two configurations, odd names; and a clock that is set
// back past a schedule's run. Nothing stale comes back, what is said of it is true, and
// the next boot is warm again.
func TestOperators(t *testing.T) {
	t.Parallel()
	o := bootOperators(t, lab.Variant{Unthrottled: true}, func(o *operators) { o.plan(t) })
	o.domU(t, "cat /srv/img/* >/dev/null")
	o.does(t,
		operatorsStep{"a name in Latin-1, and a schedule", (*operators).latin},
		operatorsStep{"two of one UUID", (*operators).twins},
		operatorsStep{"switched off, and created later", (*operators).switchedOff},
		operatorsStep{"destroyed and created at once", (*operators).createdAtOnce},
		operatorsStep{"the clock is set back", (*operators).setBack},
		operatorsStep{"rename-restart", (*operators).renameRestart},
		operatorsStep{"crashed for good", (*operators).crashedForGood},
		operatorsStep{"odd names", (*operators).oddNames},
		operatorsStep{"the run is not repeated", (*operators).notRepeated})
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

// history are the entries of the history about domU-web, the last one first.
func (o *operators) history(t *testing.T) []past {
	t.Helper()
	return o.scheduled().history(t, webUUID)
}

// counted is how many reboots of domU-web Prometheus has seen.
func (o *operators) counted(t *testing.T, kind, result string) float64 {
	t.Helper()
	return o.seen().metric(t, "warmreboot_reboots_total", `uuid="`+webUUID+`"`, `kind="`+kind+`"`, `result="`+result+`"`)
}

// noReboot asserts that nothing takes domU-web for being in a reboot, and that the
// history has those that there were.
func (o *operators) noReboot(t *testing.T) {
	t.Helper()
	if s := o.standing(t, webUUID); s.Current != nil {
		t.Errorf("in a reboot: %+v", s)
	}
	if v := o.seen().metric(t, "warmreboot_reboot_under_way", `uuid="`+webUUID+`"`); v != 0 {
		t.Errorf("Prometheus takes it for being in a reboot")
	}
	if all := o.history(t); len(all) != o.reboots {
		t.Errorf("%d reboots, want %d: %+v", len(all), o.reboots, all)
	}
}

// rebooted asserts that there was one reboot since, and no more.
func (o *operators) rebooted(t *testing.T) {
	t.Helper()
	o.reboots++
	o.noReboot(t)
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

// gone waits until the domU has.
func (o *operators) gone(t *testing.T) {
	t.Helper()
	o.dom0(t, "for i in $(seq 300); do xl domid domU-web >/dev/null 2>&1 || exit 0; sleep 0.2; done; exit 1")
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
	o.seen().ends(t, "warmreboot doctor domU-web", 1, "WARNING  guest kernel domU-web: it was suspended since its boot")
	o.noReboot(t)

	o.dom0(t, "rm "+savedFile+"; xl save domU-web "+savedFile)
	o.seen().ends(t, "warmreboot status domU-web --wait --timeout 1m", 0, "gone")
	for _, flag := range []string{"", "--force", "--cold", "--dry-run"} {
		o.seen().ends(t, "warmreboot domU-web "+flag, 10, "it was saved, or has moved to another host")
	}
	o.noReboot(t)

	o.dom0(t, "xl restore "+savedFile)
	o.awaitDomU(t)
	o.overwrite(t, 'r')
	o.sound(t)
	if s := o.standing(t, "domU-web"); s.State != "running" || !s.Resumed || s.Attached || s.Committed != 0 || s.Toolstack != "xl" || !strings.Contains(s.Message, "suspended") {
		t.Errorf("after a restore: %+v", s)
	}
	o.seen().ends(t, "warmreboot domU-web", 5, "from its next boot on")
	o.noReboot(t)

	domid := o.dom0(t, "xl domid domU-web")
	panicGuest(t, o.DomU())
	o.awaitNewDomid(t, domid)
	if r := o.comesBack(t); r == nil || r.Outcome != "cold" || r.Trigger != "crash" || !strings.Contains(r.Reason, "suspended") {
		t.Errorf("after a panic: %+v", r)
	}
	o.rebooted(t)
	o.sound(t)
	o.domU(t, "cat /srv/img/* >/dev/null")
	r, err := o.Reboot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.awaitDomU(t)
	o.warm(t, &r)
	o.rebooted(t)
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
	o.noReboot(t)
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
	o.rebooted(t)
}

// twins: a second domain with the UUID, as of a configuration that was copied. Both
// are left alone, and it is said; when it has gone, all is as before.
func (o *operators) twins(t *testing.T) {
	before := o.standing(t, "domU-web")
	o.dom0(t, "xl create "+o.idle(t, "copy", webUUID))
	await(t, "the second one is seen", func() bool { return o.standing(t, "domU-web").Twin != 0 })
	for _, line := range []string{"warmreboot domU-web", "warmreboot domU-web --force", "warmreboot copy --cold", "warmreboot enable copy", "warmreboot drop domU-web", "warmreboot " + webUUID} {
		o.seen().ends(t, line, 1, "run under the same UUID")
	}
	o.seen().ends(t, "warmreboot doctor domU-web", 1, "runs under the same UUID")
	o.noReboot(t)
	o.sound(t)
	o.dom0(t, "xl destroy copy")
	await(t, "the second one is not seen any more", func() bool { return o.standing(t, "domU-web").Message == "" })
	if s := o.standing(t, "domU-web"); s.Twin != 0 || s.Domid != before.Domid || float64(s.Committed) < 0.9*float64(before.Committed) {
		t.Errorf("%+v, and before %+v", s, before)
	}
	o.seen().ends(t, "warmreboot domU-web --dry-run", 0, "would preserve")
	o.noReboot(t)
}

// switchedOff: that is no reboot. It is created again while Xen still has its pages.
func (o *operators) switchedOff(t *testing.T) {
	o.dom0(t, "xl shutdown domU-web")
	o.gone(t)
	o.noReboot(t)
	if s := o.standing(t, webUUID, "--wait", "--timeout", "1m"); s.State != "down" || s.Phase != "off" {
		t.Errorf("%+v", s)
	}
	o.seen().ends(t, "warmreboot domU-web", 10, "xl create its configuration")
	o.seen().ends(t, "warmreboot doctor domU-web", 1, "it is down; Xen has preserved")
	o.dom0(t, "xl create "+ordinaryConfig)
	o.warm(t, o.comesBack(t))
	o.rebooted(t)
	if r := o.history(t)[0]; r.Trigger != "off" || r.By != "guest" {
		t.Errorf("%+v", r)
	}
	if n := o.counted(t, "off", "warm"); n != 1 {
		t.Errorf("%v", n)
	}
}

// rewritten is the usual configuration, but for a line of sed.
func (o *operators) rewritten(t *testing.T, name, sed string) string {
	t.Helper()
	path := "/tmp/" + name + ".cfg"
	o.dom0(t, "sed '"+sed+"' "+ordinaryConfig+" >"+path)
	return path
}

// createdAtOnce: xl destroy, and xl create before anybody has looked.
func (o *operators) createdAtOnce(t *testing.T) {
	o.domU(t, "sync")
	o.dom0(t, "xl destroy domU-web; xl create "+o.rewritten(t, "rename", `s/^on_reboot.*/on_reboot = "rename-restart"/`))
	o.warm(t, o.comesBack(t))
	o.rebooted(t)
}

// renameRestart: the domain that went down stays, with its memory and its disks, so
// that the next one cannot be created: it is not rebooted on our account. If it
// reboots by itself, it is said what keeps it.
func (o *operators) renameRestart(t *testing.T) {
	o.seen().ends(t, "warmreboot domU-web", 1, "rename-restart")
	domid := o.domid(t, "domU-web")
	o.dom0(t, "xl reboot domU-web")
	await(t, "the old domain is kept", func() bool { return strings.Contains(o.standing(t, webUUID).Message, "has kept the old domain") })
	o.seen().ends(t, "warmreboot status domU-web", 0, fmt.Sprintf("xl destroy %d", domid))
	// The xl that was to create it gives up.
	o.dom0(t, "while readlink /proc/[0-9]*/fd/2 | grep -qx /var/log/xen/xl-domU-web.log; do sleep 0.2; done")
	o.dom0(t, fmt.Sprintf("xl destroy %d; xl create %s", domid, o.rewritten(t, "crash", `s/^on_crash.*/on_crash = "destroy"/`)))
	if r := o.comesBack(t); r == nil || r.Trigger != "guest" || r.Outcome != "warm" {
		t.Errorf("%+v", r)
	}
	o.sound(t)
	o.domU(t, "cat /srv/img/* >/dev/null")
	o.rebooted(t)
}

// crashedForGood: one that is not to be created again after a crash is not awaited.
func (o *operators) crashedForGood(t *testing.T) {
	panicGuest(t, o.DomU())
	o.gone(t)
	o.noReboot(t)
	if s := o.standing(t, webUUID, "--wait", "--timeout", "1m"); s.State != "down" || s.Phase != "off" {
		t.Errorf("%+v", s)
	}
	o.dom0(t, "xl create "+ordinaryConfig)
	r := o.comesBack(t)
	o.warm(t, r)
	if r.Trigger != "crash" {
		t.Errorf("%+v", r)
	}
	o.rebooted(t)
}

// idle writes the configuration of a small domain that does nothing but wait for a
// disk, and returns its path. Its name is as the shell's printf takes it.
func (o *operators) idle(t *testing.T, name, uuid string) string {
	t.Helper()
	config := "name = '" + name + "'\nuuid = '" + uuid + `'
type = "pvh"
kernel = "/boot/guest-kernel"
cmdline = "root=/dev/xvdz rootwait console=hvc0 panic=1"
memory = 64
vcpus = 1
tsc_mode = "native"
`
	path := "/tmp/" + uuid + ".cfg"
	if err := o.Machine.Dom0().PutBytes(t.Context(), []byte(config), path); err != nil {
		t.Fatal(err)
	}
	return path
}

// oddNames: whatever xl calls a domain, it can be dealt with by that name.
func (o *operators) oddNames(t *testing.T) {
	for i, name := range []string{"--all", "a b", `x"y`} {
		uuid := fmt.Sprintf("5c0f3a60-7d0b-4a57-9d2b-77a26d6c0c%02d", i)
		o.dom0(t, "xl create -p "+o.idle(t, name, uuid))
		for _, command := range []string{"enable", "status", "drop", "lock", "unlock", "disable"} {
			o.seen().ends(t, "warmreboot "+command+" -- '"+name+"'", 0, name)
		}
		o.seen().ends(t, "warmreboot -- '"+name+"'", 5, "is not enabled: warmreboot enable "+uuid)
		o.dom0(t, "xl destroy "+fmt.Sprint(o.standing(t, uuid).Domid))
	}
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
// name, and a schedule reboots it in a while.
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
	o.scheduled().configure(t, fmt.Sprintf(`[[schedule]]
name = "clock"
domains = ["%s"]
timezone = "UTC"
cron = "%d %d * * *"
minimum_distance = "0s"
mode = "cold"
`, latinUUID, o.run.Minute(), o.run.Hour()))
	o.scheduled().awaitPlan(t, "the schedule is noticed", func(p plan) bool { return len(p.Runs) == 1 && p.Runs[0].Next.Equal(o.run) })
}

// plan sets dom0's clock forward, by less than a minute, so that a minute begins soon
// after the clock is trusted, two minutes after dom0's boot: the schedule's.
func (o *operators) plan(t *testing.T) {
	t.Helper()
	o.run = time.Unix(o.number(t, `
		up=$(cut -d. -f1 /proc/uptime); left=$((135 - up)); [ $left -gt 60 ] || left=60
		run=$((($(date +%s) + left + 59) / 60 * 60)); date -u -s @$((run - left)) >/dev/null; echo $run`), 0).UTC()
}

// awaitClock waits until dom0's clock shows so much.
func (o *operators) awaitClock(t *testing.T, at time.Time) {
	t.Helper()
	o.dom0(t, fmt.Sprintf("until [ $(date +%%s) -ge %d ]; do sleep 1; done", at.Unix()))
}

// ran waits until the run of the schedule is in the history, and returns the entries
// there.
func (o *operators) ran(t *testing.T) []past {
	t.Helper()
	var all []past
	await(t, "the run of the schedule", func() bool {
		all = o.scheduled().history(t, latinUUID)
		return len(all) > 0
	})
	return all
}

// setBack sets the clock to a hundred seconds before the run, which has been done.
func (o *operators) setBack(t *testing.T) {
	o.awaitClock(t, o.run)
	all := o.ran(t)
	if len(all) != 1 || all[0].By != "schedule" || all[0].Schedule != "clock" || all[0].Trigger != "cold" || all[0].Error != "" {
		t.Errorf("%+v", all)
	}
	o.dom0(t, fmt.Sprintf("date -u -s @%d", o.run.Add(-100*time.Second).Unix()))
}

// notRepeated: when the clock is trusted again it has just shown the time of the run a
// second time. It was done, and the next one is tomorrow's.
func (o *operators) notRepeated(t *testing.T) {
	o.awaitClock(t, o.run.Add(40*time.Second))
	o.scheduled().awaitPlan(t, "the clock is trusted", func(p plan) bool {
		return len(p.Runs) == 1 && p.Runs[0].Blocked == "" && p.Runs[0].Next.Equal(o.run.AddDate(0, 0, 1))
	})
	if all := o.scheduled().history(t, latinUUID); len(all) != 1 {
		t.Errorf("%d reboots: %+v", len(all), all)
	}
	o.seen().ends(t, `warmreboot history "$(printf 'caf\351')"`, 0, latinShown)
}
