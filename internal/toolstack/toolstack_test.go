package toolstack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/ident"
)

// host makes a machine with files, by path, and processes: pid to name.
func host(t *testing.T, files map[string]string, processes map[string]string) Host {
	t.Helper()
	root := t.TempDir()
	h := Host{State: filepath.Join(root, "lib"), Log: "/var/log/xen", Proc: filepath.Join(root, "proc")}
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(h.Proc, "uptime"), "")
	for path, text := range files {
		write(filepath.Join(h.State, path), text)
	}
	for pid, name := range processes {
		command, log, _ := strings.Cut(name, " ")
		write(filepath.Join(h.Proc, pid, "comm"), command+"\n")
		if err := os.Mkdir(filepath.Join(h.Proc, pid, "fd"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(log, filepath.Join(h.Proc, pid, "fd", "2")); log != "" && err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestOwner(t *testing.T) {
	uuid := ident.UUID{0x5c, 0x0f}
	of := func(id string) string { return "userdata-d.7." + uuid.String() + "." + id }
	restart := `{"c_info": {"name": "web"}, "on_reboot": "restart"}` + "\x00"
	for name, c := range map[string]struct {
		files, processes map[string]string
		want             Owner
		refused          string // part of the message; "" if it would be created again
	}{
		"xl": {map[string]string{of("libxl-json"): restart}, map[string]string{"12": "xl /var/log/xen/xl-web.log"},
			Owner{XL, "xl (12)", "restart"}, ""},
		"xl of another domain": {map[string]string{of("libxl-json"): restart}, map[string]string{"12": "xl /var/log/xen/xl-db.log"},
			Owner{"", "", "restart"}, ""},
		"destroy": {map[string]string{of("libxl-json"): `{"on_reboot": "destroy"}`}, map[string]string{"12": "xl /var/log/xen/xl-web.log"},
			Owner{XL, "xl (12)", "destroy"}, `on_reboot is "destroy"`},
		"destroy, which is libxl's default and not written": {map[string]string{of("libxl-json"): `{"c_info": {"name": "web"}, "on_crash": "restart"}` + "\x00"}, map[string]string{"12": "xl /var/log/xen/xl-web.log"},
			Owner{XL, "xl (12)", "destroy"}, `on_reboot is "destroy"`},
		"migrated in": {map[string]string{of("libxl-json"): restart}, map[string]string{"12": "xl /var/log/xen/xl-web--incoming.log"},
			Owner{XL, "xl (12)", "restart"}, ""},
		"its log was rotated": {map[string]string{of("libxl-json"): restart}, map[string]string{"12": "xl /var/log/xen/xl-web.log.1"},
			Owner{XL, "xl (12)", "restart"}, ""},
		"of a longer name": {nil, map[string]string{"12": "xl /var/log/xen/xl-web.log.db.log"}, Owner{}, ""},
		"libvirt": {map[string]string{of("libxl-json"): restart, of("libvirt-xml"): "<domain/>"}, map[string]string{"3": "libvirtd"},
			Owner{Libvirt, "libvirtd (3)", "restart"}, ""},
		"libvirt's own daemon for Xen": {map[string]string{of("libvirt-xml"): "<domain/>"}, map[string]string{"3": "virtxend"},
			Owner{Libvirt, "virtxend (3)", ""}, ""},
		"libvirt is not running": {map[string]string{of("libvirt-xml"): "<domain/>"}, map[string]string{"4": "virtlogd"},
			Owner{Libvirt, "", ""}, "start libvirtd"},
		"another UUID's": {map[string]string{"userdata-d.7.other.libvirt-xml": ""}, nil, Owner{}, ""},
		"nothing":        {nil, nil, Owner{}, ""},
	} {
		got, err := host(t, c.files, c.processes).Owner(7, uuid, "web")
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		err = got.Recreates()
		if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s: refused because %v", name, err)
		}
	}
	if _, err := host(t, map[string]string{of("libxl-json"): "{"}, nil).Owner(7, uuid, "web"); err == nil {
		t.Error("half a file is taken for one")
	}
}

// TestOddNames: a name is of any bytes, and no pattern.
func TestOddNames(t *testing.T) {
	uuid := ident.UUID{0x5c, 0x0f}
	for _, name := range []string{"caf\xe9", "a b", "(", "web+", "--all", "x\\E", "new\nline", "."} {
		h := host(t, nil, map[string]string{"12": "xl /var/log/xen/xl-" + name + ".log.2"})
		if o, err := h.Owner(7, uuid, name); err != nil || o.Toolstack != XL {
			t.Errorf("%q: %+v, %v", name, o, err)
		}
		if o, err := h.Owner(7, uuid, name+"b"); err != nil || o.Toolstack != "" {
			t.Errorf("not %q: %+v, %v", name, o, err)
		}
	}
}

// TestEnds: libxl spells otherwise than xl.cfg, and leaves out its default.
func TestEnds(t *testing.T) {
	uuid := ident.UUID{0x5c, 0x0f}
	path := "userdata-d.7." + uuid.String() + ".libxl-json"
	for text, want := range map[string]Ends{
		`{}`: {"destroy", "destroy", "destroy", "destroy"},
		`{"on_reboot": "restart_rename", "on_crash": "coredump_restart", "on_poweroff": "preserve", "on_watchdog": "soft_reset"}` + "\x00": {"preserve", "rename-restart", "coredump-restart", "soft-reset"},
	} {
		if got, err := host(t, map[string]string{path: text}, nil).Ends(7, uuid); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	h := host(t, map[string]string{path: `{"on_reboot": "restart_rename"}`}, nil)
	if got, err := h.Ends(8, uuid); err != nil || got != (Ends{}) {
		t.Errorf("%+v, %v", got, err)
	}
	o, err := h.Owner(7, uuid, "web")
	if err != nil || o.Recreates() != nil || o.Releases() == nil {
		t.Errorf("%+v, %v", o, err)
	}
	for end, want := range map[string]bool{"": false, "destroy": false, "preserve": false, "coredump-destroy": false, "restart": true, "rename-restart": true, "coredump-restart": true} {
		if Restarts(end) != want {
			t.Errorf("%s: %t", end, !want)
		}
	}
}
