// Package libxl starts and ends the life of domains in the toolstack's way.
//
// A domain that xl has started has an xl process that recreates it when it
// reboots or crashes; two creators would be one too many. So this package only
// asks a guest to go, or takes it down, and leaves the rest to whoever started
// the domain. Built with the tag xenlight, OpenXenlight does the same through
// libxl; the tag needs cgo and libxl's headers.
package libxl

import (
	"context"
	"errors"
	"fmt"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl"
)

// Writer writes xenstore.
type Writer interface {
	Write(ctx context.Context, path, value string) error
}

// Shutdowner is the hypercall that takes a domain down.
type Shutdowner interface {
	ShutdownDomain(ident.Domid, xenctl.ShutdownReason) error
}

// Xenstore ends domains without libxl: it does what libxl_domain_reboot and
// xc_domain_shutdown do, by xenstore and hypercall.
type Xenstore struct {
	Store Writer
	Xen   Shutdowner
}

// Reboot asks a guest to reboot. One without a driver for control/shutdown
// ignores it.
func (x Xenstore) Reboot(ctx context.Context, domid ident.Domid) error {
	return x.Store.Write(ctx, fmt.Sprintf("/local/domain/%d/control/shutdown", domid), "reboot")
}

// ForceReboot takes a domain down as if it had rebooted. One that is gone already is no error.
func (x Xenstore) ForceReboot(_ context.Context, domid ident.Domid) error {
	err := x.Xen.ShutdownDomain(domid, xenctl.ShutdownReboot)
	if errors.Is(err, xenctl.ErrNoDomain) {
		return nil
	}
	return err
}
