package ident

import "fmt"

// VBD is a virtual device number, e.g. 51712 for xvda.
type VBD uint32

// Name returns the name that a Linux guest gives the device, such as "xvda" or
// "xvda1", and "vbd-N" for numbers outside the Xen range.
func (v VBD) Name() string {
	disk, part := uint32(0), uint32(0)
	switch {
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
		return fmt.Sprintf("xvd%s%d", name, part)
	}
	return "xvd" + name
}
