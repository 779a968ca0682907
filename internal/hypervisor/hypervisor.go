// Package hypervisor is what the agent and the checks need of Xen, as an
// interface, so that their logic can be tested without one.
package hypervisor

import (
	"slices"
	"time"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl"
)

// Table is a mapped cache-mapping table; see xenctl.Table.
type Table interface {
	Entries() []cachemap.Entry
	Close() error
}

// Bitmap is a mapped bitmap; see xenctl.Bitmap.
type Bitmap interface {
	Words() []uint64
	Close() error
}

// Pages are mapped pages; see xenctl.Pages.
type Pages interface {
	Page(i int) ([]byte, error)
	Close() error
}

// Memory is read-only access to a domain's memory and what Xen knows of it.
type Memory interface {
	MapTable(ident.Domid) (Table, error)
	MapReuse(ident.Domid) (Bitmap, error)
	MapHeld(ident.Domid) (Bitmap, error)
	MapPages(ident.Domid, []ident.PFN) (Pages, error)
}

// Xen is all that the agent does with Xen. Each method is that of
// xenctl.Handle.
type Xen interface {
	Memory
	ProbeWarmcache() (xenctl.Feature, error)
	Domains() ([]xenctl.DomainInfo, error)
	ShutdownDomain(ident.Domid, xenctl.ShutdownReason) error
	WarmcacheEnable(ident.Domid, time.Duration) error
	WarmcacheDisable(ident.Domid) error
	WarmcacheArm(ident.Domid, time.Duration) error
	WarmcacheDisarm(ident.Domid) error
	WarmcacheStatus(ident.Domid) (xenctl.WarmcacheStatus, error)
	WarmcacheVerdict(ident.Domid, ident.VBD, xenctl.Verdict) (uint64, error)
	WarmcacheDrop(ident.Domid) (uint64, error)
	WarmcacheDropVBD(ident.Domid, ident.VBD) (uint64, error)
	WarmcacheDropPFNs(ident.Domid, []ident.PFN) (uint64, error)
	Image(ident.UUID) (xenctl.Image, error)
	DropImage(ident.UUID) (uint64, error)
}

// PVHDom0 says whether dom0 is a PVH domain. Xen shows it no table and no bitmap: it
// relies on them, and such a domain could write to whatever it maps of another one.
func PVHDom0(all []xenctl.DomainInfo) bool {
	return slices.ContainsFunc(all, func(d xenctl.DomainInfo) bool { return d.Domid == 0 && d.HVM })
}

// Real is Xen itself.
type Real struct{ *xenctl.Handle }

var _ Xen = Real{}

// MapTable implements Memory.
func (r Real) MapTable(d ident.Domid) (Table, error) { return nonNil[Table](r.Handle.MapTable(d)) }

// MapReuse implements Memory.
func (r Real) MapReuse(d ident.Domid) (Bitmap, error) { return nonNil[Bitmap](r.Handle.MapReuse(d)) }

// MapHeld implements Memory.
func (r Real) MapHeld(d ident.Domid) (Bitmap, error) { return nonNil[Bitmap](r.Handle.MapHeld(d)) }

// MapPages implements Memory.
func (r Real) MapPages(d ident.Domid, p []ident.PFN) (Pages, error) {
	return nonNil[Pages](r.Handle.MapPages(d, p))
}

// nonNil keeps a nil pointer from becoming an interface that is not nil.
func nonNil[I any, T any](v *T, err error) (I, error) {
	var none I
	if err != nil {
		return none, err
	}
	return any(v).(I), nil
}
