package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// blkpg adds or removes partition 1 of a disk in the kernel's mind only: nothing
// is written to the disk.
const blkpg = `python3 -c '
import ctypes, fcntl, sys
class Partition(ctypes.Structure):
    _fields_ = [("start", ctypes.c_longlong), ("length", ctypes.c_longlong), ("number", ctypes.c_int),
                ("devname", ctypes.c_char * 64), ("volname", ctypes.c_char * 64)]
class Argument(ctypes.Structure):
    _fields_ = [("op", ctypes.c_int), ("flags", ctypes.c_int), ("datalen", ctypes.c_int), ("data", ctypes.c_void_p)]
p = Partition(0, 800 << 20, 1, b"", b"")
fcntl.ioctl(open("/dev/vdb"), 0x1269, Argument(int(sys.argv[1]), 0, ctypes.sizeof(p), ctypes.addressof(p)))' `

// besides are ways to write to a disk while the guest uses it: %[1]s is what to
// put there, as a file of a page, and %[2]d the page of the disk or of the image.
// With worker it is a worker of dom0's kernel that writes, which might do so for
// the guest: it is the counters that tell, two seconds after the last drop.
var besides = []struct {
	name, disk, line, says string
	worker                 bool
}{
	{"dd", "xvda", "dd if=%[1]s of=/dev/vdb bs=4096 seek=%[2]d conv=notrunc oflag=direct", "", false},
	{"buffered dd", "xvda", "dd if=%[1]s of=/dev/vdb bs=4096 seek=%[2]d conv=notrunc,fsync", "", false},
	{"blkdiscard", "xvda", "cp %[1]s /dev/null; blkdiscard -z -o $((%[2]d * 4096)) -l 4096 /dev/vdb", "", false},
	{"through a partition that is new", "xvda",
		blkpg + "1; dd if=%[1]s of=/dev/vdb1 bs=4096 seek=%[2]d conv=notrunc oflag=direct; " + blkpg + "2", "", false},
	{"through a loop device on top", "xvda",
		"l=$(losetup -f --show /dev/vdb); dd if=%[1]s of=$l bs=4096 seek=%[2]d conv=notrunc,fsync; losetup -d $l", "", true},
	{"through the device mapper", "xvda",
		"modprobe dm-mod; export DM_DISABLE_UDEV=1; echo \"0 $(blockdev --getsz /dev/vdb) linear /dev/vdb 0\" | dmsetup create beside; " +
			"dd if=%[1]s of=/dev/mapper/beside bs=4096 seek=%[2]d conv=notrunc oflag=direct; dmsetup remove beside", "", false},
	{"by another backend", "xvda", // the toolstack's own script would refuse to share the disk
		`printf '#!/bin/sh\n[ $1 != add ] || xenstore-write $XENBUS_PATH/physical-device '$(stat -c %%t:%%T /dev/vdb)' $XENBUS_PATH/hotplug-status connected\n' >/tmp/share; ` +
			"chmod +x /tmp/share; modprobe xen-blkfront; xl block-attach 0 vdev=xvdz,format=raw,access=rw,script=/tmp/share,target=/dev/vdb; " +
			"n=0; until [ -b /dev/xvdz ] || [ $n -gt 100 ]; do sleep 0.1; n=$((n + 1)); done; " +
			"dd if=%[1]s of=/dev/xvdz bs=4096 seek=%[2]d conv=notrunc oflag=direct; xl block-detach 0 xvdz", "", false},
	{"to the image's loop device", "xvdb",
		"dd if=%[1]s of=$(losetup -nO NAME -j " + imageFile + " | head -n 1) bs=4096 seek=%[2]d conv=notrunc oflag=direct", "", false},
	{"to the image, past its loop device", "xvdb", "dd if=%[1]s of=" + imageFile + " bs=4096 seek=%[2]d conv=notrunc", "opened for writing, past the guest", false},
}

// TestDiskChangedWhileRunning: what somebody else writes while the guest runs is
// noticed at once, whichever way it takes, and what was known of that disk is
// forgotten. After the next reboot, which is warm, the guest reads what was
// written.
func TestDiskChangedWhileRunning(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.load(t)
	s.quiet(t)
	wrote := map[string]string{}
	for i, c := range besides {
		ok := t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			page, file, first := i+1, fileOnExt4, s.block // page 0 is left alone
			if c.disk == "xvdb" {
				file, first = fileOnXFS, s.offset
			}
			// Have the page in the guest's cache, as it is known after the last drop.
			s.domU(t, fmt.Sprintf("echo 1 >/proc/sys/vm/drop_caches; dd if=%s of=/dev/null bs=4096 skip=%d count=1 2>/dev/null", file, page))
			mark := fmt.Sprintf("mark of way %02d", i)
			s.dom0(t, fmt.Sprintf("{ printf '%s'; head -c %d /dev/zero; } >/tmp/page", mark, 4096-len(mark)))
			if c.name == "blkdiscard" {
				mark = strings.Repeat("0", len(mark))
			}
			if c.worker {
				s.quiet(t)
			}
			was := s.status(t)
			s.dom0(t, "set -e; { "+fmt.Sprintf(c.line, "/tmp/page", first+int64(page))+"; } >/tmp/way 2>&1 || { cat /tmp/way; exit 1; }")
			now := was
			await(t, "the write is noticed", func() bool {
				now = s.status(t)
				return now.refused(c.disk, "written") != was.refused(c.disk, "written")
			})
			other := map[string]string{"xvda": "xvdb", "xvdb": "xvda"}[c.disk]
			if now.refused(other, "written") != was.refused(other, "written") {
				t.Errorf("the other disk was dropped too: %+v", now.Refusals)
			}
			if text := s.dom0(t, "grep 'behind the guest' /var/log/warmrebootd.log | tail -n 1"); !strings.Contains(text, "reason=written") || !strings.Contains(text, c.says) {
				t.Errorf("the log does not say why: %s", text)
			} else {
				t.Log(text)
			}
			wrote[fmt.Sprintf("%s %d", file, page)] = mark
		})
		if !ok {
			return
		}
	}
	if s.status(t).refused("xvda", "written") < 7 {
		t.Error("status does not count them all")
	}
	s.quiet(t)
	t.Run("read-only", func(t *testing.T) {
		s.dom0(t, "cat "+imageFile+" >/dev/null")
		s.load(t)
		reboot, err := s.Reboot(t.Context(), "--force")
		if err != nil {
			t.Fatalf("%+v, %v", reboot, err)
		}
		s.awaitDomU(t)
		last := s.status(t).Last
		a, b := last.vbd(t, "xvda"), last.vbd(t, "xvdb")
		if a.Verdict != "approved" || a.Held == 0 || b.Verdict != "approved" || b.Custody != "uncertain" || b.Checked != b.Held || !strings.Contains(b.Note, "was opened by") {
			t.Errorf("xvda: %+v\nxvdb, which somebody has read: %+v", a, b)
		}
		for where, mark := range wrote {
			var file string
			var page int
			if _, err := fmt.Sscan(where, &file, &page); err != nil {
				t.Fatal(err)
			}
			s.begins(t, file, page, mark)
		}
		s.check(t)
	})
	t.Run("swapped", func(t *testing.T) {
		s.dom0(t, "cp --sparse=always "+imageFile+" /srv/another.raw; "+put("another disk", "/srv/another.raw", s.offset, ""))
		was := s.status(t).refused("xvdb", "swapped")
		s.load(t)
		s.domU(t, "busybox umount /srv/img")
		s.dom0(t, "xl block-detach domU-web xvdb && xl block-attach domU-web file:/srv/another.raw,xvdb,w")
		s.domU(t, "until [ -b /dev/xvdb ]; do sleep 0.1; done; busybox mount -t xfs /dev/xvdb /srv/img && cat /srv/img/* >/dev/null")
		await(t, "the swap is noticed", func() bool { return s.status(t).refused("xvdb", "swapped") != was })
		if _, err := s.Reboot(t.Context(), "--force"); err != nil {
			t.Fatal(err)
		}
		s.awaitDomU(t)
		s.begins(t, fileOnXFS, 0, "another disk")
		s.check(t)
		t.Logf("%+v", s.status(t).Last.vbd(t, "xvdb"))
	})
}

// quiet waits until the guest has nothing more to write.
func (s *scene) quiet(t *testing.T) {
	t.Helper()
	s.domU(t, "sync; sleep 3; sync")
}
