package xenctl

import (
	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl/internal/privcmd"
)

// Pages are pages of another domain, mapped read-only. The domain goes on
// writing them. A page that is mapped is not preserved if the domain dies, so
// map few and close soon.
type Pages struct {
	m    *privcmd.Mapping
	errs []unix.Errno
}

// Page returns the i-th page, or the error with which it could not be mapped.
func (p *Pages) Page(i int) ([]byte, error) {
	if p.errs[i] != 0 {
		return nil, p.errs[i]
	}
	return p.m.Bytes()[i*PageSize : (i+1)*PageSize : (i+1)*PageSize], nil
}

// Close unmaps the pages.
func (p *Pages) Close() error { return p.m.Close() }

// MapPages maps pfns of a domain read-only: a writable mapping would make Xen
// forget them. Single pages may fail; see Page.
func (h *Handle) MapPages(domid ident.Domid, pfns []ident.PFN) (*Pages, error) {
	gfns := make([]uint64, len(pfns))
	for i, p := range pfns {
		gfns[i] = uint64(p)
	}
	m, errs, err := h.dev.MapForeign(uint16(domid), gfns)
	if err != nil {
		return nil, wrap(err, domainErrors, "map_foreign", "domid=%d pages=%d", domid, len(pfns))
	}
	return &Pages{m, errs}, nil
}
