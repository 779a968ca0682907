package disk

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk/storetest"
)

// cloner is one for a host whose domain 3 has a disk: a device, or a file if the minor
// number of its loop device is named.
func cloner(t *testing.T, device, mode, file string) Cloner {
	t.Helper()
	s := sysfs(t, map[string]string{
		"dev/block/254:16/uevent":                                "DEVNAME=vdb\n",
		"dev/block/254:16/size":                                  "2048\n",
		"dev/block/7:0/uevent":                                   "DEVNAME=loop0\n",
		"dev/block/7:0/size":                                     "256\n",
		"dev/block/7:1/uevent":                                   "DEVNAME=loop1\n",
		"dev/block/7:1/size":                                     "256\n",
		"dev/block/7:0/loop/backing_file":                        file + "\n",
		"dev/block/7:1/loop/backing_file":                        file + "\n",
		"bus/xen-backend/devices/vbd-3-51712/statistics/rd_sect": "4096\n",
		"bus/xen-backend/devices/vbd-3-51712/statistics/wr_sect": "8\n",
	})
	s.loopStatus = func(path string) (*unix.LoopInfo64, error) {
		info := identify(t, file)
		if filepath.Base(path) == "loop1" {
			info.Offset = 512
		}
		return &info, nil
	}
	return Cloner{System: s, Store: storetest.New(map[string]string{
		"/local/domain/0/backend/vbd/3/51712/params":          "x",
		"/local/domain/0/backend/vbd/3/51712/physical-device": device,
		"/local/domain/0/backend/vbd/3/51712/mode":            mode,
		"/local/domain/0/backend/vbd/3/51712/state":           "4",
		"/local/domain/3/data/boot-complete":                  "1",
		"/local/domain/4/data/boot-complete":                  "",
		"/local/domain/0/backend/vbd/5/51712/params":          "x",
		"/local/domain/0/backend/vbd/5/51712/state":           "2",
	})}
}

// TestSources: what can be cloned is what can be cloned as it is at one moment; why
// anything else cannot is said. The file system of this machine's temporary files is
// asked, whichever it is.
func TestSources(t *testing.T) {
	dir := t.TempDir()
	img := filepath.Join(dir, "web.img")
	content := bytes.Repeat([]byte("web "), 32<<10)
	if err := os.WriteFile(img, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ device, mode, says string }{
		"a device that is written to": {"fe:10", "w", "the device /dev/vdb"},
		"a part of a file":            {"7:1", "w", "byte 512"},
		"one that is not there yet":   {"", "w", "not attached"},
	} {
		if all, err := cloner(t, c.device, c.mode, img).Sources(t.Context(), 3); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v", what, all, err)
		}
	}
	all, err := cloner(t, "fe:10", "r", img).Sources(t.Context(), 3)
	if err != nil || len(all) != 1 || !all[0].Shared || !all[0].ReadOnly || all[0].Path != "/dev/vdb" {
		t.Errorf("a device that is read only: %+v, %v", all, err)
	}
	c := cloner(t, "7:0", "w", img)
	all, err = c.Sources(t.Context(), 3)
	left, _ := os.ReadDir(dir)
	if len(left) != 1 {
		t.Errorf("looking has left %v", left)
	}
	if err != nil {
		if !strings.Contains(err.Error(), "xvda") || !strings.Contains(err.Error(), "XFS and btrfs") {
			t.Errorf("%v", err)
		}
		t.Logf("this file system shares no blocks, so that only the lab clones a file: %v", err)
		return
	}
	to := filepath.Join(dir, "clone")
	if err := c.Clone(all[0], to); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(to); err != nil || !bytes.Equal(raw, content) {
		t.Errorf("the clone has something else: %v", err)
	}
	if err := c.Clone(all[0], to); err == nil {
		t.Error("somebody's file was overwritten")
	}
}

// TestCloneReplaced: a file that has taken the place of the one that is attached is not
// what the guest has.
func TestCloneReplaced(t *testing.T) {
	img := filepath.Join(t.TempDir(), "web.img")
	if err := os.WriteFile(img, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	c := cloner(t, "7:0", "w", img)
	attached := identify(t, img)
	c.System.loopStatus = func(string) (*unix.LoopInfo64, error) { return &attached, nil }
	if err := os.Rename(img, img+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(img, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := c.Sources(t.Context(), 3); err == nil || !strings.Contains(err.Error(), "not the file that is attached") {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestTraffic(t *testing.T) {
	c := cloner(t, "fe:10", "w", "")
	got, err := c.Traffic(t.Context(), 3)
	if err != nil || len(got.Apart) != 0 || got.Read != 4096*512 || got.Written != 8*512 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := c.Traffic(t.Context(), 5); err != nil || len(got.Apart) != 1 || got.Apart[0] != "xvda" {
		t.Errorf("one that is not connected: %+v, %v", got, err)
	}
	if got, err := c.Traffic(t.Context(), 6); err != nil || len(got.Apart) == 0 {
		t.Errorf("one without disks: %+v, %v", got, err)
	}
	for domid, want := range map[uint16]bool{3: true, 4: false, 5: false} {
		if got, err := c.BootComplete(t.Context(), 0); err != nil || got {
			t.Error(err)
		}
		if got, err := c.BootComplete(t.Context(), ident.Domid(domid)); err != nil || got != want {
			t.Errorf("domain %d says that it has booted: %v, %v", domid, got, err)
		}
	}
}

// TestRoom: what is counted is what nobody shares; and a file that is not there yet takes
// no room.
func TestRoom(t *testing.T) {
	dir := t.TempDir()
	own, free, err := Cloner{}.RoomOf(filepath.Join(dir, "none"))
	if err != nil || own != 0 || free <= 0 {
		t.Errorf("%d, %d, %v", own, free, err)
	}
	path := filepath.Join(dir, "a")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	own, _, err = Cloner{}.RoomOf(path)
	if err != nil { // of file systems without extents, as tmpfs
		t.Logf("this file system does not tell: %v", err)
	} else if own != 1<<20 {
		t.Errorf("a file of 1 MiB takes %d", own)
	}
	type extent struct {
		at, length uint64
		flags      uint32
	}
	for _, c := range []struct {
		all  []extent
		own  int64
		next uint64
		last bool
	}{
		{nil, 0, 0, true},
		{[]extent{{0, 4096, fiemapShared}, {8192, 512, 0}}, 512, 8704, false},
		{[]extent{{0, 4096, 4}, {4096, 4096, fiemapShared | fiemapLast}}, 4096, 8192, true},
	} {
		buf := make([]byte, fiemapHeader+fiemapExtents*fiemapExtent)
		binary.NativeEndian.PutUint32(buf[20:], uint32(len(c.all)))
		for i, e := range c.all {
			b := buf[fiemapHeader+i*fiemapExtent:]
			binary.NativeEndian.PutUint64(b, e.at)
			binary.NativeEndian.PutUint64(b[16:], e.length)
			binary.NativeEndian.PutUint32(b[40:], e.flags)
		}
		if own, next, last := parseExtents(buf); own != c.own || next != c.next || last != c.last {
			t.Errorf("%+v: %d, %d, %v", c.all, own, next, last)
		}
	}
}

func TestRemoveClone(t *testing.T) {
	path := filepath.Join(t.TempDir(), ".warmreboot-trial-1-xvda")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// The loop device is another file's, or has been detached meanwhile.
	c := Cloner{System: sysfs(t, map[string]string{"block/loop0/loop/backing_file": "/srv/web.img\n"})}
	for range 2 {
		if err := c.Remove(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it is there still")
	}
	// One that is left is detached: the device is asked.
	c = Cloner{System: sysfs(t, map[string]string{"block/loop0/loop/backing_file": path + "\n"})}
	c.System.Dev = t.TempDir()
	if err := c.Remove(path); err == nil || !strings.Contains(err.Error(), "loop0") {
		t.Errorf("%v", err)
	}
}
