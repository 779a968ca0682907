package toolstack_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/bootonce"
	"github.com/warmreboot/warmreboot/internal/toolstack"
)

var webUUID = ident.UUID{0x5c, 0x0f}

// fakeHost is a host with at most one domain, which xl or libvirt has created: its
// programs, files and processes.
type fakeHost struct {
	toolstack.Host
	t       *testing.T
	libvirt bool

	runs    toolstack.Domain
	last    ident.Domid
	booted  string // the command line that it runs with
	defined []byte // libvirt's definition
	argv    [][]string
}

const (
	xlJSON = `{"c_info": {"name": "domU-web", "domid": 4294967295},
 "b_info": {"max_memkb": 18446744073709551615, "kernel": "KERNEL", "cmdline": "CMDLINE", "type.pvh": {}},
 "disks": [{"pdev_path": "/dev/vdb", "vdev": "xvda", "format": "raw", "readwrite": 1}], "on_reboot": "restart"}`
	xlConfig = `name = "domU-web"
uuid = "UUID"
kernel = "KERNEL"
cmdline = "root=/dev/xvda ro"
disk = [ "/dev/vdb,raw,xvda" ]
`
	libvirtXML = `<domain type='xen' xmlns:xl='http://libvirt.org/schemas/domain/xen/1.0'>
  <name>domU-web</name><uuid>UUID</uuid><!-- kept -->
  <os>
    <type arch='x86_64'>xenpvh</type>
    <kernel>KERNEL</kernel>
    <cmdline>root=/dev/xvda ro</cmdline>
  </os>
  <devices><kernel>not this one</kernel></devices>
  <xl:commandline><xl:arg value='a&amp;b'/></xl:commandline>
</domain>
`
)

func (h *fakeHost) write(path, text string) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *fakeHost) userdata(what string) string {
	return filepath.Join(h.State, fmt.Sprintf("userdata-d.%d.%s.%s", h.runs.Domid, h.runs.UUID, what))
}

// boot creates the domain of a configuration of libxl's.
func (h *fakeHost) boot(raw []byte) {
	h.t.Helper()
	var c struct {
		B struct {
			Kernel, Cmdline, Bootloader string
			Args                        []string    `json:"bootloader_args"`
			Memory                      json.Number `json:"max_memkb"`
		} `json:"b_info"`
	}
	if err := json.Unmarshal([]byte(strings.TrimRight(string(raw), "\x00")), &c); err != nil || c.B.Memory != "18446744073709551615" {
		h.t.Fatalf("libxl cannot read %q: %v", raw, err)
	}
	if _, err := os.Stat(c.B.Kernel); err != nil {
		h.t.Fatal(err)
	}
	h.last++
	if c.B.Bootloader != "" {
		c.B.Kernel, c.B.Cmdline = h.load(c.B.Bootloader, append([]string{"--kernel=" + c.B.Kernel, "--args=" + c.B.Cmdline}, c.B.Args...))
	}
	h.runs, h.booted = toolstack.Domain{Domid: h.last, UUID: webUUID, Name: "domU-web"}, c.B.Cmdline
	h.write(h.userdata("libxl-json"), strings.TrimRight(string(raw), "\x00")+"\x00")
	if h.libvirt {
		h.write(h.userdata("libvirt-xml"), "")
	}
}

// load runs a boot loader as libxl does.
func (h *fakeHost) load(program string, args []string) (kernel, cmdline string) {
	h.t.Helper()
	dir := filepath.Join(h.State, fmt.Sprintf("bootloader.%d.d", h.last))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	argv := append(append([]string{"--output=" + dir + "/out", "--output-format=simple0", "--output-directory=" + dir}, args...), "/dev/vdb")
	var said bytes.Buffer
	if program != fakeLoader || bootonce.Main(argv, &said) != 0 {
		h.t.Fatalf("%s %q: %s", program, argv, &said)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, item := range strings.Split(string(raw), "\x00") {
		switch key, value, _ := strings.Cut(item, " "); key {
		case "kernel":
			kernel = value
		case "args":
			cmdline = value
		}
	}
	return kernel, cmdline
}

const fakeLoader = "/usr/sbin/a-loader"

// end takes the domain away, and returns what libxl had stored of it.
func (h *fakeHost) end() []byte {
	raw, err := os.ReadFile(h.userdata("libxl-json"))
	if err != nil {
		h.t.Fatal(err)
	}
	_ = os.Remove(h.userdata("libvirt-xml"))
	if err := os.Remove(h.userdata("libxl-json")); err != nil {
		h.t.Fatal(err)
	}
	h.runs = toolstack.Domain{}
	return raw
}

// toJSON is what libvirt makes of its definition for libxl.
func (h *fakeHost) toJSON() []byte {
	var v struct {
		OS struct {
			Kernel  string `xml:"kernel"`
			Cmdline string `xml:"cmdline"`
		} `xml:"os"`
		Loader string `xml:"bootloader"`
		Args   string `xml:"bootloader_args"`
	}
	if err := xml.Unmarshal(h.defined, &v); err != nil {
		h.t.Fatal(err)
	}
	for _, kept := range []string{"<!-- kept -->", "not this one", "<xl:arg value='a&amp;b'/>", "xenpvh"} {
		if !strings.Contains(string(h.defined), kept) {
			h.t.Errorf("lost: %s of\n%s", kept, h.defined)
		}
	}
	build := map[string]any{"kernel": v.OS.Kernel, "cmdline": v.OS.Cmdline, "max_memkb": json.Number("18446744073709551615"), "type.pvh": map[string]any{}}
	if v.Loader != "" {
		build["bootloader"], build["bootloader_args"] = v.Loader, []string{v.Args}
	}
	raw, err := json.Marshal(map[string]any{"b_info": build, "on_reboot": "restart", "disks": []any{map[string]any{"pdev_path": "/dev/vdb", "format": "raw"}}})
	if err != nil {
		h.t.Fatal(err)
	}
	return raw
}

// Reboot and ForceReboot implement toolstack.Lifecycle.
func (h *fakeHost) Reboot(_ context.Context, domid ident.Domid) error {
	if h.runs.Domid != domid {
		return nil
	}
	raw := h.end()
	if h.libvirt {
		raw = h.toJSON()
	}
	h.boot(raw)
	return nil
}

func (h *fakeHost) ForceReboot(ctx context.Context, domid ident.Domid) error {
	return h.Reboot(ctx, domid)
}

// run is xl and virsh.
func (h *fakeHost) run(_ context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	h.argv = append(h.argv, append([]string{name}, args...))
	if name == "virsh" {
		args = args[3:] // -q -c URI
	}
	file := func() []byte {
		raw, err := os.ReadFile(args[1])
		if err != nil {
			h.t.Fatal(err)
		}
		return raw
	}
	mine := len(args) > 1 && args[len(args)-1] == webUUID.String()
	switch command := name + " " + args[0]; {
	case command == "xl create" && h.runs.Domid == 0:
		h.boot(h.stored(file(), args[2:]))
	case command == "xl destroy" && args[1] == fmt.Sprint(h.runs.Domid):
		h.end()
	case command == "virsh define" && args[1] == "/dev/stdin":
		h.defined = stdin
	case command == "virsh start" && mine && h.runs.Domid == 0:
		h.boot(h.toJSON())
	case command == "virsh destroy" && mine && h.runs.Domid != 0:
		h.end()
	case command == "virsh dumpxml" && mine && h.defined != nil:
		return h.defined, nil
	case command == "virsh list":
		if args[len(args)-1] == "--persistent" && h.defined != nil || args[len(args)-1] == "--state-paused" && h.runs.Domid != 0 {
			return []byte(webUUID.String() + "\n"), nil
		}
	default:
		return nil, fmt.Errorf("%s %q: exit status 1", name, args)
	}
	return nil, nil
}

// stored is what libxl stores of a configuration of xl's with lines that are added.
func (h *fakeHost) stored(config []byte, lines []string) []byte {
	text := string(config) + "\n" + strings.Join(lines, "\n") + "\n"
	json := xlJSON
	for key, name := range map[string]string{"KERNEL": "kernel", "CMDLINE": "cmdline", "UUID": "uuid"} {
		all := regexp.MustCompile(`(?m)^`+name+` = "(.*)"$`).FindAllStringSubmatch(text, -1)
		if len(all) == 0 {
			h.t.Fatalf("no %s in %q", name, text)
		}
		json = strings.ReplaceAll(json, key, all[len(all)-1][1])
	}
	return []byte(json)
}

// newFake makes a host, with programs that only have to be there.
func newFake(t *testing.T, libvirt bool) (*fakeHost, bed) {
	t.Helper()
	root := t.TempDir()
	h := &fakeHost{t: t, libvirt: libvirt, last: 6,
		Host: toolstack.Host{State: filepath.Join(root, "lib"), Log: "/var/log/xen", Proc: filepath.Join(root, "proc")}}
	for _, program := range []string{"xl", "virsh"} {
		h.write(filepath.Join(root, "bin", program), "")
		if err := os.Chmod(filepath.Join(root, "bin", program), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", filepath.Join(root, "bin"))
	kernel, config := filepath.Join(root, "vmlinuz"), filepath.Join(root, "config")
	h.write(kernel, "")
	template, command := xlConfig, "xl"
	if libvirt {
		template, command = libvirtXML, "libvirtd"
	}
	h.write(config, strings.NewReplacer("KERNEL", kernel, "UUID", webUUID.String()).Replace(template))
	h.write(filepath.Join(h.Proc, "12", "comm"), command+"\n")
	if err := os.Mkdir(filepath.Join(h.Proc, "12", "fd"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/var/log/xen/xl-domU-web.log", filepath.Join(h.Proc, "12", "fd", "2")); err != nil {
		t.Fatal(err)
	}
	b := bed{config: config, patience: time.Second,
		domain: func() (toolstack.Domain, bool) { return h.runs, h.runs.Domid != 0 },
		cmdline: func() (string, error) {
			if h.runs.Domid == 0 {
				return "", errors.New("it is down")
			}
			return h.booted, nil
		}}
	if libvirt {
		b.Driver = toolstack.LibvirtDriver{Lifecycle: h, Host: h.Host, Run: h.run, Loader: fakeLoader}
	} else {
		b.Driver = toolstack.Xl{Lifecycle: h, Host: h.Host, Run: h.run, Loader: fakeLoader}
	}
	return h, b
}

func TestFakes(t *testing.T) {
	for name, libvirt := range map[string]bool{toolstack.XL: false, toolstack.Libvirt: true} {
		t.Run(name, func(t *testing.T) {
			h, b := newFake(t, libvirt)
			conform(t, b)
			// A toolstack is told domids, UUIDs and absolute paths: no name.
			for _, argv := range h.argv {
				if strings.Contains(strings.Join(argv, " "), "domU-web") {
					t.Errorf("%q has a name", argv)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(h.State, "userdata-[ln].*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestOwnKernel: the kernel of a domain that boots by a loader is not the toolstack's,
// and a definition that libvirt has not is not made.
func TestOwnKernel(t *testing.T) {
	ctx := context.Background()
	for name, libvirt := range map[string]bool{toolstack.XL: false, toolstack.Libvirt: true} {
		h, b := newFake(t, libvirt)
		if err := b.Create(ctx, b.config); err != nil {
			t.Fatal(err)
		}
		k, err := b.Kernel(ctx, h.runs)
		if err != nil {
			t.Fatal(name, err)
		}
		h.write(h.userdata("libxl-json"), `{"b_info": {"bootloader": "pygrub", "kernel": "`+k.File+`"}}`)
		h.defined = []byte("<domain><os><loader>/usr/lib/ovmf</loader></os></domain>")
		if _, err := b.Kernel(ctx, h.runs); !errors.Is(err, toolstack.ErrOwnKernel) {
			t.Errorf("%s: %v", name, err)
		}
		if err := b.SetKernel(ctx, h.runs, k); !errors.Is(err, toolstack.ErrOwnKernel) {
			t.Errorf("%s: %v", name, err)
		}
		if h.defined = nil; !libvirt {
			continue
		}
		if err := b.SetKernel(ctx, h.runs, k); err == nil || h.defined != nil || !strings.Contains(err.Error(), "virsh define") {
			t.Errorf("%s: %v, %q", name, err, h.defined)
		}
	}
}

// TestCanTry: what libxl runs no loader for, or would do more for, has no trial.
func TestCanTry(t *testing.T) {
	const raw = `"disks": [{"pdev_path": "/dev/vdb", "format": "raw"}]`
	for text, want := range map[string]string{
		`{"b_info": {"type.pvh": {}}, ` + raw + `}`:                                                        "",
		`{"b_info": {"type.pv": {}}, ` + raw + `}`:                                                         "",
		`{"b_info": {"type.hvm": {}}, ` + raw + `}`:                                                        "HVM",
		`{"b_info": {"type.pvh": {}}}`:                                                                     "no disk",
		`{"b_info": {"type.pvh": {}}, "disks": [{"pdev_path": "/x", "format": "qcow2"}]}`:                  "/x",
		`{"b_info": {"type.pvh": {}}, "disks": [{"pdev_path": "/x", "format": "raw", "script": "iscsi"}]}`: "/x",
		`{"b_info": {"type.pvh": {}}, "disks": 7}`:                                                         "cannot unmarshal",
	} {
		h, b := newFake(t, false)
		if err := b.Create(t.Context(), b.config); err != nil {
			t.Fatal(err)
		}
		h.write(h.userdata("libxl-json"), text)
		if kind, err := b.CanTry(h.runs); want == "" && (err != nil || kind == "") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %q, %v", text, kind, err)
		}
	}
	h, b := newFake(t, false)
	if err := b.Create(t.Context(), b.config); err != nil {
		t.Fatal(err)
	}
	h.write(h.userdata("xl"), "name = 'other'")
	if _, err := b.CanTry(h.runs); err == nil || !strings.Contains(err.Error(), "config-update") {
		t.Errorf("with another configuration for its next boot: %v", err)
	}
	if _, err := b.CanTry(toolstack.Domain{Domid: 99}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a domain that is not there: %v", err)
	}
	// Without a loader there is nothing to try by.
	k, err := b.Kernel(t.Context(), h.runs)
	if err != nil {
		t.Fatal(err)
	}
	k.Once = "/var/lib/a trial"
	if err := b.Recreate(t.Context(), h.runs, k, ""); err == nil || !strings.Contains(err.Error(), "xl create") {
		t.Errorf("recreated of nothing: %v", err)
	}
	if err := (toolstack.Xl{Host: h.Host}).SetKernel(t.Context(), h.runs, k); err == nil || !strings.Contains(err.Error(), "loader") {
		t.Errorf("without a loader: %v", err)
	}
	_, b = newFake(t, true)
	if err := b.SetKernel(t.Context(), h.runs, k); err == nil || !strings.Contains(err.Error(), "blanks") {
		t.Errorf("libvirt, of a folder with a blank: %v", err)
	}
}

// TestRecreateOfAnother: a file that is about another domain, or is not understood, makes
// no domain.
func TestRecreateOfAnother(t *testing.T) {
	h, b := newFake(t, false)
	k := toolstack.Kernel{File: filepath.Join(t.TempDir(), "vmlinuz"), Cmdline: "c"}
	h.write(k.File, "")
	web := toolstack.Domain{Domid: 7, UUID: webUUID, Name: "domU-web"}
	for name, text := range map[string]string{
		"another":   "name = 'domU-web'\nuuid = '" + ident.UUID{9}.String() + "'\n",
		"no xl.cfg": "import os\n",
		"a=b":       "name = 'domU-web'\n",
		"a loader":  "name = 'domU-web'\nbootloader = 'pygrub'\n",
	} {
		file := filepath.Join(t.TempDir(), name)
		h.write(file, text)
		if err := b.Recreate(t.Context(), web, k, file); err == nil || !strings.Contains(err.Error(), file) || len(h.argv) > 0 {
			t.Errorf("%s: %v, %q", name, err, h.argv)
		}
	}
	k.File += "x"
	if err := b.Recreate(t.Context(), web, k, b.config); err == nil || len(h.argv) > 0 {
		t.Errorf("with no kernel: %v, %q", err, h.argv)
	}
}

// TestRecreateBeside: what systemd would take for a variable is not taken for one.
func TestRecreateBeside(t *testing.T) {
	h, _ := newFake(t, false)
	k := toolstack.Kernel{File: filepath.Join(t.TempDir(), "vmlinuz"), Cmdline: "memmap=4G$1G x=${HOME}"}
	h.write(k.File, "")
	file := filepath.Join(t.TempDir(), "web.cfg")
	h.write(file, "name = 'domU-web'\n")
	for _, beside := range [][]string{nil, {"systemd-run", "--"}} {
		var argv []string
		x := toolstack.Xl{Beside: beside, Run: func(_ context.Context, _ []byte, name string, args ...string) ([]byte, error) {
			argv = append([]string{name}, args...)
			return nil, nil
		}}
		if err := x.Recreate(t.Context(), toolstack.Domain{Domid: 7, UUID: webUUID, Name: "domU-web"}, k, file); err != nil {
			t.Fatal(err)
		}
		want := `cmdline = "memmap=4G$1G x=${HOME}"`
		if beside != nil {
			want = `cmdline = "memmap=4G$$1G x=$${HOME}"`
		}
		if argv[len(argv)-1] != want {
			t.Errorf("%q", argv)
		}
	}
}

// TestNotInstalled: what a host has no program for is said, with what to install.
func TestNotInstalled(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for want, d := range map[string]toolstack.Driver{"xen-utils-common": toolstack.Xl{}, "libvirt-clients": toolstack.LibvirtDriver{}} {
		if err := d.Can(toolstack.Creates); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if err := (toolstack.Xl{}).Can(toolstack.SetsKernel); err != nil {
		t.Error(err)
	}
}
