package e2e

import (
	"embed"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/demo"
)

var (
	cutFrom  = flag.Int("cut-from", 15, "TestPowerCuts: how many writes each disk gets before the first power cut")
	cutStep  = flag.Int("cut-step", 30, "TestPowerCuts: how many more before each further one")
	trusting = flag.Bool("trusting", false, "TestPowerCuts: with the Xen that trusts the guest, where the guest has to see what is not on the disks")
)

// cutModule is a module that cuts disks off after so many writes.
//
//go:embed cut
var cutModule embed.FS

// crashDisk is a disk of the domU that is cut off.
type crashDisk struct {
	name    string // xvdX
	mkfs    string // %s is the image
	options string // of mount
}

var crashDisks = []crashDisk{
	{"xvdc", "mke2fs -q -t ext4 -b 4096 -J size=4 -F %s 24M", "-t ext4 -o data=ordered"},
	{"xvdd", "mke2fs -q -t ext4 -b 4096 -J size=4 -F %s 24M", "-t ext4 -o data=writeback"},
	{"xvde", "mke2fs -q -t ext4 -b 4096 -J size=4 -F %s 24M", "-t ext4 -o data=journal"},
	{"xvdf", "truncate -s 304M %[1]s && mkfs.xfs -q -f -l size=64M %[1]s", "-t xfs -o nouuid"},
}

// prelude makes the files of a folder anew, so that they are on the disk and in
// the page cache: most of them because they were read, some because they were
// written. $1 is the folder, $2 a number that decides what is in them, $3 the
// disk that is mounted there, and the rest are mount's options.
const prelude = `
set -e
cd "$1"
rm -rf ./*
mkdir old new
write() { for f in "$@"; do seq -f "$number $f %08g" 3000 >"old/$f"; done; sync -f .; }
folder=$1 number=$2 disk=$3
shift 3
write a b c d e g h i s1 s2 s3 s4 s5 s6
cd /
busybox umount "$folder"
busybox mount "$@" "$disk" "$folder"
cd "$folder"
cat old/* >/dev/null
write k l
`

// fileOperations are done with the folder $1, and end early when its disk is cut
// off. $2 is the number of the prelude. Before each of them something else is
// overwritten in the page cache alone: without that the page cache has next to
// nothing at any moment that the disk does not have, or is just getting.
const fileOperations = `
cd "$1"
text() { seq -f "$2 again $1 %08g" "$3"; }
scribble() { text "$1" "$2" 200 | dd of=old/"$1" bs=4096 seek=1 conv=notrunc status=none; }
scribble s1 "$2"
text a "$2" 1000 | dd of=old/a bs=4096 seek=2 conv=notrunc,fsync status=none
scribble s2 "$2"
text b "$2" 1000 | dd of=old/b bs=5000 oflag=append conv=notrunc,fsync status=none
scribble s3 "$2"
text c "$2" 3000 | dd of=new/c conv=fsync status=none
mv new/c old/c
truncate -s 5000 old/d
truncate -s 30000 old/d
sync -f .
scribble s4 "$2"
rm old/e
text f "$2" 3000 | dd of=new/f conv=fsync status=none
fallocate -p -o 4096 -l 8192 old/g
sync -f .
scribble s5 "$2"
text g "$2" 200 | dd of=old/g bs=4096 seek=1 conv=notrunc status=none
mv old/h new/h
ln new/h old/link
ln -s ../new/h old/symlink
sync -f .
scribble s6 "$2"
text i "$2" 1000 | dd of=/tmp/direct"$2".$$ status=none
dd if=/tmp/direct"$2".$$ of=old/i bs=4096 count=4 seek=3 oflag=direct conv=notrunc status=none
rm -r new
mkdir new
for n in 1 2 3; do text small$n "$2" 100 >new/small$n; done
sync -f .
`

// manifest prints all there is to see of a folder.
const manifest = `
cd "$1" && find . -path ./lost+found -prune -o -printf '%p %i %y %s %n %T@ %l\n' | sort && find . -type f -print0 | sort -z | xargs -0r sha256sum
`

// TestPowerCuts cuts the power of a guest, for each of four file systems, after
// every so many writes of some file operations. Afterwards the guest has to
// see, with the page cache it gets back, what dom0 sees on a copy of the disk.
// dom0's kernel is Debian's, of the same version. With a Xen that trusts the guest
// it has to see something else, or the comparison would see nothing.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	b := boot(t, lab.Variant{Unthrottled: true, TrustingXen: *trusting})
	cache, checkout, _, tools := patchedXen(t)
	series, err := checkout.GuestKernel(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	source, err := fs.Sub(cutModule, "cut")
	if err != nil {
		t.Fatal(err)
	}
	module, err := cache.Module(t.Context(), tools, series, checkout.GuestConfig(), "cut", source)
	if err != nil {
		t.Fatal(err)
	}

	if err := b.Machine.Dom0().PutBytes(t.Context(), []byte(manifest), "/tmp/manifest"); err != nil {
		t.Fatal(err)
	}

	c := &cutter{bed: b, module: module, read: make(map[string]int64), differ: make(map[string]int)}
	c.format(t)
	var disks []string
	for _, d := range crashDisks {
		disks = append(disks, fmt.Sprintf(`"file:%s,%s,w"`, d.image(), d.name))
	}
	b.dom0(t, `sed 's|^disk.*|disk = [ "phy:/dev/vdb,xvda,w", `+strings.Join(disks, ", ")+` ]|' `+ordinaryConfig+" >"+cutConfig)
	// Without the comparison in dom0, which would hide what gets past Xen.
	b.createEnabled(t, cutConfig, "--content", "none")
	c.bring(t)

	points := 0
	for allowed := *cutFrom; ; allowed += *cutStep {
		cut := c.operate(t, allowed)
		c.compare(t, allowed)
		if t.Failed() {
			return // the disks' contents are of use to who looks at this
		}
		points += cut
		if cut == 0 { // all had more than they wanted
			break
		}
		if *trusting { // what the guest sees may be what it writes
			c.destroy(t)
			c.format(t)
			c.dom0(t, "xl create "+cutConfig)
			c.comeBack(t)
		}
	}
	if *trusting {
		t.Logf("%d power cuts; differences on %v", points, c.differ)
		if len(c.differ) == 0 {
			t.Error("the guest saw no difference: the test sees nothing")
		}
		return
	}
	t.Logf("%d power cuts; sectors read afterwards to see what is there: %v; %d bytes were in the files", points, c.read, c.bytes)
	for _, d := range crashDisks {
		if c.read[d.name]*512*4 > c.bytes/int64(len(crashDisks))*3 {
			t.Errorf("%s: %d sectors were read: the page cache did not come back, and the test sees nothing", d.name, c.read[d.name])
		}
	}
}

const cutConfig = "/tmp/cut.cfg"

func (d crashDisk) image() string { return "/srv/" + d.name + ".raw" }

// cutter does one power cut after another.
type cutter struct {
	*bed
	module string
	round  int
	// read is how many sectors of each disk were read to see what is there.
	read map[string]int64
	// bytes is how much there was in the files of all disks together.
	bytes int64
	// differ is after how many power cuts each disk looked different.
	differ map[string]int
}

// format makes the file systems.
func (c *cutter) format(t *testing.T) {
	t.Helper()
	for _, d := range crashDisks {
		c.awaitDetached(t, d)
		c.dom0(t, fmt.Sprintf(d.mkfs, d.image()))
	}
}

// awaitDetached waits until the domU has let go of a disk.
func (c *cutter) awaitDetached(t *testing.T, d crashDisk) {
	t.Helper()
	c.dom0(t, fmt.Sprintf("until [ -z \"$(losetup -j %s)\" ]; do sleep 0.1; done", d.image()))
}

// bring puts into the domU, which has just booted, what it is to run.
func (c *cutter) bring(t *testing.T) {
	t.Helper()
	for _, d := range crashDisks {
		c.domU(t, fmt.Sprintf("mkdir -p /tmp/%[1]s && busybox mount %[2]s /dev/%[1]s /tmp/%[1]s", d.name, d.options))
	}
	for path, script := range map[string]string{"/tmp/prelude": prelude, "/tmp/operations": fileOperations, "/tmp/manifest": manifest} {
		if err := c.DomU().PutBytes(t.Context(), []byte(script), path); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.DomU().Put(t.Context(), c.module, "/tmp/cut.ko", 0o644); err != nil {
		t.Fatal(err)
	}
}

// comeBack waits for the domU to be back from a reboot, with its disks mounted.
func (c *cutter) comeBack(t *testing.T) (last demo.Reboot) {
	t.Helper()
	c.awaitDomU(t)
	c.bring(t)
	status, err := c.Status(t.Context(), "--wait")
	if err != nil || status.Last == nil || status.Last.Outcome != "warm" {
		t.Fatalf("%+v, %v", status, err)
	}
	return *status.Last
}

// invariant is dom0's comparison of the pages with the disks.
func (c *cutter) invariant(t *testing.T) {
	t.Helper()
	if !*trusting {
		c.check(t)
		return
	}
	mismatches, err := c.Check(t.Context())
	t.Logf("%d pages, also of the domU's own disk, differ from their blocks (%v)", mismatches, err)
}

// operate has the guest do the file operations on all disks, each of which is
// cut off after so many writes, and ends it. It returns how many have been.
func (c *cutter) operate(t *testing.T, allowed int) (cut int) {
	t.Helper()
	c.round++
	var disks, writes []string
	start := ""
	for _, d := range crashDisks {
		c.domU(t, fmt.Sprintf("sh /tmp/prelude /tmp/%[1]s %[2]d /dev/%[1]s %[3]s", d.name, c.round, d.options))
		disks, writes = append(disks, "/dev/"+d.name), append(writes, strconv.Itoa(allowed))
		start += fmt.Sprintf("{ sh /tmp/operations /tmp/%[1]s %[2]d; touch /tmp/%[1]s.ended; } >>/tmp/operations.log 2>&1 </dev/null & ", d.name, c.round)
	}
	// Each has done all of it, or is cut off.
	c.domU(t, fmt.Sprintf(`insmod /tmp/cut.ko disks=%s writes=%s; cat /sys/module/cut/parameters/writes; %s
		until i=1; for d in %s; do
			[ -e /tmp/$d.ended ] || [ $(cut -d, -f$i /sys/module/cut/parameters/writes) -lt 0 ] || break; i=$((i + 1))
		done; [ $i -gt %d ]; do sleep 0.2; done`,
		strings.Join(disks, ","), strings.Join(writes, ","), start, strings.Join(names(), " "), len(crashDisks)))
	left := c.domU(t, "cat /sys/module/cut/parameters/writes")
	for _, n := range strings.Split(left, ",") {
		if n == "-1" {
			cut++
		}
	}
	t.Logf("%d writes allowed, left: %s", allowed, left)
	c.invariant(t)
	c.destroy(t)
	return cut
}

func names() (all []string) {
	for _, d := range crashDisks {
		all = append(all, d.name)
	}
	return all
}

// compare copies the disks, has the guest come back, and compares what it sees
// on each with what dom0 sees on the copy.
func (c *cutter) compare(t *testing.T, allowed int) {
	t.Helper()
	for _, d := range crashDisks {
		c.awaitDetached(t, d)
		c.dom0(t, fmt.Sprintf("cp --sparse=always %[1]s %[1]s.copy", d.image()))
	}
	c.dom0(t, "xl create "+cutConfig)
	last := c.comeBack(t)
	for _, d := range crashDisks {
		before := c.sectors(t, d.name)
		warm, err := c.DomU().Shell(t.Context(), "sh /tmp/manifest /tmp/"+d.name)
		if exit := new(lab.ExitError); errors.As(err, &exit) {
			warm += "\n" + exit.Error()
		} else if err != nil {
			t.Fatal(err)
		}
		c.read[d.name] += c.sectors(t, d.name) - before
		cold := c.dom0(t, fmt.Sprintf("mount %s -o loop %s.copy /mnt && sh /tmp/manifest /mnt && du -sb /mnt | cut -f 1 >/tmp/bytes && umount /mnt", d.options, d.image()))
		switch {
		case warm == cold:
		case *trusting:
			c.differ[d.name]++
			t.Logf("%s, cut off after %d writes: the guest sees\n%s\nwhere the disk has\n%s", d.name, allowed, without(warm, cold), without(cold, warm))
		default:
			t.Errorf("%s, cut off after %d writes: the guest sees\n%s\nwhere the disk has\n%s", d.name, allowed, warm, cold)
		}
		c.bytes += c.number(t, "cat /tmp/bytes")
	}
	c.invariant(t)
	t.Logf("after %d writes: %d of %d pages restored", allowed, last.PagesRestored, last.PagesPreserved)
}

// without returns the lines of a that are not in b.
func without(a, b string) string {
	there := make(map[string]bool)
	for _, line := range strings.Split(b, "\n") {
		there[line] = true
	}
	var rest []string
	for _, line := range strings.Split(a, "\n") {
		if !there[line] {
			rest = append(rest, line)
		}
	}
	return strings.Join(rest, "\n")
}
