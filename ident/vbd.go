package ident

import "fmt"

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
