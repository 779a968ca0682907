package cachemap

import "fmt"

// PFN is the number of a page in a domain's memory.
type PFN uint64

// Sector is a disk address in units of 512 bytes.
type Sector uint64

// VBD is a virtual device number, e.g. 51712 for xvda.
type VBD uint32

// SectorSize is the size of a sector in bytes; SectorsPerPage sectors make a
// page.
const (
	SectorSize     = 512
	SectorsPerPage = 8
	PageSize       = SectorSize * SectorsPerPage
)

// Entry is what the table has for one PFN. Its layout is that of struct
// xen_warmcache_entry.
type Entry struct {
	Inode      uint64
	Index      uint64 // offset in the file, in pages
	Sector     Sector // first of SectorsPerPage sectors on VBD
	Generation uint32 // of the inode
	VBD        VBD
}

// Key names a page of a file of a domain.
type Key struct {
	VBD        VBD
	Generation uint32
	Inode      uint64
	Index      uint64
}

// Key returns the entry's key.
func (e *Entry) Key() Key { return Key{e.VBD, e.Generation, e.Inode, e.Index} }

// IsZero reports whether nothing is tracked.
func (e *Entry) IsZero() bool { return *e == Entry{} }

// String is for messages.
func (e Entry) String() string {
	return fmt.Sprintf("vbd %d sector %d (inode %d.%d page %d)", e.VBD, e.Sector, e.Inode, e.Generation, e.Index)
}

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
