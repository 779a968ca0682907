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
	Sector Sector // first of SectorsPerPage sectors on VBD
	VBD    ident.VBD
	Cookie Cookie
}

// Cookie is what a guest keeps with a page to find its place by. Xen does not
// look at it, and dom0 believes nothing of it.
type Cookie [5]uint32

// File is a page of a file, as Linux guests put it into a cookie.
type File struct {
	Inode      uint64 // 0: metadata, with the place on the vbd as Index
	Index      uint32 // offset in the file, in pages
	Generation uint32 // of the inode
	FSID       uint32 // of the file system
}

// Cookie returns the file as a cookie.
func (f File) Cookie() Cookie {
	return Cookie{uint32(f.Inode), uint32(f.Inode >> 32), f.Index, f.Generation, f.FSID}
}

// File returns what a Linux guest means by the cookie. The guest may have
// written anything there.
func (c Cookie) File() File {
	return File{Inode: uint64(c[1])<<32 | uint64(c[0]), Index: c[2], Generation: c[3], FSID: c[4]}
}

// Key names a page of a file of a domain.
type Key struct {
	VBD    ident.VBD
	Cookie Cookie
}

// Key returns the entry's key.
func (e *Entry) Key() Key { return Key{e.VBD, e.Cookie} }

// key is Key as three words, each of two neighbours in memory, so that it takes three
// loads: most of a check's time goes to keys.
func (e *Entry) key() (x, y, z uint64) {
	c := &e.Cookie
	return uint64(e.VBD) | uint64(c[0])<<32, uint64(c[1]) | uint64(c[2])<<32, uint64(c[3]) | uint64(c[4])<<32
}

// IsZero reports whether nothing is tracked.
func (e *Entry) IsZero() bool { return *e == Entry{} }

// String is for messages.
func (e Entry) String() string {
	f := e.Cookie.File()
	return fmt.Sprintf("vbd %d sector %d (inode %d.%d page %d of file system %08x)", e.VBD, e.Sector, f.Inode, f.Generation, f.Index, f.FSID)
}
