package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// debian is a Debian host with systemd in namespaces of its own: no Xen, but
// real time. The machine's kernel is its kernel, with cgroups of its own.
type debian struct {
	pid int // of its systemd
}

// debianHost starts one from dom0's root, of which nothing is changed.
func debianHost(t *testing.T, root string) *debian {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var cgroup string
	for _, line := range strings.Split(string(mounts), "\n") {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			cgroup = filepath.Join(f[1], fmt.Sprintf("warmreboot-test-%d", os.Getpid()))
		}
	}
	if cgroup == "" {
		t.Fatal("no cgroup2 is mounted on this machine: systemd needs it")
	}
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	const script = `
mount --make-rprivate /
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
cd "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay .
cd "$2/root"
mount -t proc proc proc; mount -t sysfs sysfs sys; mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tracefs tracefs sys/kernel/tracing
mount -t tmpfs -o mode=755 tmpfs dev # of its own: nothing is made in the machine's
mknod dev/null c 1 3; mknod dev/zero c 1 5; mknod dev/full c 1 7; mknod dev/random c 1 8; mknod dev/urandom c 1 9
mknod dev/disk-of-a-guest b 7 0; mknod dev/other c 10 237
mkdir dev/shm dev/pts; ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp
mount --make-rshared /
echo 5eb0078d0f2d4d9ba8d07a3b60cbe0c5 >etc/machine-id
rm -f etc/systemd/system/*.wants/*
printf '[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n' >etc/systemd/system/test.target
exec chroot . env container=other /usr/lib/systemd/systemd --unit=test.target --log-target=console --show-status=no
`
	command := exec.Command("unshare", "-m", "-p", "-f", "-C", "-i", "-u", "--kill-child", "sh", "-e", "-c", script, "debian", root, t.TempDir())
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	d := new(debian)
	t.Cleanup(func() {
		if d.pid != 0 {
			_ = syscall.Kill(d.pid, syscall.SIGKILL) // ends all that are in its namespace
		} else {
			_ = command.Process.Kill()
		}
		_ = command.Wait() // it was killed
		text, _ := os.ReadFile(log.Name())
		if t.Failed() {
			t.Logf("systemd:\n%s", text)
		}
		if err := removeCgroup(cgroup); err != nil {
			t.Error(err)
		}
	})
	children := fmt.Sprintf("/proc/%d/task/%[1]d/children", command.Process.Pid)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if text, err := os.ReadFile(children); err == nil && len(strings.Fields(string(text))) == 1 {
			d.pid, _ = strconv.Atoi(strings.Fields(string(text))[0])
		}
		if d.pid != 0 {
			if _, err := d.try(t.Context(), "systemctl is-active test.target"); err == nil {
				return d
			}
		}
		if time.Now().After(end) {
			t.Fatal("systemd does not come up")
		}
	}
}

// removeCgroup removes what systemd has made, once its processes are gone.
func removeCgroup(path string) error {
	var dirs []string
	err := filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	slices.Reverse(dirs)
	for _, dir := range dirs {
		rm := os.Remove(dir)
		for end := time.Now().Add(10 * time.Second); errors.Is(rm, syscall.EBUSY) && time.Now().Before(end); rm = os.Remove(dir) {
			time.Sleep(10 * time.Millisecond) // the kernel tells nobody when the last one has left
		}
		err = errors.Join(err, rm)
	}
	return err
}

func (d *debian) try(ctx context.Context, line string) (string, error) {
	command := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(d.pid), "-m", "-p", "-C", "-i", "-u", "-r",
		"env", "-C", "/", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "sh", "-e", "-c", line)
	var stderr strings.Builder
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(output)), err
}

// run runs a line of shell, which must succeed.
func (d *debian) run(t *testing.T, line string) string {
	t.Helper()
	output, err := d.try(t.Context(), line)
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, output)
	}
	return output
}

func (d *debian) await(t *testing.T, property, want string) {
	t.Helper()
	var got string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if got = d.run(t, "systemctl show --value -p "+property+" warmrebootd"); got == want {
			return
		}
	}
	t.Fatalf("%s is %q, want %q", property, got, want)
}

// standIn takes the daemon's place, as there is no Xen: it tries what the daemon
// does, and what it must not be able to, says that it is ready, and gives no
// sign of life after that.
const standIn = `
import ctypes, os, socket, time
libc = ctypes.CDLL(None, use_errno=True)
def check(n):
    if n < 0: raise OSError(ctypes.get_errno(), "")
    return n
def write(path): open(path, "w").write("1")
def read(path): open(path).read(1)
def trace():
    # The host's: of a test that was killed one may be left.
    path = "/sys/kernel/tracing/instances/warmreboot-test-%d" % time.time_ns()
    os.mkdir(path)
    try: write(path + "/tracing_on")
    finally: os.rmdir(path)
def fanotify():
    fd = check(libc.fanotify_init(2, 0))
    check(libc.fanotify_mark(fd, 1, ctypes.c_uint64(0x28), -100, b"/home/other/image"))
def seen(name, what):
    try: what(); print(name, "yes", flush=True)
    except OSError as e: print(name, "no", flush=True)
for path in "/etc/x", "/tmp/x", "/root/x", "/usr/x", "/proc/sys/kernel/hostname", "/sys/kernel/tracing/tracing_on", "/var/lib/warmreboot/x", "/var/lib/xen/x", "/run/warmreboot/x":
    seen("write " + path, lambda: write(path))
for path in "/tmp/image", "/home/other/image", "/proc/1/mountinfo", "/dev/disk-of-a-guest":
    seen("read " + path, lambda: read(path))
seen("fds of others", lambda: os.readlink("/proc/1/fd/0"))
seen("trace", trace)
seen("fanotify", fanotify)
seen("write disk", lambda: os.open("/dev/disk-of-a-guest", os.O_RDWR))
seen("other device", lambda: os.open("/dev/other", os.O_RDONLY))
seen("mount", lambda: check(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)))
seen("become somebody else", lambda: os.setuid(1))
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1\nSTATUS=tried", os.environ["NOTIFY_SOCKET"])
time.sleep(3600)
`

// TestService: what the service may do, with Debian's systemd, in real time; its
// package installed on a host without Xen, upgraded, removed and purged.
func TestService(t *testing.T) {
	t.Parallel()
	cache, checkout, err := build.Open()
	if err != nil {
		t.Fatal(err)
	}
	tools, err := cache.Tools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	root, err := cache.Dom0SystemdRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	built := builtPackages(t, cache, tools, checkout)
	d := debianHost(t, root)
	package_, err := os.ReadFile(built.Product)
	if err != nil {
		t.Fatal(err)
	}
	inside := fmt.Sprintf("/proc/%d/root", d.pid)
	for path, content := range map[string]string{"/root/new.deb": string(package_), "/root/stand-in.py": standIn, "/tmp/image": "x"} {
		if err := os.WriteFile(inside+path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d.run(t, `cd /root && dpkg-deb -R new.deb old && sed -i 's/^Version: .*/Version: 0.0.1/' old/DEBIAN/control && dpkg-deb -Znone -b old old.deb`)

	d.run(t, "dpkg -i /root/old.deb")
	d.await(t, "UnitFileState", "enabled")
	d.await(t, "ConditionResult", "no") // there is no Xen; that is no failure
	d.await(t, "ActiveState", "inactive")
	t.Log(d.run(t, "systemd-analyze security warmrebootd | tail -n 1"))

	d.run(t, `
mkdir -p /var/lib/xen /home/other && echo x >/home/other/image && chown -R 1000 /home/other && chmod 700 /home/other
mkdir /etc/systemd/system/warmrebootd.service.d
cat >/etc/systemd/system/warmrebootd.service.d/test.conf <<END
[Unit]
ConditionPathExists=
[Service]
ExecStart=
ExecStart=/usr/bin/python3 /root/stand-in.py
StandardOutput=truncate:/run/tried
END
systemctl daemon-reload
systemctl start warmrebootd`)
	d.await(t, "StatusText", "tried")
	want := `write /etc/x no
write /tmp/x no
write /root/x no
write /usr/x no
write /proc/sys/kernel/hostname no
write /sys/kernel/tracing/tracing_on no
write /var/lib/warmreboot/x yes
write /var/lib/xen/x yes
write /run/warmreboot/x yes
read /tmp/image yes
read /home/other/image yes
read /proc/1/mountinfo yes
read /dev/disk-of-a-guest yes
fds of others yes
trace yes
fanotify yes
write disk no
other device no
mount no
become somebody else no`
	if got := d.run(t, "cat /run/tried"); got != want {
		t.Errorf("it can:\n%s\nwant:\n%s", got, want)
	}
	d.run(t, "test $(stat -c %a /var/lib/warmreboot) = 700 && test -d /etc/warmreboot")

	before := d.run(t, "systemctl show --value -p MainPID warmrebootd")
	d.run(t, "dpkg -i /root/new.deb")
	d.await(t, "ActiveState", "active")
	if after := d.run(t, "systemctl show --value -p MainPID warmrebootd"); after == before {
		t.Error("the upgrade has not restarted the service")
	}
	d.await(t, "NRestarts", "0")
	d.run(t, "printf '[Service]\\nWatchdogSec=2s\\n' >/etc/systemd/system/warmrebootd.service.d/watchdog.conf; systemctl daemon-reload; systemctl restart warmrebootd")
	d.await(t, "NRestarts", "1") // it gives no sign of life

	// What a domain may boot by is not taken away.
	d.run(t, "mkdir -p /var/lib/warmreboot/updates/x && ! dpkg -r warmreboot && test -x /usr/sbin/warmrebootd && rmdir /var/lib/warmreboot/updates/x")
	d.run(t, "dpkg -r warmreboot && ! systemctl is-active warmrebootd && ! test -e /usr/sbin/warmrebootd && test -d /var/lib/warmreboot && test -e /etc/default/warmreboot")
	d.run(t, "dpkg -P warmreboot && ! test -e /var/lib/warmreboot && ! test -e /etc/default/warmreboot && ! test -e /etc/systemd/system/multi-user.target.wants/warmrebootd.service")
}
