package toolstack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/warmreboot/warmreboot/ident"
)

// Clone is a domain that is to be made like another one, to be thrown away.
type Clone struct {
	Name   string
	UUID   ident.UUID
	Kernel Kernel
	Disks  []CloneDisk
	// Bridge is what its network interfaces are put on; "": it has none.
	Bridge string
}

// CloneDisk is a disk of a clone.
type CloneDisk struct {
	Path     string // of a file or device of dom0
	Name     string // xvda
	ReadOnly bool
}

// shared are what libxl stores of a domain and a clone is given, or does without, and
// nothing of which makes the kernel boot otherwise. All else is refused: a clone without
// a device that the new kernel needs would be a reason against it.
var shared = []string{"c_info", "b_info", "disks", "nics", "vfbs", "vkbs", "channels", "on_poweroff", "on_reboot", "on_watchdog", "on_crash", "on_soft_reset"}

// CloneConfig returns xl's configuration (xl.cfg(5)) of a clone of a domain: of its kind,
// with as much memory, as many processors and network interfaces. Whoever has created the
// domain has done it by libxl, which knows. The clone stays when it has shut down, so
// that whoever waits for it sees that it has.
func (h Host) CloneConfig(of Domain, c Clone) ([]byte, error) {
	path := h.userdata(of.Domid, of.UUID, "libxl-json")
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := parseStored(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	kind, err := s.guest()
	if err != nil {
		return nil, err
	}
	var disks, nics []json.RawMessage
	for key, into := range map[string]*[]json.RawMessage{"disks": &disks, "nics": &nics} {
		if raw, ok := s.all[key]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", path, key, err)
			}
		}
	}
	if len(disks) != len(c.Disks) {
		return nil, fmt.Errorf("it has %d disks, of which dom0 serves %d", len(disks), len(c.Disks))
	}
	for key, raw := range s.all {
		if text := string(raw); !slices.Contains(shared, key) && text != "[]" && text != "{}" {
			return nil, fmt.Errorf("it has %s, which a clone cannot have", key)
		}
	}
	var build struct {
		VCPUs     int    `json:"max_vcpus"`
		Available []int  `json:"avail_vcpus"`
		MaxMem    uint64 `json:"max_memkb"`
		Memory    uint64 `json:"target_memkb"`
		TSC       string `json:"tsc_mode"`
	}
	if err := json.Unmarshal(s.all["b_info"], &build); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if build.VCPUs < 1 || build.MaxMem == 0 || build.MaxMem > 1<<40 {
		return nil, fmt.Errorf("%s does not say how much memory and how many processors it has", path)
	}
	mib := func(kb uint64) uint64 { return (kb + 1023) / 1024 }
	if build.Memory == 0 || build.Memory > build.MaxMem {
		build.Memory = build.MaxMem
	}
	config := settings{}
	config.text("name", c.Name)
	config.text("uuid", c.UUID.String())
	config.text("type", kind)
	config.text("kernel", c.Kernel.File)
	if c.Kernel.Initrd != "" {
		config.text("ramdisk", c.Kernel.Initrd)
	}
	config.text("cmdline", c.Kernel.Cmdline)
	config.number("memory", mib(build.Memory))
	config.number("maxmem", mib(build.MaxMem))
	config.number("maxvcpus", uint64(build.VCPUs))
	if n := len(build.Available); n > 0 && n < build.VCPUs {
		config.number("vcpus", uint64(n))
	} else {
		config.number("vcpus", uint64(build.VCPUs))
	}
	if build.TSC != "" {
		config.text("tsc_mode", build.TSC)
	}
	var list []string
	for _, d := range c.Disks {
		access := "w"
		if d.ReadOnly {
			access = "r"
		}
		list = append(list, fmt.Sprintf("format=raw,vdev=%s,access=%s,target=%s", d.Name, access, d.Path)) // target goes up to the end
	}
	config.list("disk", list)
	list = nil
	for i := range nics {
		if c.Bridge != "" {
			// Xen's own prefix, and of the clone's UUID.
			list = append(list, fmt.Sprintf("mac=00:16:3e:%02x:%02x:%02x,bridge=%s", c.UUID[13]&0x7f, c.UUID[14], c.UUID[15]^byte(i), c.Bridge))
		}
	}
	if len(list) > 0 {
		config.list("vif", list)
	}
	for _, end := range []string{"on_poweroff", "on_reboot", "on_crash", "on_watchdog"} {
		config.text(end, "preserve")
	}
	return []byte(strings.Join(config.lines, "\n") + "\n"), config.err
}

// settings are lines of xl's language.
type settings struct {
	lines []string
	err   error
}

// quote quotes a string as libxlu's lexer takes it. Of its escapes those by number are
// not used, as it reads them wrongly.
func (s *settings) quote(text string) string {
	if strings.ContainsFunc(text, unicode.IsControl) {
		s.err = errors.Join(s.err, fmt.Errorf("%q cannot be written into a configuration of xl's", text))
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

func (s *settings) line(key, value string) { s.lines = append(s.lines, key+" = "+value) }

func (s *settings) text(key, value string) { s.line(key, s.quote(value)) }

func (s *settings) number(key string, n uint64) { s.line(key, fmt.Sprint(n)) }

func (s *settings) list(key string, all []string) {
	var quoted []string
	for _, text := range all {
		quoted = append(quoted, s.quote(text))
	}
	s.line(key, "[ "+strings.Join(quoted, ", ")+" ]")
}

// CloneConfig is Host's.
func (x Xl) CloneConfig(of Domain, c Clone) ([]byte, error) { return x.Host.CloneConfig(of, c) }

// Remove ends a domain, for good, by its domid alone: also one whose creation was broken
// off, of which libxl has stored nothing. Whoever calls it has just seen whose domid it is.
func (x Xl) Remove(ctx context.Context, domid ident.Domid) error {
	// Its scripts take locks and detach loop devices, which the daemon may not.
	args := slices.Clone(x.Beside)
	if i := slices.Index(args, forking); i >= 0 {
		args[i] = oneshot
	}
	args = append(args, "xl", "destroy", fmt.Sprint(domid))
	_, err := x.Run(ctx, nil, args[0], args[1:]...)
	return err
}
