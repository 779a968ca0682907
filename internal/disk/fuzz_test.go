package disk

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/internal/disk/storetest"
)

// FuzzBackends: whatever is in a backend's nodes, it is a backend of that
// domain, and resolving it gives a disk or an error, never another domain's.
func FuzzBackends(f *testing.F) {
	f.Add("51712", "/dev/vdb", "fe:10", "w", "/dev/xvda")
	f.Add("51712x", "aio:", ":", "r!", "/dev/")
	f.Add("../4/51712", "", "ffffffff:ffffffff", "", "")
	f.Add("-1", "raw:/etc/passwd", "0x1:2", "w", "xvda")
	f.Fuzz(func(t *testing.T, vbd, params, device, mode, dev string) {
		const domain = "/local/domain/0/backend/vbd/3/"
		s := storetest.New(map[string]string{
			domain + vbd + "/params": params, domain + vbd + "/physical-device": device,
			domain + vbd + "/mode": mode, domain + vbd + "/dev": dev,
		})
		all, err := Backends(context.Background(), s, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range all {
			if b.Domid != 3 || !strings.HasPrefix(b.Path, domain) || strings.Contains(b.Path, "..") {
				t.Fatalf("%+v", b)
			}
			if b.ReadOnly != strings.HasPrefix(mode, "r") {
				t.Fatalf("mode %q: %+v", mode, b)
			}
			system := System{Sys: t.TempDir(), Dev: t.TempDir()}
			if backing, err := system.Resolve(b); err == nil {
				t.Fatalf("%+v in an empty system", backing)
			}
		}
	})
}

// FuzzSysfs: what the kernel is said to have counted is taken or refused.
func FuzzSysfs(f *testing.F) {
	f.Add("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n", "8\n", "9\n")
	f.Add("1 2 3\n", "", "-1")
	f.Add("1 2 3 4 5 6 18446744073709551616 8 9 10 11", "1e3", "0x10")
	f.Fuzz(func(t *testing.T, stat, written, discards string) {
		system := System{Sys: t.TempDir()}
		statistics := "bus/xen-backend/devices/vbd-3-51712/statistics/"
		for name, content := range map[string]string{
			"dev/block/8:0/stat": stat, statistics + "wr_sect": written, statistics + "ds_req": discards,
		} {
			path := filepath.Join(system.Sys, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r, err := Backing{device: "8:0", sys: system}.Read(Backend{Kind: "vbd", Domid: 3, VBD: 51712})
		if err != nil {
			return
		}
		if len(strings.Fields(stat)) < 11 || r.Guest == nil {
			t.Fatalf("%q gave %+v", stat, r)
		}
	})
}

// FuzzFirstEvent: a request of somebody else is never passed over, and one of
// the backend's own never taken for one.
func FuzzFirstEvent(f *testing.F) {
	f.Add("# comment\n  dd-1 [000] block_bio_queue: 254,0 W 0 + 8 [dd]\n", "3.xvda-")
	f.Add("3.xvda-0-9 block_bio_queue: 254,0 W 0 + 8 [3.xvda-0]\n", "3.xvda-")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, trace, own string) {
		event, err := firstEvent(trace, own)
		some := false
		for _, line := range strings.Split(trace, "\n") {
			some = some || !strings.HasPrefix(line, "#") && strings.Contains(line, "block_bio_queue: ")
		}
		if some != (event != "" || err != nil) {
			t.Fatalf("%q: %q, %v", trace, event, err)
		}
		if err == nil && strings.Contains(event, "["+own) {
			t.Fatalf("%q is the backend's own", event)
		}
	})
}

// FuzzProc: the tables of mounts and of open files.
func FuzzProc(f *testing.F) {
	f.Add("36 35 98:0 /root /mnt opts\n", "98:0", "pos: 0\nflags: 0100002\n")
	f.Add("36 35 98:0\n", "98:0", "flags: 0100000")
	f.Add("", "", "flags:")
	f.Fuzz(func(t *testing.T, mounts, device, info string) {
		devices := map[string]bool{device: true}
		who, err := mounted(bufio.NewScanner(strings.NewReader(mounts)), devices)
		if err != nil && !errors.Is(err, bufio.ErrTooLong) {
			t.Fatal(err)
		}
		if who != "" && !strings.Contains(mounts, device) {
			t.Fatalf("%q has no %q: %q", mounts, device, who)
		}
		if !writable([]byte(info)) && !strings.Contains(info, "flags:") {
			t.Fatalf("%q is said not to be writable", info)
		}
	})
}

// FuzzAccessEvents: what the kernel hands over of fanotify is taken whole or
// refused; nothing past its end is read.
func FuzzAccessEvents(f *testing.F) {
	one := make([]byte, accessEventSize)
	binary.NativeEndian.PutUint32(one, accessEventSize)
	one[4] = unix.FANOTIFY_METADATA_VERSION
	f.Add(one)
	f.Add(append(append([]byte{}, one...), one[:20]...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 3})
	f.Fuzz(func(t *testing.T, raw []byte) {
		raw = append([]byte{}, raw...)
		// Descriptors that the test itself may have must not be closed.
		for at := 0; at+accessEventSize <= len(raw); {
			binary.NativeEndian.PutUint32(raw[at+16:], ^uint32(0))
			length := binary.NativeEndian.Uint32(raw[at:])
			if length < accessEventSize || int64(length) > int64(len(raw)-at) {
				break
			}
			at += int(length)
		}
		events, err := accessEvents(raw)
		if len(events)*accessEventSize > len(raw) || (err == nil && len(raw) > 0 && len(events) == 0) {
			t.Fatalf("%d events in %d bytes, %v", len(events), len(raw), err)
		}
	})
}
