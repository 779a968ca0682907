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
		memory: xen.Memory, synced: clockSynced, owner: toolstack.Here.Owner, close: func() { store.Close(); xen.Close() }}, nil
}

// domains returns all domains but dom0, by name.
func (l local) domains(ctx context.Context) ([]api.DomainStatus, []xenctl.DomainInfo, error) {
	infos, err := l.xen.Domains()
	if err != nil {
		return nil, nil, err
	}
	all := []api.DomainStatus{}
	var those []xenctl.DomainInfo
	for _, info := range infos {
		if info.Domid == 0 || info.Dying {
			continue
		}
		name, _ := l.store.Read(ctx, fmt.Sprintf("/local/domain/%d/name", info.Domid))
		s := api.DomainStatus{Domain: name, UUID: info.UUID}
		inventory.Describe(l.xen, &info, &s)
		all = append(all, s)
		those = append(those, info)
	}
	return all, those, nil
}

// find finds a domain by name, domid or UUID.
func (l local) find(ctx context.Context, domain string) (api.DomainStatus, xenctl.DomainInfo, error) {
	all, infos, err := l.domains(ctx)
	if err != nil {
		return api.DomainStatus{}, xenctl.DomainInfo{}, err
	}
	ref, found := ident.ParseRef(domain), -1
	for i, s := range all {
		if !ref.Matches(s.Domain, s.UUID, s.Domid) {
			continue
		}
		if found >= 0 {
			return api.DomainStatus{}, xenctl.DomainInfo{}, api.Errorf(api.BadRequest, "%q may be domid %d or domid %d: name one of them by its domid; xl list -v shows both", domain, all[found].Domid, s.Domid)
		}
		found = i
	}
	if found >= 0 {
		return all[found], infos[found], nil
	}
	return api.DomainStatus{}, xenctl.DomainInfo{}, api.Errorf(api.NotFound, "there is no domain %q; xl list shows what is there", domain)
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
		return api.Errorf(api.NotTracked, "the warm cache of domain %s is not enabled: warmreboot enable %s", s.Domain, s.Domain)
	} else if err != nil {
		return err
	}
	if !s.Enabled {
		return api.Errorf(api.NotTracked, "the warm cache of domain %s is not enabled: warmreboot enable %s", s.Domain, s.Domain)
	}
	return nil
}
