// Package toolstack is who creates domains: xl or libvirt. It finds out who would
// create one again after it has rebooted, which is never the agent: with xl it is the
// xl process that created the domain, with libvirt its daemon. What else is asked of
// them is a Driver's.
package toolstack

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/warmreboot/warmreboot/ident"
)

// Toolstacks that are recognised.
const (
	XL      = "xl"
	Libvirt = "libvirt"
)

// Owner is what is known of who created a domain.
type Owner struct {
	Toolstack string // XL, Libvirt, or "" for somebody else
	// Process is who would create the domain again; "" if it does not run.
	Process string
	// OnReboot is Ends.Reboot.
	OnReboot string
}

// Ends are what is to become of a domain that ends, by how it does, as xl.cfg(5)
// names it: restart, destroy and so on; "" if nobody says.
type Ends struct{ Poweroff, Reboot, Crash, Watchdog string }

// Restarts reports whether the domain is created again after that.
func Restarts(end string) bool { return strings.Contains(end, "restart") }

// Recreates returns nil if the domain will be created again when it reboots, as
// far as can be told, else why not and what to do.
func (o Owner) Recreates() error {
	switch {
	case o.OnReboot != "" && !Restarts(o.OnReboot):
		return fmt.Errorf(`its on_reboot is %q, so it would not come back: set it to "restart" and create it again`, o.OnReboot)
	case o.Toolstack == Libvirt && o.Process == "":
		return errors.New("libvirt has created it, but neither libvirtd nor virtxend runs, so nobody would create it again: start libvirtd")
	}
	return nil
}

// Releases returns nil if what a domain has in memory is let go of when it reboots,
// else why not: then nothing of it can come back.
func (o Owner) Releases() error {
	if o.OnReboot == renameRestart {
		return errors.New(`its on_reboot is "rename-restart": the old domain stays, with its memory and its disks; set it to "restart" and create it again`)
	}
	return nil
}

// Host is a machine's files and processes.
type Host struct {
	State string // of libxl: /var/lib/xen
	Log   string // of xl: /var/log/xen
	Proc  string
}

// Here is this machine.
var Here = Host{State: "/var/lib/xen", Log: "/var/log/xen", Proc: "/proc"}

// userdata is what libxl keeps for its users, in files named after domid and UUID.
func (h Host) userdata(domid ident.Domid, uuid ident.UUID, id string) string {
	return filepath.Join(h.State, fmt.Sprintf("userdata-d.%d.%s.%s", domid, uuid, id))
}

const renameRestart = "rename-restart"

// end is an action of libxl's (libxl_action_on_shutdown), as xl.cfg(5) spells it. What
// libxl does not write is its default.
func end(action string) string {
	switch action {
	case "":
		return "destroy"
	case "restart_rename":
		return renameRestart
	}
	return strings.ReplaceAll(action, "_", "-")
}

// Ends returns what is to become of a domain, whoever has created it by means of
// libxl. libxl forgets it when the domain is destroyed.
func (h Host) Ends(domid ident.Domid, uuid ident.UUID) (Ends, error) {
	path := h.userdata(domid, uuid, "libxl-json")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Ends{}, nil
	}
	if err != nil {
		return Ends{}, err
	}
	var config struct {
		Poweroff string `json:"on_poweroff"`
		Reboot   string `json:"on_reboot"`
		Crash    string `json:"on_crash"`
		Watchdog string `json:"on_watchdog"`
	}
	if err := json.Unmarshal(bytes.TrimRight(raw, "\x00"), &config); err != nil {
		return Ends{}, fmt.Errorf("%s: %w", path, err)
	}
	return Ends{end(config.Poweroff), end(config.Reboot), end(config.Crash), end(config.Watchdog)}, nil
}

// restOfLog is what follows a domain's name in that of a log of its xl.
var restOfLog = regexp.MustCompile(`^(-{2}incoming)?\.log([.-][0-9]+)*( \(deleted\))?$`)

// Owner looks for who has created a domain. libvirt's userdata is registered in
// libxl.h.
func (h Host) Owner(domid ident.Domid, uuid ident.UUID, name string) (Owner, error) {
	ends, err := h.Ends(domid, uuid)
	if err != nil {
		return Owner{}, err
	}
	o := Owner{OnReboot: ends.Reboot}
	switch _, err := os.Stat(h.userdata(domid, uuid, "libvirt-xml")); {
	case err == nil:
		o.Toolstack = Libvirt
		o.Process, err = h.process(func(command, _ string) bool {
			return slices.Contains([]string{"libvirtd", "virtxend"}, command)
		})
		return o, err
	case !errors.Is(err, fs.ErrNotExist):
		return o, err
	}
	// xl leaves nothing but the process, which writes to a log of its own, named as the
	// domain was when it began: one that was migrated here was not called by its name yet.
	// Logs are rotated, by xl too.
	log := filepath.Join(h.Log, "xl-"+name)
	o.Process, err = h.process(func(command, dir string) bool {
		if command != "xl" {
			return false
		}
		target, err := os.Readlink(filepath.Join(dir, "fd", "2"))
		rest, ours := strings.CutPrefix(target, log)
		return err == nil && ours && restOfLog.MatchString(rest)
	})
	if o.Process != "" {
		o.Toolstack = XL
	}
	return o, err
}

// process returns "name (pid)" of the first process that is the one, by its
// name and folder in /proc.
func (h Host) process(is func(command, dir string) bool) (string, error) {
	entries, err := os.ReadDir(h.Proc)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if e.Name()[0] < '0' || e.Name()[0] > '9' {
			continue
		}
		dir := filepath.Join(h.Proc, e.Name())
		raw, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue // it has ended meanwhile
		}
		if command := strings.TrimSpace(string(raw)); is(command, dir) {
			return fmt.Sprintf("%s (%s)", command, e.Name()), nil
		}
	}
	return "", nil
}
