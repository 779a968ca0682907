package toolstack_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/toolstack"
)

// storedWeb is what libxl 4.20 has stored of the lab's domU.
const storedWeb = `{"c_info": {"type": "pvh", "name": "domU-web", "domid": 4294967295, "uuid": "UUID", "run_hotplug_scripts": "True"},
 "b_info": {"max_vcpus": 2, "avail_vcpus": [0, 1], "tsc_mode": "native", "max_memkb": 524288, "target_memkb": 524288, "video_memkb": 0,
  "sched_params": {}, "claim_mode": "True", "kernel": "/boot/guest-kernel", "cmdline": "root=/dev/xvda", "type.pvh": {}, "arch_arm": {}, "arch_x86": {"msr_relaxed": "False"}},
 "disks": [{"pdev_path": "/mnt/web.raw", "vdev": "xvda", "format": "raw", "readwrite": 1}],
 "nics": [{"devid": 0, "mac": "00:16:3e:00:00:01", "script": "vif-lab", "nictype": "vif"}],
 "on_reboot": "restart", "on_crash": "restart", "on_soft_reset": "soft_reset"}`

func TestCloneConfig(t *testing.T) {
	of := toolstack.Domain{Domid: 7, UUID: webUUID, Name: "domU-web"}
	clone := toolstack.Clone{Name: `web"\trial`, UUID: ident.TrialUUID("1"), Kernel: toolstack.Kernel{File: "/k", Initrd: "/i", Cmdline: `root=/dev/xvda x="y z"`},
		Disks: []toolstack.CloneDisk{{Path: "/mnt/a, b/.clone", Name: "xvda"}}}
	config := func(stored string, c toolstack.Clone) (string, error) {
		h := &fakeHost{t: t, Host: toolstack.Host{State: t.TempDir()}}
		h.write(filepath.Join(h.State, fmt.Sprintf("userdata-d.7.%s.libxl-json", webUUID)), stored+"\x00")
		raw, err := h.CloneConfig(of, c)
		return string(raw), err
	}
	const want = `name = "web\"\\trial"
uuid = "UUID"
type = "pvh"
kernel = "/k"
ramdisk = "/i"
cmdline = "root=/dev/xvda x=\"y z\""
memory = 512
maxmem = 512
maxvcpus = 2
vcpus = 2
tsc_mode = "native"
disk = [ "format=raw,vdev=xvda,access=w,target=/mnt/a, b/.clone" ]
on_poweroff = "preserve"
on_reboot = "preserve"
on_crash = "preserve"
on_watchdog = "preserve"
`
	got, err := config(storedWeb, clone)
	if err != nil || got != strings.Replace(want, "UUID", clone.UUID.String(), 1) {
		t.Errorf("%v:\n%s", err, got)
	}
	bridged := clone
	bridged.Bridge, bridged.Disks = "xenbr9", []toolstack.CloneDisk{{Path: "/dev/vdb", Name: "xvda", ReadOnly: true}}
	got, err = config(storedWeb, bridged)
	if err != nil || strings.Count(got, "mac=00:16:3e:") != 1 || !strings.Contains(got, `,bridge=xenbr9" ]`) || strings.Contains(got, "00:16:3e:00:00:01") || !strings.Contains(got, "access=r,target=/dev/vdb") {
		t.Errorf("%v:\n%s", err, got)
	}
	got, err = config(strings.Replace(storedWeb, `"target_memkb": 524288`, `"target_memkb": 300001`, 1), clone)
	if err != nil || !strings.Contains(got, "memory = 293\nmaxmem = 512\n") {
		t.Errorf("one that was ballooned: %v:\n%s", err, got)
	}
	odd := clone
	odd.Name = "web\n"
	for what, c := range map[string]struct {
		stored string
		clone  toolstack.Clone
		says   string
	}{
		"another disk":    {strings.Replace(storedWeb, `"disks": [`, `"disks": [{"pdev_path": "x", "format": "raw"}, `, 1), clone, "2 disks, of which dom0 serves 1"},
		"a PCI device":    {strings.Replace(storedWeb, `"nics"`, `"pcidevs": [{"dev": 1}], "nics"`, 1), clone, "pcidevs"},
		"an HVM guest":    {strings.Replace(storedWeb, "type.pvh", "type.hvm", 1), clone, "HVM"},
		"nothing known":   {strings.Replace(storedWeb, `"max_vcpus": 2,`, "", 1), clone, "how much memory"},
		"a name in lines": {storedWeb, odd, "cannot be written"},
		"no JSON":         {"{", clone, "libxl-json"},
	} {
		if got, err := config(c.stored, c.clone); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v\n%s", what, err, got)
		}
	}
	if got, err := config(strings.Replace(storedWeb, `"nics"`, `"pcidevs": [], "nics"`, 1), clone); err != nil {
		t.Errorf("no PCI device: %v\n%s", err, got)
	}
}

// TestRemove: a clone is ended where scripts may do what they have to, and its end is
// waited for.
func TestRemove(t *testing.T) {
	for _, c := range []struct {
		beside []string
		want   string
	}{
		{nil, "xl destroy 9"},
		{[]string{"systemd-run", "--collect", "--service-type=forking", "--"}, "systemd-run --collect --service-type=oneshot -- xl destroy 9"},
	} {
		was := strings.Join(c.beside, " ")
		var got []string
		x := toolstack.Xl{Beside: c.beside, Run: func(_ context.Context, _ []byte, name string, args ...string) ([]byte, error) {
			got = append([]string{name}, args...)
			return nil, nil
		}}
		if err := x.Remove(t.Context(), 9); err != nil || strings.Join(got, " ") != c.want || strings.Join(c.beside, " ") != was {
			t.Errorf("%q, %v", got, err)
		}
	}
}
