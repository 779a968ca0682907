// Package hypervisor is what the agent and the checks need of Xen, as an
// interface, so that their logic can be tested without one.
package hypervisor

import (
	"time"

	"github.com/warmreboot/warmreboot/cachemap"
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
	MapTable(xenctl.Domid) (Table, error)
	MapReuse(xenctl.Domid) (Bitmap, error)
	MapHeld(xenctl.Domid) (Bitmap, error)
	MapPages(xenctl.Domid, []cachemap.PFN) (Pages, error)
}

// Xen is all that the agent does with Xen. Each method is that of
// xenctl.Handle.
type Xen interface {
	Memory
	ProbeWarmcache() (xenctl.Feature, error)
	Domains() ([]xenctl.DomainInfo, error)
	ShutdownDomain(xenctl.Domid, xenctl.ShutdownReason) error
	WarmcacheEnable(xenctl.Domid, time.Duration) error
	WarmcacheDisable(xenctl.Domid) error
	WarmcacheArm(xenctl.Domid, time.Duration) error
	WarmcacheDisarm(xenctl.Domid) error
	WarmcacheStatus(xenctl.Domid) (xenctl.WarmcacheStatus, error)
	WarmcacheVerdict(xenctl.Domid, cachemap.VBD, xenctl.Verdict) (uint64, error)
	WarmcacheDrop(xenctl.Domid) (uint64, error)
	WarmcacheDropVBD(xenctl.Domid, cachemap.VBD) (uint64, error)
	WarmcacheDropPFNs(xenctl.Domid, []cachemap.PFN) (uint64, error)
	Image(xenctl.UUID) (xenctl.Image, error)
	DropImage(xenctl.UUID) (uint64, error)
}

// Real is Xen itself.
type Real struct{ *xenctl.Handle }

var _ Xen = Real{}

// MapTable implements Memory.
func (r Real) MapTable(d xenctl.Domid) (Table, error) { return nonNil[Table](r.Handle.MapTable(d)) }

// MapReuse implements Memory.
func (r Real) MapReuse(d xenctl.Domid) (Bitmap, error) { return nonNil[Bitmap](r.Handle.MapReuse(d)) }

// MapHeld implements Memory.
func (r Real) MapHeld(d xenctl.Domid) (Bitmap, error) { return nonNil[Bitmap](r.Handle.MapHeld(d)) }

// MapPages implements Memory.
func (r Real) MapPages(d xenctl.Domid, p []cachemap.PFN) (Pages, error) {
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
