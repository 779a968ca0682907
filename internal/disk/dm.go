package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// dmStatus is what the device mapper says of a device.
type dmStatus struct {
	Name, UUID string
	// Event counts what targets reported, and renames; not tables loaded.
	Event   uint32
	Targets []dmTarget
}

// dmTarget is a line of a device mapper table.
type dmTarget struct {
	Start, Length uint64 // sectors
	Type, Params  string
}

// kinds names the types of the targets, each once, in order.
func (s dmStatus) kinds() []string {
	var all []string
	for _, t := range s.Targets {
		all = append(all, t.Type)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// digest identifies the table. Its text is not to be kept: that of dm-crypt has
// the key in it.
func (s dmStatus) digest() string {
	h := sha256.New()
	for _, t := range s.Targets {
		fmt.Fprintf(h, "%d %d %q %q\n", t.Start, t.Length, t.Type, t.Params)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// transparent are the targets whose contents are a function of the devices below
// and of the table, or change only with an event of the device. Of any other it
// is not known what else may change them.
var transparent = []string{"cache", "crypt", "delay", "error", "flakey", "integrity", "linear", "mirror", "multipath", "raid",
	"snapshot", "snapshot-merge", "snapshot-origin", "striped", "thin", "thin-pool", "verity", "writecache", "zero"}

// opaque returns the first target that cannot be vouched for, "" if none.
func (s dmStatus) opaque() string {
	for _, k := range s.kinds() {
		if !slices.Contains(transparent, k) {
			return k
		}
	}
	return ""
}

// The device mapper's interface (linux/dm-ioctl.h), of which version 4.0 will do.
const (
	dmTableStatus = 0xc138fd0c // _IOWR(0xfd, 12, struct dm_ioctl)
	dmHeader      = 312        // sizeof(struct dm_ioctl)
	dmSpec        = 40         // sizeof(struct dm_target_spec)

	dmFlagTable  = 1 << 4  // the table, not what the targets are doing
	dmFlagFull   = 1 << 8  // the buffer was too small
	dmFlagNoWait = 1 << 11 // write nothing out for it
	dmFlagSecure = 1 << 15 // there may be keys in it: wipe the kernel's copy

	dmFirstBuffer = 16 << 10
	dmMaxBuffer   = 16 << 20 // a table of some 100 000 lines
)

// askMapper asks the kernel for the active table of a device, by "major:minor".
func (s System) askMapper(device string) (dmStatus, error) {
	if s.mapper != nil {
		return s.mapper(device)
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(device, "%d:%d", &major, &minor); err != nil {
		return dmStatus{}, fmt.Errorf("device number %q: %w", device, err)
	}
	control, err := os.OpenFile(filepath.Join(s.Dev, "mapper/control"), os.O_RDWR, 0)
	if err != nil {
		return dmStatus{}, err
	}
	defer control.Close()
	for size := dmFirstBuffer; size <= dmMaxBuffer; size *= 4 {
		buf := make([]byte, size)
		defer clear(buf)
		put := binary.NativeEndian.PutUint32
		put(buf, 4) // version 4.0.0
		put(buf[12:], uint32(size))
		put(buf[16:], dmHeader)
		put(buf[28:], dmFlagTable|dmFlagNoWait|dmFlagSecure)
		binary.NativeEndian.PutUint64(buf[40:], unix.Mkdev(major, minor))
		err := ioctlBuffer(int(control.Fd()), dmTableStatus, buf)
		if errors.Is(err, unix.EINTR) {
			size /= 4
			continue
		}
		if err != nil {
			return dmStatus{}, fmt.Errorf("table of %s: %w", device, err)
		}
		if binary.NativeEndian.Uint32(buf[28:])&dmFlagFull != 0 {
			continue
		}
		return parseTable(buf)
	}
	return dmStatus{}, fmt.Errorf("table of %s: more than %d bytes", device, dmMaxBuffer)
}

// parseTable parses the answer to DM_TABLE_STATUS: a struct dm_ioctl, and behind it
// for each target a struct dm_target_spec and its parameters.
func parseTable(raw []byte) (dmStatus, error) {
	if len(raw) < dmHeader {
		return dmStatus{}, errors.New("device mapper: short answer")
	}
	word := func(at int) int { return int(binary.NativeEndian.Uint32(raw[at:])) }
	end, start, count := word(12), word(16), word(20)
	s := dmStatus{Name: text(raw[48:176]), UUID: text(raw[176:305]), Event: binary.NativeEndian.Uint32(raw[32:])}
	if count == 0 {
		return s, nil
	}
	if end > len(raw) || start < dmHeader || start > end || count > (end-start)/dmSpec {
		return dmStatus{}, fmt.Errorf("device mapper: %d targets in bytes [%d, %d) of %d", count, start, end, len(raw))
	}
	table := raw[start:end]
	for at := 0; len(s.Targets) < count; {
		if at+dmSpec > len(table) {
			return dmStatus{}, fmt.Errorf("device mapper: target %d begins at byte %d of %d", len(s.Targets), at, len(table))
		}
		spec := table[at:]
		params, _, ok := bytes.Cut(spec[dmSpec:], []byte{0})
		if !ok {
			return dmStatus{}, fmt.Errorf("device mapper: target %d has no end", len(s.Targets))
		}
		s.Targets = append(s.Targets, dmTarget{
			Start: binary.NativeEndian.Uint64(spec), Length: binary.NativeEndian.Uint64(spec[8:]),
			Type: text(spec[24:dmSpec]), Params: string(params)})
		next := int(binary.NativeEndian.Uint32(spec[20:]))
		if next <= at && len(s.Targets) < count {
			return dmStatus{}, fmt.Errorf("device mapper: target %d is followed by one at byte %d", len(s.Targets)-1, next)
		}
		at = next
	}
	return s, nil
}

// text is a string that a NUL or the end of the field ends.
func text(field []byte) string {
	s, _, _ := strings.Cut(string(field), "\x00")
	return s
}
