package disk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/internal/disk/storetest"
)

func TestBackends(t *testing.T) {
	s := storetest.New(map[string]string{
		"/local/domain/0/backend/vbd/3/51712/params":          "/dev/vdb",
		"/local/domain/0/backend/vbd/3/51712/physical-device": "fe:10",
		"/local/domain/0/backend/vbd/3/51712/mode":            "w",
		"/local/domain/0/backend/vbd/3/51712/dev":             "xvda",
		"/local/domain/0/backend/qdisk/3/51728/params":        "aio:/srv/a.img",
		"/local/domain/0/backend/qdisk/3/51728/mode":          "r",
		// What the guest says of its backend is not asked.
		"/local/domain/3/device/vbd/51712/backend": "/local/domain/3/mine",
	})
	ctx := context.Background()
	all, err := Backends(ctx, s, 3)
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	if b := all[0]; b.Kind != "vbd" || b.PhysicalDevice != "fe:10" || b.ReadOnly || b.DevName != "xvda" {
		t.Errorf("%+v", b)
	}
	if b := all[1]; b.Kind != "qdisk" || b.Params != "aio:/srv/a.img" || !b.ReadOnly {
		t.Errorf("%+v", b)
	}
	if _, err := FindBackend(ctx, s, 3, 51744); !errors.Is(err, ErrNoBackend) {
		t.Error(err)
	}
	if all, err := Backends(ctx, s, 4); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

// sysfs makes a tree of files below a new directory.
func sysfs(t *testing.T, files map[string]string) System {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return System{Sys: root, Dev: "/dev"}
}

func TestResolveBlockDevice(t *testing.T) {
	s := sysfs(t, map[string]string{
		"dev/block/254:16/uevent":                                   "MAJOR=254\nMINOR=16\nDEVNAME=vdb\n",
		"dev/block/254:16/size":                                     "2048\n",
		"dev/block/254:16/diskseq":                                  "9\n",
		"dev/block/254:16/stat":                                     " 313 0 43938 7396 179 0 21656 5157 0 7836 13382 4 0 96 0 28 828\n",
		"bus/xen-backend/devices/vbd-3-51712/statistics/wr_sect":    "21000\n",
		"bus/xen-backend/devices/vbd-3-51712/statistics/ds_req":     "4\n",
		"bus/xen-backend/devices/vbd-3-51712/statistics/irrelevant": "1\n",
	})
	be := Backend{Kind: "vbd", VBD: 51712, Domid: 3, PhysicalDevice: "fe:10", DevName: "xvda"}
	b, err := s.Resolve(be)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Identity{Name: "/dev/vdb", Size: 1 << 20, Block: "254:16", DiskSeq: 9}); b.Identity != want || b.Path != "/dev/vdb" {
		t.Errorf("%+v", b)
	}
	r, err := b.Read(be)
	if err != nil || r.Written != 21656 || r.Discards != 4 || r.Discarded != 96 || r.Guest == nil || *r.Guest != (GuestIO{21000, 4}) || r.File != nil {
		t.Errorf("%+v, %v", r, err)
	}
	be.Domid = 4 // no such backend
	if r, err := b.Read(be); err != nil || r.Guest != nil {
		t.Errorf("%+v, %v", r, err)
	}
	filter, err := b.traceFilter(Backend{Kind: "vbd", Domid: 3, DevName: "xvda"})
	if want := `(dev == 266338320) && nr_sector > 0 && !(rwbs ~ "R*" || rwbs ~ "FR*") && !(comm ~ "[3].xvda-*")`; err != nil || filter != want {
		t.Errorf("%s, %v", filter, err)
	}
	if _, err := b.traceFilter(Backend{Kind: "vbd", Domid: 30000, DevName: "mapper/web"}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("cut-off thread name: %v", err)
	}
	if _, err := s.Resolve(Backend{Kind: "vbd"}); !errors.Is(err, ErrNotReady) {
		t.Error(err)
	}
	if _, err := s.Resolve(Backend{Kind: "vbd", PhysicalDevice: "so"}); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}

func TestResolveImageFile(t *testing.T) {
	img := filepath.Join(t.TempDir(), "a.img")
	if err := os.WriteFile(img, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	s := sysfs(t, map[string]string{
		"dev/block/7:0/uevent":            "DEVNAME=loop0\n",
		"dev/block/7:0/size":              "16\n",
		"dev/block/7:0/loop/backing_file": img + "\n",
		"dev/block/7:0/loop/offset":       "0\n",
		"dev/block/7:0/stat":              "0 0 0 0 0 0 8 0 0 0 0\n",
	})
	attached := identify(t, img)
	s.loopStatus = func(path string) (*unix.LoopInfo64, error) {
		if path != "/dev/loop0" {
			t.Errorf("asked %s", path)
		}
		return &attached, nil
	}
	viaLoop, err := s.Resolve(Backend{Kind: "vbd", PhysicalDevice: "7:0"})
	if err != nil || viaLoop.Name != img || viaLoop.Loop != "/dev/loop0" || viaLoop.Path != "/dev/loop0" || viaLoop.Block != "" {
		t.Fatalf("%+v, %v", viaLoop, err)
	}
	plain, err := s.Resolve(Backend{Kind: "qdisk", Params: "aio:" + img})
	if err != nil || plain.Path != img || plain.Size != 8192 {
		t.Fatalf("%+v, %v", plain, err)
	}
	if why := plain.Differs(viaLoop.Identity); why != "" {
		t.Errorf("the same file: %s", why)
	}
	r, err := viaLoop.Read(Backend{Kind: "vbd"})
	if err != nil || r.File == nil || r.Written != 8 {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := os.Rename(img, img+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(img, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := viaLoop.Read(Backend{Kind: "vbd"}); err == nil || !strings.Contains(err.Error(), "another file") {
		t.Errorf("replaced: %v", err)
	}
	if st := (unix.Stat_t{Mode: unix.S_IFREG, Dev: plain.File.Device, Ino: plain.File.Inode}); !plain.emulated || (search{Backing: plain}).is(&st) {
		t.Errorf("QEMU's own is looked for")
	}
	// The loop device goes on with the file that it was given.
	if still, err := s.Resolve(Backend{Kind: "vbd", PhysicalDevice: "7:0"}); err != nil || still.File.Inode != attached.Inode {
		t.Errorf("%+v, %v", still, err)
	}
	other, err := s.Resolve(Backend{Kind: "qdisk", Params: "aio:" + img})
	if err != nil || !strings.Contains(plain.Differs(other.Identity), "replaced") {
		t.Errorf("%q, %v", plain.Differs(other.Identity), err)
	}
	for _, params := range []string{"aio:", "aio:rbd:rbd/web", "raw:nbd:unix:/run/nbd:exportname=web", "aio:iscsi://h/t/0", "aio:web.img", "qcow2:" + img, img, "aio:/dev/null"} {
		if _, err := s.Resolve(Backend{Kind: "qdisk", Params: params}); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", params, err)
		}
	}
}

// identify is what a loop device says that has the file attached.
func identify(t *testing.T, path string) unix.LoopInfo64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return unix.LoopInfo64{Device: st.Dev, Inode: st.Ino, Rdevice: st.Rdev}
}

// TestInodeGivenAgain: a new file with the number of one that was removed is
// another one.
func TestInodeGivenAgain(t *testing.T) {
	a := Identity{Name: "/a.img", File: &FileID{Path: "/a.img", Device: 1, Inode: 12, Birth: 1000}}
	b := a
	b.File = &FileID{Path: "/a.img", Device: 1, Inode: 12, Birth: 2000}
	if why := a.Differs(b); !strings.Contains(why, "replaced") {
		t.Errorf("%q", why)
	}
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	st, err := stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := time.Since(time.Unix(0, st.birth)); st.birth != 0 && (got < -time.Minute || got > time.Minute) {
		t.Errorf("made %v ago", got)
	}
}

// TestOtherLoop: another loop device with the guest's file, or on its device.
func TestOtherLoop(t *testing.T) {
	img := filepath.Join(t.TempDir(), "a.img")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file := identify(t, img)
	s := sysfs(t, map[string]string{
		"block/loop0/loop/backing_file": img,
		"block/loop1/loop/backing_file": "/dev/vdb",
		"block/loop2/loop/backing_file": "/other",
		"block/loop3/size":              "0",
		"block/loop4/loop/backing_file": img + " (deleted)",
		"dev/block/254:16/vdb1/dev":     "254:17",
		"dev/block/7:0/size":            "0",
	})
	s.loopStatus = func(path string) (*unix.LoopInfo64, error) {
		switch filepath.Base(path) {
		case "loop0":
			return &file, nil
		case "loop1":
			return &unix.LoopInfo64{Device: 5, Inode: 6, Rdevice: unix.Mkdev(254, 17)}, nil
		case "loop4":
			leaving := file
			leaving.Flags |= unix.LO_FLAGS_AUTOCLEAR
			return &leaving, nil
		}
		return nil, unix.ENXIO
	}
	id := &FileID{Path: img, Device: file.Device, Inode: file.Inode}
	for name, c := range map[string]struct {
		b       Backing
		want    string
		leaving bool
	}{
		"that of the guest before": {Backing{sys: s, device: "7:0", Identity: Identity{Loop: "/dev/loop0", File: id}}, "loop device /dev/loop4", true},
		"on its partition":         {Backing{sys: s, device: "254:16"}, "loop device /dev/loop1", false},
		"one of two is leaving":    {Backing{sys: s, Identity: Identity{File: id}}, "loop device /dev/loop0", false},
		"the guest's own":          {Backing{sys: s, device: "7:0", Identity: Identity{Loop: "/dev/loop4", File: id}}, "loop device /dev/loop0", false},
		"another file":             {Backing{sys: s, Identity: Identity{File: &FileID{Device: file.Device, Inode: file.Inode + 1}}}, "", false},
	} {
		look, err := c.b.search()
		if err != nil {
			t.Fatal(err)
		}
		if got, leaving, err := look.otherLoop(); got != c.want || leaving != c.leaving || err != nil {
			t.Errorf("%s: %q, %v, %v", name, got, leaving, err)
		}
	}
}

// TestWriter: a process that has the file open for writing is found, one that
// reads it is not.
func TestWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	var files []unix.LoopInfo64
	for _, p := range []string{path + "-before", path, path + "-after"} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, identify(t, p))
	}
	for flag, found := range map[int]bool{os.O_RDONLY: false, os.O_WRONLY: true, os.O_RDWR: true} {
		f, err := os.OpenFile(path, flag, 0)
		if err != nil {
			t.Fatal(err)
		}
		child := exec.Command("sleep", "60")
		child.ExtraFiles = []*os.File{f}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		// Of three disks, the one that is the file is found, and the others are not.
		who, err := writers(3, func(i int, st *unix.Stat_t) bool {
			return st.Dev == files[i].Device && st.Ino == files[i].Inode
		})
		if err != nil || who[0] != "" || who[2] != "" || (who[1] != "") != found || found && !strings.Contains(who[1], fmt.Sprintf("process %d ", child.Process.Pid)) {
			t.Errorf("flags %#x: %q, %v", flag, who, err)
		}
		if err := child.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = child.Wait() // killed
	}
}

func TestMounted(t *testing.T) {
	const info = "36 35 98:0 / / rw - ext4 /dev/root rw\n37 35 254:17 / /mnt/a\\040b rw shared:1 - xfs /dev/vdb1 rw\n"
	for device, want := range map[string]string{"254:17": "mount /mnt/a b", "254:16": ""} {
		got, err := mounted(bufio.NewScanner(strings.NewReader(info)), map[string]bool{device: true})
		if got != want || err != nil {
			t.Errorf("%s: %q, %v", device, got, err)
		}
	}
}

func TestReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	content := bytes.Repeat([]byte("warm"), 4096)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := openDirect(path, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	buf, err := AlignedBuffer(8192)
	if err != nil {
		t.Fatal(err)
	}
	defer buf.Free()
	if n, err := r.ReadAt(buf, 4096); n != 8192 || err != nil || !bytes.Equal(buf, content[4096:12288]) {
		t.Errorf("%d, %v", n, err)
	}
	for _, off := range []int64{-4096, 12288, 1 << 60} {
		if _, err := r.ReadAt(buf, off); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("at %d: %v", off, err)
		}
	}
}

// TestOfTheDisk: what only a disk has, its partitions have from it, though what
// names them are symbolic links.
func TestOfTheDisk(t *testing.T) {
	for iostats, uncounted := range map[string]bool{"0": true, "1": false} {
		s := sysfs(t, map[string]string{
			"devices/sda/diskseq":        "9\n",
			"devices/sda/queue/iostats":  iostats + "\n",
			"devices/sda/sda1/uevent":    "MAJOR=8\nMINOR=1\nDEVNAME=sda1\n",
			"devices/sda/sda1/size":      "2048\n",
			"devices/sda/sda1/stat":      "0 0 0 0 0 0 8 0 0 0 0\n",
			"devices/sda/sda1/partition": "1\n",
			"dev/block/8:0/uevent":       "\n",
		})
		if err := os.Symlink("../../devices/sda/sda1", filepath.Join(s.Sys, "dev/block/8:1")); err != nil {
			t.Fatal(err)
		}
		be := Backend{Kind: "vbd", VBD: 51712, Domid: 3, PhysicalDevice: "8:1", DevName: "xvda"}
		b, err := s.Resolve(be)
		if err != nil || b.DiskSeq != 9 {
			t.Fatalf("%+v, %v", b, err)
		}
		if r, err := b.Read(be); err != nil || r.Uncounted != uncounted || r.Written != 8 {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

// TestUnescape: a mount point is named as it is.
func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`/a\040b`: "/a b", `/a\134040`: `/a\040`, `/a\`: `/a\`, `/\04`: `/\04`, `/\999`: `/\999`, `\011\012`: "\t\n"} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestOpenAnother: what has got the disk's name meanwhile is not read.
func TestOpenAnother(t *testing.T) {
	img := filepath.Join(t.TempDir(), "a.img")
	if err := os.WriteFile(img, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := System{}.resolvePath(img)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := b.OpenReader(); err != nil || r.Close() != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(img+".new", make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(img+".new", img); err != nil {
		t.Fatal(err)
	}
	if r, err := b.OpenReader(); err == nil {
		r.Close()
		t.Error("another file is read")
	}
	if w, err := b.WatchAccess(); err == nil {
		w.Close()
		t.Error("another file is watched")
	}
	if r, err := (Backing{Path: img, device: "8:0"}).OpenReader(); err == nil {
		r.Close()
		t.Error("a file is read for a device")
	}
}
