package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
)

const (
	spareRoot = "/srv/spare"
	// deadlineSeconds is the guest's own, long enough for its kernel to be told
	// what it may have.
	deadlineSeconds = 40
)

// TestGuestUnharmed: what a guest's kernel does for its warm cache, or with it,
// does not harm the guest: where a disk was formatted anew, where a memory cgroup
// unmounts what it has read, where a file that comes back is being written to, and
// where a mount hangs. The steps share a lab and a disk of their own, xvdc.
func TestGuestUnharmed(t *testing.T) {
	t.Parallel()
	const config = "/tmp/unharmed.cfg"
	b := boot(t, lab.Variant{Unthrottled: true, SpareMiB: 512, Packages: []string{"e2fsprogs", "dmsetup"}})
	b.dom0(t, fmt.Sprintf(`sed -e 's|^disk.*|disk = [ "phy:/dev/vdb,xvda,w", "file:%s,xvdb,w", "phy:/dev/vdc,xvdc,w" ]|' -e 's/panic=1/& xen_warmcache.deadline=%d/' %s >%s`,
		imageFile, deadlineSeconds, ordinaryConfig, config))
	b.createEnabled(t, config)
	b.domU(t, "cp /etc/lab/boot /etc/lab/boot.first; mkdir -p "+spareRoot)
	for _, step := range []struct {
		name string
		run  func(*bed, *testing.T)
	}{
		{"formatted anew, errors=remount-ro", func(b *bed, t *testing.T) { b.formattedAnew(t, "remount-ro") }},
		{"formatted anew, errors=panic", func(b *bed, t *testing.T) { b.formattedAnew(t, "panic") }},
		{"unmounted by a cgroup", (*bed).unmountedByCgroup},
		{"written to while it comes back", (*bed).writtenToWhileRestored},
		{"a mount that hangs", (*bed).mountHangs},
	} {
		// Each goes on from where the last one has ended.
		if !t.Run(step.name, func(t *testing.T) { step.run(b, t) }) {
			return
		}
	}
	b.check(t)
}

// atBoot has the guest run some more lines of shell when it boots.
func (b *bed) atBoot(t *testing.T, lines string) {
	t.Helper()
	b.domU(t, "cp /etc/lab/boot.first /etc/lab/boot; echo '"+lines+"' >>/etc/lab/boot; sync")
}

func (b *bed) warmcache(t *testing.T, counter string) int64 {
	t.Helper()
	return b.domUNumber(t, "cat /sys/hypervisor/warmcache/"+counter)
}

// formattedAnew makes a file system with files, and then another one in its place,
// as a backend without discard has it: mkfs writes neither to the blocks of the
// files nor to most of the inode table. So pages of files that are gone are known
// to Xen, and equal the disk, and their inodes' slots hold what is not valid in the
// file system that is mounted.
func (b *bed) formattedAnew(t *testing.T, onError string) {
	const files, pages = 400, 4
	const format = "mke2fs -q -F -t ext4 -E nodiscard /dev/xvdc"
	options := "noinit_itable,errors=" + onError
	b.domU(t, "grep -q ' "+spareRoot+" ' /proc/mounts && busybox umount "+spareRoot+"; "+format+" && busybox mount -t ext4 -o noinit_itable /dev/xvdc "+spareRoot)
	b.domU(t, fmt.Sprintf("cd %s && for i in $(seq %d); do dd if=/dev/urandom of=file$i bs=%d count=1 2>/dev/null || exit 1; done; cd /; sync; busybox umount %[1]s && %[4]s",
		spareRoot, files, pages*4096, format))
	b.atBoot(t, "/bin/busybox mount -t ext4 -o "+options+" /dev/xvdc "+spareRoot)
	domid, err := strconv.Atoi(b.dom0(t, "xl domid domU-web"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Reboot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Outcome != "warm" || r.DomidAfter != domid+1 {
		t.Errorf("%+v, want a warm reboot, and one only after domain %d", r, domid)
	}
	if now := b.dom0(t, "xl domid domU-web"); now != strconv.Itoa(domid+1) {
		t.Errorf("the domain is %s by now", now)
	}
	if text := b.domU(t, "dmesg | grep 'EXT4-fs error' || true"); text != "" {
		t.Errorf("the guest's kernel complains:\n%s", text)
	}
	if mounted := b.domU(t, "grep ' "+spareRoot+" ' /proc/mounts"); !strings.Contains(mounted, " rw,") || !strings.Contains(mounted, "errors="+onError) {
		t.Errorf("mounted is %q", mounted)
	}
	b.domU(t, "touch "+spareRoot+"/still-writable && sync")
	if n := b.warmcache(t, "refused/no_mount"); n < files*pages/2 {
		t.Errorf("%d pages of the file system that is gone were given back, of %d: the test has not seen what it is about", n, files*pages)
	} else {
		t.Logf("%d pages of the file system that is gone were given back", n)
	}
}

// unmountedByCgroup has a memory cgroup read files, unmount them, and then need
// the memory. Nothing that the kernel does for the next boot may keep it.
func (b *bed) unmountedByCgroup(t *testing.T) {
	const group = "/tmp/cgroup/backup"
	b.domU(t, "dd if=/dev/urandom of="+spareRoot+"/big bs=1M count=50 2>/dev/null; busybox umount "+spareRoot)
	b.domU(t, "mkdir -p /tmp/cgroup && busybox mount -t cgroup2 none /tmp/cgroup && echo +memory >/tmp/cgroup/cgroup.subtree_control && mkdir "+group+" && echo 64M >"+group+"/memory.max")
	b.domU(t, "echo 'set -e; echo $$ >"+group+"/cgroup.procs; busybox mount -t ext4 /dev/xvdc "+spareRoot+"; cat "+spareRoot+
		"/big >/dev/null; busybox umount "+spareRoot+"; perl -e \"\\$x = chr(65) x (16 << 20); print length \\$x\"' >/tmp/backup.sh")
	output, err := b.DomU().Shell(t.Context(), "sh /tmp/backup.sh")
	if err != nil || output != strconv.Itoa(16<<20) {
		t.Errorf("16 MiB after the unmount: %q, %v", output, err)
	}
	events := b.domU(t, "cat "+group+"/memory.events; echo current $(cat "+group+"/memory.current)")
	if !strings.Contains(events, "oom_kill 0") {
		t.Errorf("events of the cgroup are\n%s", events)
	}
	t.Logf("%s", strings.ReplaceAll(events, "\n", ", "))
	b.domU(t, "busybox mount -t ext4 /dev/xvdc "+spareRoot)
}

// writtenToWhileRestored has a file come back of which a part is dirty. The kernel
// may look where the file is, but it is not to write it out for that.
func (b *bed) writtenToWhileRestored(t *testing.T) {
	const fileMiB, dirtyMiB = 100, 20
	file := spareRoot + "/big"
	b.domU(t, fmt.Sprintf("dd if=/dev/urandom of=%s bs=1M count=%d 2>/dev/null; sync", file, fileMiB))
	// The kernel's own writeback is not to come in between. An interval of 0 is no way to
	// have that: the flusher is then woken by the first inode that is dirty, at once, and
	// writes out what it finds when it gets to run. For a disk's part of the background
	// limit is what the disk has done of the writes since boot, which here is nothing.
	b.atBoot(t, "echo 360000 >/proc/sys/vm/dirty_writeback_centisecs; echo 360000 >/proc/sys/vm/dirty_expire_centisecs; echo 300000000 >/proc/sys/vm/dirty_bytes; echo 200000000 >/proc/sys/vm/dirty_background_bytes")
	domid := b.dom0(t, "xl domid domU-web")
	b.dom0(t, "xl reboot domU-web")
	b.awaitNewDomid(t, domid)
	b.awaitDomU(t)
	await(t, "something is restored", func() bool { return b.warmcache(t, "restored") > 0 })
	// The restore of the file begins with the mount, so the watch begins before it. What
	// mke2fs has left of the inode tables would be written within some seconds of the
	// mount, by ext4 itself.
	result := strings.Fields(b.domU(t, fmt.Sprintf(`writes() { awk '{ print $7 }' /sys/block/xvdc/stat; }
dirty() { awk '/^Dirty:/ { print $2 }' /proc/meminfo; }
writes
busybox mount -t ext4 -o noatime,noinit_itable,commit=3600 /dev/xvdc %s
dd if=/dev/zero of=%s bs=1M count=%d conv=notrunc 2>/dev/null
echo $(cat /sys/hypervisor/warmcache/restored) $(dirty)
for i in $(seq 60); do [ $(cat /sys/hypervisor/warmcache/done) = 1 ] && break; sleep 1; done
echo $(cat /sys/hypervisor/warmcache/restored) $(writes) $(dirty)`, spareRoot, file, dirtyMiB)))
	if len(result) != 6 {
		t.Fatalf("%q", result)
	}
	var n [6]int64
	for i, word := range result {
		var err error
		if n[i], err = strconv.ParseInt(word, 10, 64); err != nil {
			t.Fatalf("%q", result)
		}
	}
	written, dirty := (n[4]-n[0])*512, n[5]
	t.Logf("restored %d pages when written to, then %d; %d KiB dirty, then %d; %d bytes written since before the mount", n[1], n[3], n[2], dirty, written)
	// The root's and the XFS's files come back without xvdc as well.
	if refused := b.warmcache(t, "refused/no_mount"); refused > fileMiB<<20/4096/2 {
		t.Errorf("%d pages had no mount: the file has not come back", refused)
	}
	if dirty < dirtyMiB<<10*9/10 {
		t.Errorf("%d KiB are dirty after the restore, of %d MiB: it has written them out", dirty, dirtyMiB)
	}
	if written > 1<<20 {
		t.Errorf("%d bytes were written to the disk from before the mount until the restore's end", written)
	}
	b.domU(t, "sync")
}

// mountHangs boots with a mount that does not end, as its disk does not answer.
// The other disks come back, and the deadline is kept.
func (b *bed) mountHangs(t *testing.T) {
	// What is known of xvdc cannot come back: it is mounted by way of the mapper.
	b.domU(t, fmt.Sprintf("grep -q ' %s ' /proc/mounts || { mke2fs -q -F -t ext4 /dev/xvdc && busybox mount -t ext4 /dev/xvdc %[1]s; }; dd if=/dev/urandom of=%[1]s/big bs=1M count=50 2>/dev/null; sync; cat %[1]s/big >/dev/null", spareRoot))
	b.atBoot(t, `dmsetup create --noudevrules --noudevsync hung --table "0 $(cat /sys/block/xvdc/size) linear /dev/xvdc 0" && dmsetup suspend --nolockfs --noudevsync hung && { /bin/busybox mount -t ext4 /dev/dm-0 `+spareRoot+` & }`)
	b.domU(t, "cat /srv/img/* >/dev/null; sync")
	domid := b.dom0(t, "xl domid domU-web")
	b.dom0(t, "xl reboot domU-web")
	b.awaitNewDomid(t, domid)
	b.awaitDomU(t)
	hangs := func() {
		t.Helper()
		b.domU(t, "dmsetup info hung | grep SUSPENDED && busybox ps | grep 'mount -t ext4 [/]dev/dm-0'")
	}
	hangs()
	// By the guest's clock, as its deadline is.
	state := strings.Fields(b.domU(t, fmt.Sprintf(`while [ $(cut -d. -f1 /proc/uptime) -lt %d ] && [ $(cat /sys/hypervisor/warmcache/done) = 0 ]; do sleep 1; done
echo $(cat /sys/hypervisor/warmcache/done) $(cat /sys/hypervisor/warmcache/restored) $(cat /sys/hypervisor/warmcache/refused/no_mount) $(cut -d. -f1 /proc/uptime)`, deadlineSeconds+15)))
	t.Logf("done, restored, without a mount, uptime: %v", state)
	if len(state) != 4 || state[0] != "1" {
		t.Errorf("%d s after boot, with a deadline of %d, pages are still held", deadlineSeconds+15, deadlineSeconds)
	}
	hangs()
	before := b.sectors(t, "xvdb")
	b.domU(t, "cat /srv/img/* >/dev/null")
	if read := b.sectors(t, "xvdb") - before; read > 1000 {
		t.Errorf("%d sectors of the XFS on xvdb were read after the reboot", read)
	}
	b.domU(t, "dmsetup resume --noudevsync hung")
	await(t, "the mount ends", func() bool {
		return b.domU(t, "grep -c ' "+spareRoot+" ' /proc/mounts || true") == "1"
	})
}
