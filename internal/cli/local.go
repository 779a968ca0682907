package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/internal/inventory"
	"github.com/warmreboot/warmreboot/internal/toolstack"
	"github.com/warmreboot/warmreboot/xenctl"
	"github.com/warmreboot/warmreboot/xenstore"
)

// disks are what stands behind vbds, to be read only.
type disks interface {
	Resolve(disk.Backend) (disk.Backing, error)
	Open(disk.Backing) (diskReader, error)
}

// diskReader reads a disk past the page cache; see disk.Reader.
type diskReader interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// hostDisks are those of this machine.
type hostDisks struct{}

func (hostDisks) Resolve(b disk.Backend) (disk.Backing, error) { return disk.Host.Resolve(b) }
func (hostDisks) Open(b disk.Backing) (diskReader, error)      { return b.OpenReader() }

// local is Xen, xenstore and the disks, asked without the agent. It only reads.
type local struct {
	xen   hypervisor.Xen
	store disk.Store
	disks disks
	// memory is the machine's; synced reports whether its clock is kept right.
	memory func() (xenctl.Memory, error)
	synced func() (bool, error)
	owner  func(ident.Domid, ident.UUID, string) (toolstack.Owner, error)
	loader func(context.Context, toolstack.Owner, toolstack.Domain) (loader, error)
	close  func()
}

func openLocal() (local, error) {
	xen, err := xenctl.Open()
	if err != nil {
		return local{}, err
	}
	store, err := xenstore.Open()
	if err != nil {
		xen.Close()
		return local{}, fmt.Errorf("xenstore: %w", err)
	}
	return local{xen: hypervisor.Real{Handle: xen}, store: store, disks: hostDisks{},
		memory: xen.Memory, synced: clockSynced, owner: toolstack.Here.Owner, loader: loaderOf, close: func() { store.Close(); xen.Close() }}, nil
}

// domains returns all domains that an operator may deal with.
func (l local) domains(ctx context.Context) ([]api.DomainStatus, []inventory.Domain, error) {
	there, err := inventory.List(ctx, l.xen, l.store)
	if err != nil {
		return nil, nil, err
	}
	all := []api.DomainStatus{}
	for _, d := range there {
		all = append(all, l.describe(d))
	}
	return all, there, nil
}

func (l local) describe(d inventory.Domain) api.DomainStatus {
	s := api.DomainStatus{Domain: d.Name, UUID: d.UUID}
	inventory.Describe(l.xen, &d.DomainInfo, &s)
	s.Twin = d.Twin
	return s
}

// find finds a domain by name, domid or UUID.
func (l local) find(ctx context.Context, domain string) (api.DomainStatus, xenctl.DomainInfo, error) {
	there, err := inventory.List(ctx, l.xen, l.store)
	if err != nil {
		return api.DomainStatus{}, xenctl.DomainInfo{}, err
	}
	d, err := inventory.Find(there, domain)
	switch {
	case err != nil:
		return api.DomainStatus{}, xenctl.DomainInfo{}, err
	case d == nil:
		return api.DomainStatus{}, xenctl.DomainInfo{}, inventory.NotFound(domain)
	}
	return l.describe(*d), d.DomainInfo, nil
}

// usable returns why a domain has no warm cache, or nil.
func (l local) usable(s api.DomainStatus, info xenctl.DomainInfo) error {
	switch feature, err := l.xen.ProbeWarmcache(); {
	case feature == xenctl.No:
		return api.Errorf(api.NoWarmcache, "domain %s: this Xen has no warm cache: boot a Xen built with CONFIG_WARMCACHE", s.Domain)
	case errors.Is(err, xenctl.ErrVersion):
		return api.Errorf(api.VersionSkew, "domain %s: this Xen has another version of the warm cache than this warmreboot: install those that belong together (%v)", s.Domain, err)
	case feature == xenctl.Unknown:
		return api.Errorf(api.Failed, "domain %s: cannot tell whether this Xen has a warm cache: %v; warmreboot doctor looks further", s.Domain, err)
	}
	if !info.HVM {
		return api.Errorf(api.NotTracked, "domain %s is a PV guest: only PVH and HVM guests can have a warm cache", s.Domain)
	}
	if _, err := l.xen.WarmcacheStatus(info.Domid); errors.Is(err, xenctl.ErrNotEnabled) {
		return api.Errorf(api.NotTracked, "the warm cache of domain %s is not enabled: warmreboot enable %s", s.Domain, ident.Word(s.Domain, s.UUID))
	} else if err != nil {
		return err
	}
	if !s.Enabled {
		return api.Errorf(api.NotTracked, "the warm cache of domain %s is not enabled: warmreboot enable %s", s.Domain, ident.Word(s.Domain, s.UUID))
	}
	return nil
}
