package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Stack is what a block device is made of, from itself to the bottom, as far as it
// says what the device's contents are: if two stacks do not differ, nobody has put
// other contents there in between without writing through the device.
//
// An LVM snapshot merged into its origin, a table that is exchanged, another volume
// in the place of the first: none of them is a write, and no counter of the device
// moves.
type Stack struct {
	Layers []Layer `json:"layers,omitempty"`
	// Listener names who counted the Changes of the layers, "" if none needs it.
	// Counts of another one cannot be compared.
	Listener string `json:"listener,omitempty"`
	// Lost is how often the kernel's events were lost to the listener.
	Lost uint64 `json:"lost,omitempty"`
	// Blind is why the stack cannot be vouched for, "" if it can: it has a layer
	// whose contents may change without a trace here.
	Blind string `json:"blind,omitempty"`
}

// Layer is a device of a stack.
type Layer struct {
	Name    string `json:"name"`   // dm-1
	Device  string `json:"device"` // "major:minor"
	DiskSeq uint64 `json:"diskseq,omitempty"`
	// What it is: the type, and what it says of its contents.
	What string `json:"what"`
	// Event is the device mapper's event number. Left out of multipath devices,
	// which count failing paths with it.
	Event uint32 `json:"event,omitempty"`
	// Changes is what the kernel told of the device since the listener began.
	Changes uint64 `json:"changes,omitempty"`
}

func (l Layer) String() string {
	if l.DiskSeq == 0 {
		return fmt.Sprintf("%s (%s, %s)", l.Name, l.Device, l.What)
	}
	return fmt.Sprintf("%s (%s, %s, the kernel's disk %d)", l.Name, l.Device, l.What, l.DiskSeq)
}

// Differs returns why it cannot be said that the contents are as they were when s
// was read, "" if it can, as far as this can be told from the difference of two
// stacks: see also Blind.
func (s Stack) Differs(o Stack) string {
	if len(s.Layers) == 0 && len(o.Layers) == 0 {
		return ""
	}
	if len(s.Layers) == 0 || len(o.Layers) == 0 {
		return "what it consists of was not known at all times"
	}
	for i := range max(len(s.Layers), len(o.Layers)) {
		switch {
		case i >= len(s.Layers):
			return fmt.Sprintf("it now lies on %v as well", o.Layers[i])
		case i >= len(o.Layers):
			return fmt.Sprintf("it no longer lies on %v", s.Layers[i])
		}
		was, is := s.Layers[i], o.Layers[i]
		same := is
		same.Event, same.Changes = was.Event, was.Changes
		switch {
		case was != same:
			return fmt.Sprintf("it consisted of %v, and now of %v", was, is)
		case s.Listener == o.Listener && was.Changes != is.Changes:
			return fmt.Sprintf("%s was suspended and resumed, perhaps with another table meanwhile", was.Name)
		case was.Event != is.Event:
			return fmt.Sprintf("%s had an event", was.Name)
		}
	}
	switch {
	case s.Listener != o.Listener:
		return "nobody saw whether a table was exchanged, and exchanged back, while the agent was away"
	case s.Lost != o.Lost:
		return "events of the kernel were lost, perhaps that a table was exchanged"
	}
	return ""
}

// Anew reports whether the device itself is another one than that which s is of, so
// that nothing can be said of their counters.
func (s Stack) Anew(o Stack) bool {
	return len(s.Layers) > 0 && len(o.Layers) > 0 &&
		(s.Layers[0].Device != o.Layers[0].Device || s.Layers[0].DiskSeq != o.Layers[0].DiskSeq)
}

// maxLayers is more than anybody stacks.
const maxLayers = 64

// stack looks at all layers of a device. What cannot be looked at makes it blind.
//
// The events are asked for first: what happens while the layers are looked at is
// then found by the next one to ask.
func (s System) stack(device string) Stack {
	told, deaf := s.events.ask()
	var out Stack
	blind := func(format string, args ...any) {
		if out.Blind == "" {
			out.Blind = fmt.Sprintf(format, args...)
		}
	}
	seen := map[string]bool{device: true}
	for queue := []string{device}; len(queue) > 0; queue = queue[1:] {
		if len(out.Layers) == maxLayers {
			blind("it consists of more than %d devices", maxLayers)
			break
		}
		l, err := s.layer(queue[0])
		if err != nil {
			blind("what %s consists of cannot be told: %v", queue[0], err)
		}
		if l.blind != "" {
			blind("%s", l.blind)
		}
		if l.listen {
			if deaf != nil {
				blind("%v", deaf)
			}
			out.Listener, out.Lost, l.Changes = told.id, told.lost, told.changes[queue[0]]
		}
		out.Layers = append(out.Layers, l.Layer)
		for _, below := range l.below {
			if !seen[below] {
				seen[below] = true
				queue = append(queue, below)
			}
		}
	}
	return out
}

// layer is what was found of one.
type layer struct {
	Layer
	below  []string // device numbers
	listen bool     // its contents may change with a mere event
	blind  string   // why it cannot be vouched for
	name   string   // its own, which it keeps when it is removed and added again
}

func (s System) layer(device string) (layer, error) {
	dir := filepath.Join(s.Sys, "dev/block", device)
	l := layer{Layer: Layer{Device: device, Name: device, What: "unknown"}}
	name, err := s.deviceName(dir)
	if err != nil {
		return l, err
	}
	l.Name = name
	if l.DiskSeq, err = diskSeq(dir); err != nil {
		return l, err
	}
	if l.below, err = slaves(dir); err != nil {
		return l, err
	}
	is := func(file string) bool {
		_, err := os.Stat(filepath.Join(dir, file))
		return err == nil
	}
	switch {
	case is("partition"):
		return l, s.partition(dir, &l)
	case is("dm"):
		return l, s.mapped(device, &l)
	case is("md"):
		return l, array(dir, &l)
	case is("loop/backing_file"):
		l.What = "loop"
		info, err := s.loop(filepath.Join(s.Dev, name))
		if err != nil {
			return l, err
		}
		l.What = fmt.Sprintf("loop of inode %d on %d:%d from byte %d", info.Inode, unix.Major(info.Device), unix.Minor(info.Device), info.Offset)
		l.blind = fmt.Sprintf("nobody watches the file that %s is made of", name)
		return l, nil
	case len(l.below) > 0:
		l.What = "stacked"
		l.blind = fmt.Sprintf("%s is of a kind that is not known", name)
		return l, nil
	}
	l.What = "disk"
	l.name = ownName(dir)
	l.blind, err = remote(dir, name)
	return l, err
}

// partition is a part of the disk above it in sysfs.
func (s System) partition(dir string, l *layer) error {
	start, err := readUint(filepath.Join(dir, "start"))
	if err != nil {
		return err
	}
	size, err := readUint(filepath.Join(dir, "size"))
	if err != nil {
		return err
	}
	whole, err := os.ReadFile(dir + "/../dev") // dir is a symbolic link, which only the kernel knows how to follow up
	if err != nil {
		return err
	}
	l.What = fmt.Sprintf("partition of sectors %d to %d", start, start+size)
	l.below = append(l.below, strings.TrimSpace(string(whole)))
	if own := ownName(dir + "/.."); own != "" {
		l.name = fmt.Sprintf("%s from sector %d", own, start)
	}
	return nil
}

// mapped is a device mapper's.
func (s System) mapped(device string, l *layer) error {
	l.What, l.listen = "device mapper", true
	st, err := s.askMapper(device)
	if err != nil {
		return err
	}
	kinds := st.kinds()
	l.What = fmt.Sprintf("%s, %s, table %s", st.Name, strings.Join(kinds, " and "), st.digest())
	if st.UUID != "" {
		l.What += ", " + st.UUID
	}
	if !slices.Equal(kinds, []string{"multipath"}) {
		l.Event = st.Event
	}
	l.name = "dm " + st.UUID
	if st.UUID == "" {
		l.name = "dm " + st.Name
	}
	if k := st.opaque(); k != "" {
		l.blind = fmt.Sprintf("%s has a target %s, of which it is not known how its contents change", st.Name, k)
	}
	return nil
}

// array is of md. A member that left and comes back is brought up to date before it
// is read from; that the set of members was another one is seen.
func array(dir string, l *layer) error {
	l.listen = true
	facts := []string{"md"}
	for _, f := range []string{"md/level", "md/raid_disks", "md/uuid", "md/degraded", "md/array_size"} {
		raw, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		facts = append(facts, strings.TrimSpace(string(raw)))
	}
	l.What = strings.Join(facts, " ")
	return nil
}

// slaves are the numbers of the devices that a stacked one lies on.
func slaves(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "slaves"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(dir, "slaves", e.Name(), "dev"))
		if err != nil {
			return nil, err
		}
		all = append(all, strings.TrimSpace(string(raw)))
	}
	return all, nil
}

// ownName is the name that a disk gives itself, "" if it has none.
func ownName(dir string) string {
	for _, f := range []string{"wwid", "device/wwid", "serial"} {
		if raw, err := os.ReadFile(dir + "/" + f); err == nil && strings.TrimSpace(string(raw)) != "" {
			return f + " " + strings.TrimSpace(string(raw))
		}
	}
	return ""
}

// remote returns why a disk that lies on no other device of this machine cannot be
// vouched for: it is elsewhere, where it can be rolled back, or written to by
// another machine; "" if it is a disk of this machine.
func remote(dir, name string) (string, error) {
	for _, kind := range []struct{ prefix, why string }{
		{"zd", "%s is a ZFS volume, which zfs rollback changes without a trace in the kernel's block layer"},
		{"rbd", "%s is in a Ceph cluster, where it can be rolled back"},
		{"nbd", "%s is elsewhere, where it can be rolled back"},
		{"drbd", "%s is shared with another machine"},
	} {
		if rest, ok := strings.CutPrefix(name, kind.prefix); ok && rest != "" && strings.Trim(rest, "0123456789") == "" {
			return fmt.Sprintf(kind.why, name), nil
		}
	}
	elsewhere := fmt.Sprintf("%s is a disk of a storage system, where it can be rolled back", name)
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	for part := range strings.SplitSeq(filepath.ToSlash(real), "/") {
		// /sys/devices/platform/host5/session1/target5:0:0/... of iSCSI, and
		// /sys/devices/pci.../host6/rport-6:0-1/target6:0:0/... of FibreChannel.
		if number, ok := strings.CutPrefix(part, "session"); ok && number != "" && strings.Trim(number, "0123456789") == "" ||
			strings.HasPrefix(part, "rport-") {
			return elsewhere, nil
		}
	}
	if !strings.HasPrefix(name, "nvme") {
		return "", nil
	}
	// Of a controller's own disk, or of one that several controllers lead to.
	var transports []string
	for _, pattern := range []string{real + "/device/transport", real + "/../nvme*/transport"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		transports = append(transports, found...)
	}
	for _, path := range transports {
		raw, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if t := strings.TrimSpace(string(raw)); t != "pcie" && t != "apple-nvme" {
			return elsewhere, nil
		}
	}
	if len(transports) == 0 {
		return fmt.Sprintf("where %s is cannot be told", name), nil
	}
	return "", nil
}
