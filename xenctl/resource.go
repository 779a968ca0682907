package xenctl

import (
	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl/internal/abi"
	"github.com/warmreboot/warmreboot/xenctl/internal/privcmd"
)

// Table is a domain's cache-mapping table, mapped read-only: Entries()[pfn] is
// what Xen has for that PFN. Xen goes on writing it; an entry is to be believed
// only if the reuse bit is set before and after it is read.
//
// An open Table keeps a domain that dies from going away: close it soon.
type Table struct {
	m       *privcmd.Mapping
	entries []cachemap.Entry
}

// Entries is the table, without a copy; not to be used after Close.
func (t *Table) Entries() []cachemap.Entry { return t.entries }

// Close unmaps the table.
func (t *Table) Close() error { t.entries = nil; return t.m.Close() }

// Bitmap is one of a domain's bitmaps, mapped read-only: bit n%64 of word n/64
// is PFN n. What is said of Table holds for it as well.
type Bitmap struct {
	m     *privcmd.Mapping
	words []uint64
}

// Words is the bitmap, without a copy; not to be used after Close.
func (b *Bitmap) Words() []uint64 { return b.words }

// Close unmaps the bitmap.
func (b *Bitmap) Close() error { b.words = nil; return b.m.Close() }

// MapTable maps the cache-mapping table. ErrNotEnabled if there is none.
func (h *Handle) MapTable(domid ident.Domid) (*Table, error) {
	m, err := h.mapResource(domid, abi.WarmcacheResourceTable, "table")
	if err != nil {
		return nil, err
	}
	return &Table{m, privcmd.Slice[cachemap.Entry](m.Bytes())}, nil
}

// MapReuse maps the reuse bitmap. ErrNotEnabled if there is none.
func (h *Handle) MapReuse(domid ident.Domid) (*Bitmap, error) {
	return h.mapBitmap(domid, abi.WarmcacheResourceBitmap, "reuse bitmap")
}

// MapHeld maps the bitmap of the pages that were adopted when the domain was
// created and not dropped since. ErrNotEnabled if there is none.
func (h *Handle) MapHeld(domid ident.Domid) (*Bitmap, error) {
	return h.mapBitmap(domid, abi.WarmcacheResourceHeld, "held bitmap")
}

func (h *Handle) mapBitmap(domid ident.Domid, id uint32, what string) (*Bitmap, error) {
	m, err := h.mapResource(domid, id, what)
	if err != nil {
		return nil, err
	}
	return &Bitmap{m, privcmd.Slice[uint64](m.Bytes())}, nil
}

// resourceErrors: Xen does not tell a domain without a warm cache from a
// resource that it does not know.
var resourceErrors = map[unix.Errno]error{
	unix.ESRCH:      ErrNoDomain,
	unix.EINVAL:     ErrNotEnabled,
	unix.ENOENT:     ErrNotEnabled,
	unix.EOPNOTSUPP: ErrNotSupported,
}

func (h *Handle) mapResource(domid ident.Domid, id uint32, what string) (*privcmd.Mapping, error) {
	frames, err := h.dev.ResourceSize(uint16(domid), abi.XenmemResourceWarmcache, id)
	if err != nil {
		return nil, wrap(err, resourceErrors, "resource_size", "domid=%d %s", domid, what)
	}
	if frames == 0 {
		return nil, wrap(unix.EINVAL, nil, "resource_size", "domid=%d %s: no frames", domid, what)
	}
	m, err := h.dev.MapResource(uint16(domid), abi.XenmemResourceWarmcache, id, 0, frames)
	if err != nil {
		return nil, wrap(err, warmcacheErrors, "map_resource", "domid=%d %s frames=%d", domid, what, frames)
	}
	return m, nil
}
