package ident

import (
	"fmt"
	"strconv"
	"strings"
)

// VBD is a virtual device number, e.g. 51712 for xvda.
type VBD uint32

// Name returns the name that the device has in xl's configuration, such as "xvda",
// "xvda1", "hdc" or "sda", and "vbd-N" for numbers that have none
// (xen-vbd-interface(7)). A Linux guest calls those of Xen the same.
func (v VBD) Name() string {
	disk, part, prefix := uint32(0), uint32(0), "xvd"
	switch {
	case v>>8 == 3 || v>>8 == 22: // IDE: two disks for each major, disk<<6 | partition
		disk, part, prefix = uint32(v>>6)&3, uint32(v)&63, "hd"
		if disk > 1 {
			return fmt.Sprintf("vbd-%d", uint32(v))
		}
		if v>>8 == 22 {
			disk += 2
		}
	case v>>8 == 8: // SCSI: disk<<4 | partition
		disk, part, prefix = uint32(v>>4)&15, uint32(v)&15, "sd"
	case v>>8 == 202: // 202<<8 | disk<<4 | partition
		disk, part = uint32(v>>4)&15, uint32(v)&15
	case v>>28 == 1: // 1<<28 | disk<<8 | partition
		disk, part = uint32(v>>8)&0xfffff, uint32(v)&255
	default:
		return fmt.Sprintf("vbd-%d", uint32(v))
	}
	name := ""
	for d := int(disk); d >= 0; d = d/26 - 1 {
		name = string(rune('a'+d%26)) + name
	}
	if part != 0 {
		return fmt.Sprintf("%s%s%d", prefix, name, part)
	}
	return prefix + name
}

// ParseVBD is Name's inverse: a name as xvdb, xvda2 or xvdaa3, or a number, also as
// vbd-768. It is in the form that Xen's toolstacks write: of the first 16 disks and
// their first 15 partitions the old one, the extended one of the others.
func ParseVBD(s string) (VBD, error) {
	bad := fmt.Errorf("%q is no vbd like xvdb, xvda2 or 51728", s)
	number := func(s string, most uint64) (uint64, bool) {
		n, err := strconv.ParseUint(s, 10, 32)
		return n, err == nil && n <= most && (s == "0" || s[0] != '0')
	}
	if n, ok := number(strings.TrimPrefix(s, "vbd-"), 1<<29-1); ok {
		return VBD(n), nil
	}
	rest, ok := strings.CutPrefix(s, "xvd")
	letters := 0
	for letters < len(rest) && rest[letters] >= 'a' && rest[letters] <= 'z' {
		letters++
	}
	if !ok || letters == 0 || letters > 4 {
		return 0, bad
	}
	disk := uint64(0) // as columns of a spreadsheet: a to z, aa, ab
	for _, c := range rest[:letters] {
		disk = 26*disk + uint64(c-'a') + 1
	}
	disk--
	part := uint64(0)
	if rest = rest[letters:]; rest != "" {
		if part, ok = number(rest, 255); !ok || part == 0 {
			return 0, bad
		}
	}
	switch {
	case disk < 16 && part < 16:
		return VBD(202<<8 | disk<<4 | part), nil
	case disk < 1<<20:
		return VBD(1<<28 | disk<<8 | part), nil
	}
	return 0, bad
}
