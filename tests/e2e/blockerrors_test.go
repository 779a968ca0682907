package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
)

// faultyPages is the size of a file, the second half of which a disk fails for.
const faultyPages = 64

// faultyImage is what that disk is made of. It is looked at as a file: dom0's cache
// of the loop device does not see what the device mapper writes to it.
const faultyImage = "/srv/faulty.raw"

// blockError is what becomes of a disk's second half of a file while the guest
// uses it.
type blockError struct {
	name   string
	target string // of the device mapper; %s is the device and the offset there
	// act is what the guest does meanwhile to the file $1: it may fail.
	act string
	// lies is whether the disk says that it has written what it hasn't.
	lies bool
}

var blockErrors = []blockError{
	{"reads fail", "error", "cat $1", false},
	{"writes fail", "flakey %s 0 1 1 error_writes", "dd if=/tmp/mark of=$1 bs=4096 count=64 conv=notrunc,fsync", false},
	{"direct writes fail", "flakey %s 0 1 1 error_writes", "dd if=/tmp/mark of=$1 bs=64k count=4 oflag=direct conv=notrunc", false},
	{"all fails", "error", "dd if=/tmp/mark of=$1 bs=4096 count=64 conv=notrunc,fsync; cat $1", false},
	{"writes are dropped", "flakey %s 0 1 1 drop_writes", "dd if=/tmp/mark of=$1 bs=4096 count=64 conv=notrunc,fsync", true},
	{"writes are corrupted", "flakey %s 0 1 5 corrupt_bio_byte 5 w 170 0", "dd if=/tmp/mark of=$1 bs=4096 count=64 conv=notrunc,fsync", true},
}

// TestBlockErrors: a request fails for some of its pages, or for all, and what
// the guest has in its cache is not what the disk has. None of that comes back.
// Where the disk lies, Xen can't know; then the comparison with the disk does.
func TestBlockErrors(t *testing.T) {
	t.Parallel()
	b := boot(t, lab.Variant{Unthrottled: true})
	// A file of its own for each case, on a disk that is made of two.
	b.dom0(t, fmt.Sprintf("mkdir /tmp/files && for i in $(seq 0 %d); do head -c %d /dev/urandom >/tmp/files/$i; done; "+
		"mke2fs -q -t ext4 -b 4096 -d /tmp/files -F "+faultyImage+" 24M && rm -r /tmp/files", len(blockErrors)-1, faultyPages*4096))
	b.dom0(t, "modprobe dm-mod; modprobe dm-flakey; losetup -f --show "+faultyImage+" >/tmp/faulty")
	f := faultyDisk{bed: b, loop: b.dom0(t, "cat /tmp/faulty")}
	f.sectors = f.number(t, "blockdev --getsz "+f.loop)
	f.dom0(t, fmt.Sprintf("export DM_DISABLE_UDEV=1; echo '0 %d linear %s 0' | dmsetup create faulty", f.sectors, f.loop))
	b.dom0(t, `sed 's|^disk.*|disk = [ "phy:/dev/vdb,xvda,w", "phy:/dev/mapper/faulty,xvdc,w" ]|' `+ordinaryConfig+" >/tmp/faulty.cfg")
	b.createEnabled(t, "/tmp/faulty.cfg")
	f.mount(t)

	for i, c := range blockErrors {
		complete := false
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			file := "/tmp/faulty/" + strconv.Itoa(i)
			content := "none"
			if c.lies {
				content = "full"
			}
			f.dom0(t, "warmreboot enable --content "+content+" domU-web")
			middle := f.number(t, fmt.Sprintf("debugfs -R 'bmap /%d %d' %s 2>/dev/null", i, faultyPages/2, faultyImage)) * 8
			if !strings.Contains(c.act, "cat") || strings.Contains(c.act, "dd") { // else it is to come from the disk
				f.domU(t, "cat "+file+" >/dev/null")
			}
			f.domU(t, fmt.Sprintf("seq -f 'mark of case %d %%08g' 20000 >/tmp/mark", i))
			f.become(t, middle, c.target)
			f.domU(t, "set -- "+file+"; { "+c.act+"; } >/tmp/acted 2>&1 || :")
			f.become(t, 0, "")
			mismatches, err := f.Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if (mismatches != 0) != c.lies {
				t.Errorf("%d pages differ from their blocks", mismatches)
			}
			f.destroy(t)
			want := f.dom0(t, fmt.Sprintf("debugfs -R 'cat /%d' %s 2>/dev/null | sha256sum", i, faultyImage))
			f.dom0(t, "xl create /tmp/faulty.cfg")
			f.awaitDomU(t)
			f.mount(t)
			status, err := f.Status(t.Context(), "--wait")
			if err != nil || status.Last == nil || status.Last.Outcome != "warm" {
				t.Fatalf("%+v, %v", status, err)
			}
			for _, v := range status.Last.VBDs {
				if v.Name == "xvdc" && (v.Verdict == "refused") != c.lies {
					t.Errorf("the disk's pages: %+v", v)
				}
			}
			if got := f.domU(t, "sha256sum <"+file); got != want {
				t.Errorf("the guest reads %s, the disk has %s", got, want)
			}
			f.check(t)
			complete = true
		})
		if t.Failed() && !complete {
			return // what comes next would start from something unknown
		}
	}
}

// faultyDisk is the domU's xvdc, and how dom0 makes it fail.
type faultyDisk struct {
	*bed
	loop    string
	sectors int64
}

func (f faultyDisk) mount(t *testing.T) {
	t.Helper()
	f.domU(t, "mkdir -p /tmp/faulty && busybox mount -t ext4 /dev/xvdc /tmp/faulty")
}

// become has the half of a file that begins at a sector be of another target, or
// the whole disk be as it should be, if that is "".
func (f faultyDisk) become(t *testing.T, first int64, target string) {
	t.Helper()
	table := fmt.Sprintf("0 %d linear %s 0\n", f.sectors, f.loop)
	if target != "" {
		end := first + faultyPages/2*8
		if strings.Contains(target, "%s") {
			target = fmt.Sprintf(target, fmt.Sprintf("%s %d", f.loop, first))
		}
		table = fmt.Sprintf("0 %[2]d linear %[1]s 0\n%[2]d %[3]d %[4]s\n%[5]d %[6]d linear %[1]s %[5]d\n",
			f.loop, first, end-first, target, end, f.sectors-end)
	}
	f.dom0(t, "export DM_DISABLE_UDEV=1; dmsetup suspend faulty && dmsetup load faulty <<'END' && dmsetup resume faulty\n"+table+"END\n")
}
