package cachemap

import (
	"fmt"

	"github.com/warmreboot/warmreboot/ident"
)

// Sector is a disk address in units of 512 bytes.
type Sector uint64

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
	VBD        ident.VBD
}

// Key names a page of a file of a domain.
type Key struct {
	VBD        ident.VBD
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
