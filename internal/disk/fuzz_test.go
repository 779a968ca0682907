package disk

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
func FuzzOthers(f *testing.F) {
	f.Add("# comment\n  dd-1 [000] block_bio_queue: 254,0 W 0 + 8 [dd]\n", "3.xvda-")
	f.Add("3.xvda-0-9 block_bio_queue: 254,0 W 0 + 8 [3.xvda-0]\n", "3.xvda-")
	f.Add("kworker/0:1-9 block_bio_queue: 254,0 W 0 + 8 [kworker/0:1]\n", "3.xvda-")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, trace, own string) {
		doubt, breach, err := others(trace, own)
		some := false
		for _, line := range strings.Split(trace, "\n") {
			some = some || !strings.HasPrefix(line, "#") && strings.Contains(line, "block_bio_queue: ")
		}
		if some != (doubt != "" || breach != "" || err != nil) {
			t.Fatalf("%q: %q, %q, %v", trace, doubt, breach, err)
		}
		if err == nil && strings.Contains(breach, "["+own) {
			t.Fatalf("%q is the backend's own", breach)
		}
		if doubt != "" && !strings.Contains(trace, "[kworker/") {
			t.Fatalf("%q is not a worker's", doubt)
		}
	})
}

// FuzzTable: an answer of the device mapper's is parsed whole or refused; nothing
// past its end is read, and it ends.
func FuzzTable(f *testing.F) {
	linear := dmTarget{0, 2048, "linear", "254:16 0"}
	crypt := dmTarget{2048, 8, "crypt", "aes-xts-plain64 0011 0 254:16 2048"}
	f.Add(tableAnswer("web", "LVM-a", 3, linear))
	f.Add(tableAnswer("web", "", 0, linear, crypt))
	f.Add(tableAnswer("web", "", 0))
	f.Add(make([]byte, dmHeader))
	f.Add([]byte{4})
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseTable(raw)
		if err != nil {
			return
		}
		if len(s.Name) > 128 || len(s.UUID) > 129 || len(s.Targets)*dmSpec > len(raw) {
			t.Fatalf("%d bytes: %+v", len(raw), s)
		}
		for _, target := range s.Targets {
			if len(target.Type) > 16 || len(target.Params) > len(raw) || strings.Contains(target.Params, "\x00") {
				t.Fatalf("%+v", target)
			}
		}
		again, err := parseTable(tableAnswer(s.Name, s.UUID, s.Event, s.Targets...))
		if err != nil || again.digest() != s.digest() || again.Event != s.Event {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
	})
}

// FuzzUevent: an event is of a block device of which it names the number, or of none.
func FuzzUevent(f *testing.F) {
	f.Add([]byte("change@/devices/virtual/block/dm-3\x00ACTION=change\x00SUBSYSTEM=block\x00DM_COOKIE=1\x00MAJOR=253\x00MINOR=3\x00"))
	f.Add([]byte("change@/x\x00SUBSYSTEM=block\x00SYNTH_UUID=0\x00MAJOR=253\x00MINOR=3\x00"))
	f.Add([]byte("\x00MINOR=0\x00SUBSYSTEM=block\x00MAJOR=:"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		device := changed(raw)
		if device == "" {
			return
		}
		var major, minor uint32
		if n, err := fmt.Sscanf(device, "%d:%d", &major, &minor); n != 2 || err != nil || strings.Contains(string(raw), "\x00SYNTH_UUID=") {
			t.Fatalf("%q of %q", device, raw)
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
