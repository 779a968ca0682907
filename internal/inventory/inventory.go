// Package inventory says which domains there are, and which of them a word means:
// one view for the agent and for the commands that do without it.
package inventory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl"
)

// Xen lists all domains, in order of domid.
type Xen interface {
	Domains() ([]xenctl.DomainInfo, error)
}

// Store reads xenstore.
type Store interface {
	Read(ctx context.Context, path string) (string, error)
}

// Domain is one that an operator may deal with.
type Domain struct {
	xenctl.DomainInfo
	Name string // "" if the toolstack has not given it one
	// Twin is another domain that runs under the same UUID, 0 if there is none.
	Twin ident.Domid
}

// List returns all domains in order of domid, but for dom0, those that are going
// away, and stub domains, in which another domain's devices are emulated: these come
// and go with that one, and are nobody's to deal with.
func List(ctx context.Context, x Xen, s Store) ([]Domain, error) {
	infos, err := x.Domains()
	if err != nil {
		return nil, err
	}
	all := []Domain{}
	for _, info := range infos {
		if info.Domid == 0 || info.Dying {
			continue
		}
		_, err := s.Read(ctx, fmt.Sprintf("/local/domain/%d/target", info.Domid))
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("whether domain %d is a stub domain cannot be told: %w", info.Domid, err)
		}
		name, err := Name(ctx, s, info.Domid)
		if err != nil {
			return nil, err
		}
		all = append(all, Domain{DomainInfo: info, Name: name})
	}
	for i := range all {
		for j := range all {
			if a, b := &all[i], &all[j]; i != j && a.UUID == b.UUID && a.runs() && b.runs() {
				a.Twin = b.Domid
			}
		}
	}
	return all, nil
}

// runs reports whether the domain is there in its own right: while it is migrated
// within a host there are two for a moment, one of which is paused or has shut down.
func (d *Domain) runs() bool { return d.Alive() && !d.Paused }

// Name returns a domain's name, "" if the toolstack has not given it one.
func Name(ctx context.Context, s Store, domid ident.Domid) (string, error) {
	name, err := s.Read(ctx, fmt.Sprintf("/local/domain/%d/name", domid))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the name of domain %d cannot be read: %w", domid, err)
	}
	return name, nil
}

// Find returns the domain that is meant, by ident's rule; nil if there is none.
// What may mean two is an error.
func Find(all []Domain, word string) (*Domain, error) {
	ref := ident.ParseRef(word)
	var found *Domain
	for i := range all {
		d := &all[i]
		if !ref.Matches(d.Name, d.UUID, d.Domid) {
			continue
		}
		switch {
		case found == nil || found.Shutdown && d.Alive() && d.UUID == found.UUID: // it is being recreated
			found = d
		case d.Shutdown && found.Alive() && d.UUID == found.UUID:
		default:
			return nil, api.Errorf(api.BadRequest, "%q may be domid %d or domid %d: name one of them by its domid; xl list -v shows both", word, found.Domid, d.Domid)
		}
	}
	return found, nil
}

// NotFound is the error that there is no such domain.
func NotFound(word string) error {
	return api.Errorf(api.NotFound, "there is no domain %q; xl list shows what is there", word)
}
