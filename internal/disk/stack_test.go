package disk

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tableAnswer is what the device mapper answers to DM_TABLE_STATUS.
func tableAnswer(name, uuid string, event uint32, targets ...dmTarget) []byte {
	raw := make([]byte, dmHeader)
	copy(raw[48:176], name)
	copy(raw[176:305], uuid)
	put := binary.NativeEndian.PutUint32
	put(raw[16:], dmHeader)
	put(raw[20:], uint32(len(targets)))
	put(raw[32:], event)
	for _, target := range targets {
		at := len(raw)
		raw = append(raw, make([]byte, dmSpec)...)
		binary.NativeEndian.PutUint64(raw[at:], target.Start)
		binary.NativeEndian.PutUint64(raw[at+8:], target.Length)
		copy(raw[at+24:at+dmSpec], target.Type)
		raw = append(append(raw, target.Params...), 0)
		for len(raw)%8 != 0 {
			raw = append(raw, 0)
		}
		put(raw[at+20:], uint32(len(raw)-dmHeader))
	}
	put(raw[12:], uint32(len(raw)))
	return raw
}

func TestParseTable(t *testing.T) {
	targets := []dmTarget{{0, 2048, "linear", "254:16 0"}, {2048, 16, "snapshot-origin", "253:1"}}
	s, err := parseTable(tableAnswer("web", "LVM-x", 7, targets...))
	if err != nil || s.Name != "web" || s.UUID != "LVM-x" || s.Event != 7 || len(s.Targets) != 2 || s.Targets[1] != targets[1] {
		t.Fatalf("%+v, %v", s, err)
	}
	raw := tableAnswer("web", "", 0, targets...)
	for _, cut := range []int{0, 311, 313, 351, len(raw) - 8} {
		if s, err := parseTable(raw[:cut]); err == nil {
			t.Errorf("%d of %d bytes: %+v", cut, len(raw), s)
		}
	}
	loop := tableAnswer("web", "", 0, targets...)
	binary.NativeEndian.PutUint32(loop[dmHeader+20:], 0) // the next target is the first
	if s, err := parseTable(loop); err == nil {
		t.Errorf("a table without end: %+v", s)
	}
	crypt := dmStatus{Targets: []dmTarget{{0, 8, "crypt", "aes 00112233 0 8:0 0"}}}
	if d := crypt.digest(); strings.Contains(d, "00112233") || len(d) != 16 {
		t.Errorf("%q", d)
	}
}

// volumes is a machine with an LVM volume, dm-0, on two disks; others are added.
func volumes(t *testing.T, files map[string]string) (System, map[string]dmStatus) {
	t.Helper()
	all := map[string]string{
		"dev/block/253:0/uevent":         "DEVNAME=dm-0\n",
		"dev/block/253:0/size":           "2048\n",
		"dev/block/253:0/diskseq":        "5\n",
		"dev/block/253:0/dm/name":        "vg-web\n",
		"dev/block/253:0/slaves/sda/dev": "8:0\n",
		"dev/block/253:0/slaves/sdb/dev": "8:16\n",
		"dev/block/8:0/uevent":           "DEVNAME=sda\n",
		"dev/block/8:0/diskseq":          "1\n",
		"dev/block/8:16/uevent":          "DEVNAME=sdb\n",
		"dev/block/8:16/diskseq":         "2\n",
	}
	for name, content := range files {
		all[name] = content
	}
	s := sysfs(t, all)
	tables := map[string]dmStatus{"253:0": {Name: "vg-web", UUID: "LVM-web",
		Targets: []dmTarget{{0, 1024, "linear", "8:0 0"}, {1024, 1024, "linear", "8:16 0"}}}}
	s.mapper = func(device string) (dmStatus, error) {
		st, ok := tables[device]
		if !ok {
			return st, unix.ENXIO
		}
		return st, nil
	}
	s.events = &uevents{fd: -1, id: "a", changes: map[string]uint64{}}
	return s, tables
}

// told has the listener have been told this, without a socket.
func (s System) told(t *testing.T, c map[string]uint64) System {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.Close(pair[0]), unix.Close(pair[1]) })
	s.events = &uevents{fd: pair[0], id: "a", changes: c}
	return s
}

// TestStack: whatever may have given the device other contents makes a difference,
// and what has not does not.
func TestStack(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*testing.T, *System, map[string]dmStatus)
		why    string // "" if nothing differs
	}{
		{"nothing", func(*testing.T, *System, map[string]dmStatus) {}, ""},
		{"another table on the same disks", func(_ *testing.T, _ *System, dm map[string]dmStatus) {
			st := dm["253:0"]
			st.Targets = []dmTarget{{0, 1024, "linear", "8:16 0"}, {1024, 1024, "linear", "8:0 0"}}
			dm["253:0"] = st
		}, "it consisted of dm-0"},
		{"exchanged, and exchanged back", func(t *testing.T, s *System, _ map[string]dmStatus) {
			*s = s.told(t, map[string]uint64{"253:0": 2})
		}, "dm-0 was suspended and resumed"},
		{"the same of another device", func(t *testing.T, s *System, _ map[string]dmStatus) {
			*s = s.told(t, map[string]uint64{"253:9": 2})
		}, ""},
		{"an event", func(_ *testing.T, _ *System, dm map[string]dmStatus) {
			st := dm["253:0"]
			st.Event++
			dm["253:0"] = st
		}, "dm-0 had an event"},
		{"a volume in its place", func(_ *testing.T, _ *System, dm map[string]dmStatus) {
			st := dm["253:0"]
			st.UUID = "LVM-snap"
			dm["253:0"] = st
		}, "LVM-snap"},
		{"a disk below removed and added again", func(t *testing.T, s *System, _ map[string]dmStatus) {
			write(t, s, "dev/block/8:16/diskseq", "9\n")
		}, "sdb"},
		{"fewer disks", func(t *testing.T, s *System, _ map[string]dmStatus) {
			if err := os.RemoveAll(filepath.Join(s.Sys, "dev/block/253:0/slaves/sdb")); err != nil {
				t.Fatal(err)
			}
		}, "no longer lies on sdb"},
		{"another agent", func(t *testing.T, s *System, _ map[string]dmStatus) {
			*s = s.told(t, map[string]uint64{})
			s.events.id = "b"
		}, "the agent was away"},
		{"events lost", func(_ *testing.T, s *System, _ map[string]dmStatus) {
			s.events.lost++
		}, "were lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, dm := volumes(t, nil)
			s = s.told(t, map[string]uint64{})
			was := s.stack("253:0")
			if was.Blind != "" || len(was.Layers) != 3 || was.Listener != "a" {
				t.Fatalf("%+v", was)
			}
			c.change(t, &s, dm)
			is := s.stack("253:0")
			if why := was.Differs(is); !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
				t.Errorf("%q, want %q", why, c.why)
			}
			if why := (Stack{}).Differs(is); why == "" {
				t.Error("what was not known does not differ")
			}
		})
	}
}

func write(t *testing.T, s *System, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.Sys, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestBlind: what cannot vouch says so, through every layer; and what can does not.
func TestBlind(t *testing.T) {
	disk := func(path, name string, more ...string) map[string]string {
		files := map[string]string{path + "/uevent": "DEVNAME=" + name + "\n", path + "/diskseq": "3\n", path + "/dev": "9:9\n"}
		for i := 0; i < len(more); i += 2 {
			files[more[i]] = more[i+1]
		}
		return files
	}
	for _, c := range []struct {
		name  string
		path  string // in sysfs
		files map[string]string
		blind string
	}{
		{"a SATA disk", "devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda",
			disk("devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda", "sda"), ""},
		{"a virtual machine's disk", "devices/pci0000:00/0000:00:04.0/virtio1/block/vdb",
			disk("devices/pci0000:00/0000:00:04.0/virtio1/block/vdb", "vdb"), ""},
		{"iSCSI", "devices/platform/host5/session1/target5:0:0/5:0:0:1/block/sdc",
			disk("devices/platform/host5/session1/target5:0:0/5:0:0:1/block/sdc", "sdc"), "storage system"},
		{"FibreChannel", "devices/pci0000:00/0000:00:02.0/host6/rport-6:0-1/target6:0:0/6:0:0:1/block/sdd",
			disk("devices/pci0000:00/0000:00:02.0/host6/rport-6:0-1/target6:0:0/6:0:0:1/block/sdd", "sdd"), "storage system"},
		{"NVMe", "devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1",
			disk("devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1", "nvme0n1", "devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1/device/transport", "pcie\n"), ""},
		{"NVMe by several controllers", "devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1",
			disk("devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1", "nvme0n1",
				"devices/virtual/nvme-subsystem/nvme-subsys0/nvme0/transport", "pcie\n",
				"devices/virtual/nvme-subsystem/nvme-subsys0/nvme1/transport", "tcp\n"), "storage system"},
		{"NVMe somewhere", "devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1",
			disk("devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1", "nvme0n1"), "cannot be told"},
		{"a ZFS volume", "devices/virtual/block/zd16", disk("devices/virtual/block/zd16", "zd16"), "zfs rollback"},
		{"Ceph", "devices/rbd/0/block/rbd0", disk("devices/rbd/0/block/rbd0", "rbd0"), "Ceph"},
		{"nbd", "devices/virtual/block/nbd0", disk("devices/virtual/block/nbd0", "nbd0"), "elsewhere"},
		{"DRBD", "devices/virtual/block/drbd0", disk("devices/virtual/block/drbd0", "drbd0"), "another machine"},
		{"bcache", "devices/virtual/block/bcache0", disk("devices/virtual/block/bcache0", "bcache0",
			"devices/virtual/block/bcache0/slaves/sda/dev", "8:0\n"), "kind that is not known"},
		{"an array", "devices/virtual/block/md0", disk("devices/virtual/block/md0", "md0",
			"devices/virtual/block/md0/md/level", "raid1\n", "devices/virtual/block/md0/slaves/sda/dev", "8:0\n"), ""},
		{"a loop device", "devices/virtual/block/loop3", disk("devices/virtual/block/loop3", "loop3",
			"devices/virtual/block/loop3/loop/backing_file", "/srv/pv.img\n"), "the file that loop3 is made of"},
		{"nothing there", "devices/virtual/block/sdq", map[string]string{"devices/virtual/block/sdq/x": ""}, "cannot be told"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.files["dev/block/8:0/uevent"] = "DEVNAME=sda\n"
			for _, stacked := range []bool{false, true} {
				s, dm := volumes(t, c.files)
				s = s.told(t, map[string]uint64{})
				s.loopStatus = func(string) (*unix.LoopInfo64, error) { return &unix.LoopInfo64{Inode: 4}, nil }
				link(t, s, c.path, "9:9")
				device := "9:9"
				if stacked {
					device = "253:1"
					for name, content := range map[string]string{"uevent": "DEVNAME=dm-1\n", "dm/name": "x\n", "slaves/x/dev": "9:9\n"} {
						name = filepath.Join(s.Sys, "dev/block/253:1", name)
						if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
							t.Fatal(err)
						}
						if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
							t.Fatal(err)
						}
					}
					dm["253:1"] = dmStatus{Name: "x", Targets: []dmTarget{{0, 8, "linear", "9:9 0"}}}
				}
				if got := s.stack(device); !strings.Contains(got.Blind, c.blind) || (got.Blind == "") != (c.blind == "") {
					t.Errorf("stacked %v: %q, want %q", stacked, got.Blind, c.blind)
				}
			}
		})
	}
	s, dm := volumes(t, nil)
	if got := s.stack("253:0"); !strings.Contains(got.Blind, "events") {
		t.Errorf("nobody listens: %+v", got)
	}
	s = s.told(t, map[string]uint64{})
	dm["253:0"] = dmStatus{Name: "x", Targets: []dmTarget{{0, 8, "linear", ""}, {8, 8, "era", ""}}}
	if got := s.stack("253:0"); !strings.Contains(got.Blind, "a target era") {
		t.Errorf("an unknown target: %+v", got)
	}
	delete(dm, "253:0")
	if got := s.stack("253:0"); !strings.Contains(got.Blind, "cannot be told") {
		t.Errorf("no table: %+v", got)
	}
}

func link(t *testing.T, s System, to, device string) {
	t.Helper()
	if err := os.Symlink("../../"+to, filepath.Join(s.Sys, "dev/block", device)); err != nil {
		t.Fatal(err)
	}
}

// TestPartitionStack: a partition lies on its disk, at a place.
func TestPartitionStack(t *testing.T) {
	s := sysfs(t, map[string]string{
		"devices/pci0/sda/uevent":         "DEVNAME=sda\n",
		"devices/pci0/sda/dev":            "8:0\n",
		"devices/pci0/sda/diskseq":        "1\n",
		"devices/pci0/sda/device/wwid":    "naa.5000\n",
		"devices/pci0/sda/sda1/uevent":    "DEVNAME=sda1\n",
		"devices/pci0/sda/sda1/dev":       "8:1\n",
		"devices/pci0/sda/sda1/partition": "1\n",
		"devices/pci0/sda/sda1/start":     "2048\n",
		"devices/pci0/sda/sda1/size":      "4096\n",
		"dev/block/8:2/uevent":            "\n",
	})
	link(t, s, "devices/pci0/sda", "8:0")
	link(t, s, "devices/pci0/sda/sda1", "8:1")
	was := s.stack("8:1")
	if was.Blind != "" || len(was.Layers) != 2 || was.Layers[0].What != "partition of sectors 2048 to 6144" || was.Layers[1].Name != "sda" || was.Listener != "" {
		t.Fatalf("%+v", was)
	}
	b, err := s.Resolve(Backend{Kind: "vbd", PhysicalDevice: "8:1"})
	if err != nil || b.Own != "device/wwid naa.5000 from sector 2048" {
		t.Errorf("%+v, %v", b, err)
	}
	write(t, &s, "devices/pci0/sda/sda1/start", "4096\n")
	if why := was.Differs(s.stack("8:1")); !strings.Contains(why, "partition") {
		t.Errorf("%q", why)
	}
}

// TestReturned: a disk with a name of its own is the same one after it was away, but
// nobody was watching; one without is another one.
func TestReturned(t *testing.T) {
	was := Identity{Name: "/dev/sdb", Size: 8, Block: "8:16", DiskSeq: 3, Own: "wwid naa.5000"}
	is := was
	is.Name, is.Block, is.DiskSeq = "/dev/sdc", "8:32", 9
	if was.Differs(is) != "" || was.Returned(is) == "" {
		t.Errorf("%q, %q", was.Differs(is), was.Returned(is))
	}
	if was.Returned(was) != "" {
		t.Error("it was not away")
	}
	for what, other := range map[string]func(*Identity){
		"another name": func(i *Identity) { i.Own = "wwid naa.6000" },
		"no name":      func(i *Identity) { i.Own = "" },
		"another size": func(i *Identity) { i.Size++ },
	} {
		o := is
		other(&o)
		if was.Differs(o) == "" || was.Returned(o) != "" {
			t.Errorf("%s: %q, %q", what, was.Differs(o), was.Returned(o))
		}
	}
}

// TestChanged: which of the kernel's events count.
func TestChanged(t *testing.T) {
	event := func(more ...string) []byte {
		all := append([]string{"change@/devices/virtual/block/dm-3", "ACTION=change", "SUBSYSTEM=block", "MAJOR=253", "MINOR=3"}, more...)
		return []byte(strings.Join(all, "\x00") + "\x00")
	}
	for _, c := range []struct {
		what string
		raw  []byte
		want string
	}{
		{"a table", event("DM_COOKIE=4242"), "253:3"},
		{"a table, without udev", event(), "253:3"},
		{"udevadm trigger", event("SYNTH_UUID=0"), ""},
		{"a path failed", event("DM_TARGET=multipath", "DM_ACTION=PATH_FAILED", "DM_PATH=8:16"), ""},
		{"no block device", []byte("add@/x\x00SUBSYSTEM=net\x00MAJOR=253\x00MINOR=3\x00"), ""},
		{"nothing", nil, ""},
	} {
		if got := changed(c.raw); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

// TestListen: the kernel's own socket. What udevadm trigger would do is not counted,
// so that asking twice in a row tells the same.
func TestListen(t *testing.T) {
	u := new(uevents)
	a, err := u.ask()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPROTONOSUPPORT) {
		if _, again := u.ask(); again == nil {
			t.Error("it forgot that it cannot listen")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(u.fd)
	if b, err := u.ask(); err != nil || b.id != a.id || a.id == "" || b.lost != a.lost {
		t.Errorf("%+v and %+v, %v", a, b, err)
	}
	other := new(uevents)
	if c, err := other.ask(); err != nil || c.id == a.id {
		t.Errorf("two listeners of one name: %v", err)
	}
	_ = unix.Close(other.fd)
}
