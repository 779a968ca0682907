//go:build xenlight

package libxl

import (
	"context"
	"fmt"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl/libxl/xenlight"
)

// Xenlight does what Xenstore does, and more, through libxl. libxl has no forced
// reboot; that one is a hypercall here as well.
type Xenlight struct {
	ctx *xenlight.Context
	xen Shutdowner
}

// OpenXenlight connects to libxl.
func OpenXenlight(xen Shutdowner) (*Xenlight, error) {
	ctx, err := xenlight.NewContext()
	if err != nil {
		return nil, fmt.Errorf("libxl: %w", err)
	}
	return &Xenlight{ctx, xen}, nil
}

// Close ends the connection.
func (x *Xenlight) Close() error { return x.ctx.Close() }

// Reboot asks a guest to reboot.
func (x *Xenlight) Reboot(_ context.Context, domid ident.Domid) error {
	return wrap("reboot", domid, x.ctx.DomainReboot(xenlight.Domid(domid)))
}

// ForceReboot takes a domain down as if it had rebooted.
func (x *Xenlight) ForceReboot(ctx context.Context, domid ident.Domid) error {
	return Xenstore{Xen: x.xen}.ForceReboot(ctx, domid)
}

// Unpause lets a paused domain run.
func (x *Xenlight) Unpause(domid ident.Domid) error {
	return wrap("unpause", domid, x.ctx.DomainUnpause(xenlight.Domid(domid)))
}

// Destroy ends a domain at once. Its warm cache is kept if it is armed.
func (x *Xenlight) Destroy(domid ident.Domid) error {
	return wrap("destroy", domid, x.ctx.DomainDestroy(xenlight.Domid(domid)))
}

// DomidByName returns the domid of a domain's name.
func (x *Xenlight) DomidByName(name string) (ident.Domid, error) {
	domid, err := x.ctx.NameToDomid(name)
	if err != nil {
		return 0, fmt.Errorf("libxl: domain %q: %w", name, err)
	}
	return ident.Domid(domid), nil
}

func wrap(op string, domid ident.Domid, err error) error {
	if err != nil {
		return fmt.Errorf("libxl: %s(domid=%d): %w", op, domid, err)
	}
	return nil
}
