package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab"
)

// small is a second domU, whose whole disk is busybox, the lab's agent and the
// program that calls Xen as nobody should. Its kernel is the usual one.
type small struct {
	name   string
	uuid   string
	memory int // MiB
	disk   string
	// restart makes xl create it again when it reboots or crashes.
	restart bool
}

const smallAddress = "10.0.5.3"

// smallDisk makes the disk of a small domU. $1 is its path, $2 the size in MiB
// of the file with the secret in it. Only blocks of a page's size are tracked.
const smallDisk = `
set -e
root=$(mktemp -d /tmp/small.XXXXXX)
mkdir $root/bin $root/dev $root/proc $root/sys $root/tmp
cp /bin/busybox /usr/local/sbin/labagent /root/hostile $root/bin/
for applet in sh cat mount ip; do ln -s busybox $root/bin/$applet; done
cat >$root/init <<END
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /tmp
ip link set lo up
ip link set eth0 up
ip addr add 10.0.5.3 peer 10.0.5.1/32 dev eth0
exec /bin/labagent serve
END
chmod 755 $root/init
[ "$2" = 0 ] || /root/hostile pattern "$2" >$root/secret
mke2fs -q -t ext4 -b 4096 -O ^has_journal -d $root -F "$1" $((24 + $2))M
rm -rf $root
`

// bringHostile builds the programs that misbehave and puts them into dom0.
func (b *bed) bringHostile(t *testing.T) {
	t.Helper()
	cache, _, series, tools := patchedXen(t)
	programs, err := cache.Hostile(t.Context(), tools, series)
	if err != nil {
		t.Fatal(err)
	}
	dom0 := b.Machine.Dom0()
	if err := errors.Join(dom0.Put(t.Context(), programs.Program, "/root/hostile", 0o755),
		dom0.Put(t.Context(), programs.Scanner, "/root/scan", 0o644),
		dom0.Put(t.Context(), programs.Compat, "/root/compat", 0o644),
		dom0.PutBytes(t.Context(), []byte(smallDisk), "/root/small-disk")); err != nil {
		t.Fatal(err)
	}
	b.dom0(t, "sed s/10.0.5.2/"+smallAddress+"/ /etc/xen/scripts/vif-lab >/etc/xen/scripts/vif-small; chmod 755 /etc/xen/scripts/vif-small")
	b.dom0(t, "setsid /root/hostile serve >/tmp/serve.log 2>&1 </dev/null &")
}

// makeSmall creates the domain, paused, and returns its domid.
func (b *bed) makeSmall(t *testing.T, s small) int {
	t.Helper()
	end := "destroy"
	if s.restart {
		end = "restart"
	}
	config := fmt.Sprintf(`name = "%s"
uuid = "%s"
type = "pvh"
kernel = "/boot/guest-kernel"
cmdline = "root=/dev/xvda rootfstype=ext4 ro console=hvc0 panic=1 init=/init net.ifnames=0 xen_privcmd.unrestricted=1 %s"
memory = %d
vcpus = 2
disk = [ "file:%s,xvda,r" ]
vif = [ "script=vif-small,mac=00:16:3e:00:00:02" ]
on_poweroff = "destroy"
on_reboot = "%s"
on_crash = "%[6]s"
`, s.name, s.uuid, b.options, s.memory, s.disk, end)
	if err := b.Machine.Dom0().PutBytes(t.Context(), []byte(config), "/root/small.cfg"); err != nil {
		t.Fatal(err)
	}
	b.dom0(t, "xl create -p /root/small.cfg")
	return b.domid(t, s.name)
}

// runSmall lets it run and returns its agent when that answers.
func (b *bed) runSmall(t *testing.T, s small) *lab.Client {
	t.Helper()
	b.dom0(t, "xl unpause "+s.name)
	client := b.Machine.At(smallAddress)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := client.Await(ctx); err != nil {
		text, _ := b.Machine.Dom0().Shell(t.Context(), "tail -n 30 /var/log/xen/console/guest-"+s.name+".log")
		t.Fatalf("%v\n%s", err, text)
	}
	return client
}

func (b *bed) domid(t *testing.T, name string) int {
	t.Helper()
	id, err := strconv.Atoi(b.dom0(t, "xl domid "+name))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// verdict is a line that the hostile program prints.
type verdict struct {
	Case      string   `json:"case"`
	Want      string   `json:"want"`
	Got       string   `json:"got"`
	SlowestMS *float64 `json:"slowest_ms"`
	WorstMS   *float64 `json:"worst_ms"`
}

// hostile runs the program, and fails the test for each case that did not end
// as it should. It returns how late, at worst, dom0 woke up, if that was asked.
func hostile(t *testing.T, where *lab.Client, program string, args ...any) (worst float64) {
	t.Helper()
	words := []string{program}
	for _, arg := range args {
		words = append(words, fmt.Sprint(arg))
	}
	output, err := where.Run(t.Context(), words...)
	var exit *lab.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.Code == 1) {
		t.Fatalf("%v\n%s", err, output)
	}
	cases := 0
	for lines := bufio.NewScanner(bytes.NewReader(output)); lines.Scan(); {
		var v verdict
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		switch {
		case v.WorstMS != nil:
			worst = *v.WorstMS
		case v.SlowestMS != nil:
			t.Logf("%s: the slowest call kept its vCPU running for %.1f ms", strings.Join(words[1:], " "), *v.SlowestMS)
			if *v.SlowestMS > longestHang && *processors == 1 {
				t.Errorf("%s: a call of %.1f ms, want at most %.0f", strings.Join(words[1:], " "), *v.SlowestMS, longestHang)
			}
		default:
			cases++
			if v.Want != v.Got {
				t.Errorf("%s: %s: %s, want %s", strings.Join(words[1:], " "), v.Case, v.Got, v.Want)
			}
		}
	}
	t.Logf("%s: %d cases", strings.Join(words[1:], " "), cases)
	return worst
}

// control is one domctl: what Xen returned, and for an image its pages.
func (b *bed) control(t *testing.T, args ...any) (rc, pages int) {
	t.Helper()
	words := []string{"/root/hostile", "control"}
	for _, arg := range args {
		words = append(words, fmt.Sprint(arg))
	}
	answer, err := lab.JSON[struct {
		RC    int `json:"rc"`
		Pages int `json:"pages"`
	}](t.Context(), b.Machine.Dom0(), words...)
	if err != nil {
		t.Fatal(err)
	}
	return answer.RC, answer.Pages
}

// must is a domctl that has to succeed.
func (b *bed) must(t *testing.T, args ...any) (pages int) {
	t.Helper()
	rc, pages := b.control(t, args...)
	if rc != 0 {
		t.Fatalf("%v: %d", args, rc)
	}
	return pages
}

// counters are of a domain's warm cache.
type counters struct {
	Registered    int `json:"registered"`
	Committed     int `json:"committed"`
	ForeignWrites int `json:"foreign_writes"`
	P2MChanges    int `json:"p2m_changes"`
}

func (b *bed) counters(t *testing.T, domid int) counters {
	t.Helper()
	c, err := lab.JSON[counters](t.Context(), b.Machine.Dom0(), "/root/hostile", "counters", fmt.Sprint(domid))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// patience is how long something may take by the host's clock before it is
// taken for a hang. The machines' own clocks count instructions, so that on a
// busy host one of their seconds may well take a minute.
const patience = 10 * time.Minute

// await asks again and again for what nothing outside the emulator is told of;
// not too often, for the machine's clock goes slowly while it answers.
func await(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !reached(); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}
