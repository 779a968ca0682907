// Package libxl starts and ends the life of domains in the toolstack's way.
//
// A domain that xl has started has an xl process that recreates it when it
// reboots or crashes; two creators would be one too many. So Lifecycle only
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

// Lifecycle is what the agent asks of a toolstack.
type Lifecycle interface {
	// Reboot asks the guest to reboot and returns when it has been asked.
	Reboot(ctx context.Context, domid ident.Domid) error
	// ForceReboot takes the domain down without the guest's help, as if it had
	// rebooted.
	ForceReboot(ctx context.Context, domid ident.Domid) error
}

// Writer writes xenstore.
type Writer interface {
	Write(ctx context.Context, path, value string) error
}

// Shutdowner is the hypercall that takes a domain down.
type Shutdowner interface {
	ShutdownDomain(ident.Domid, xenctl.ShutdownReason) error
}

// Xenstore is a Lifecycle without libxl: it does what libxl_domain_reboot and
// xc_domain_shutdown do, by xenstore and hypercall.
type Xenstore struct {
	Store Writer
	Xen   Shutdowner
}

var _ Lifecycle = Xenstore{}

// Reboot implements Lifecycle. A guest without a driver for control/shutdown
// ignores it.
func (x Xenstore) Reboot(ctx context.Context, domid ident.Domid) error {
	return x.Store.Write(ctx, fmt.Sprintf("/local/domain/%d/control/shutdown", domid), "reboot")
}

// ForceReboot implements Lifecycle. A domain that is gone already is no error.
func (x Xenstore) ForceReboot(_ context.Context, domid ident.Domid) error {
	err := x.Xen.ShutdownDomain(domid, xenctl.ShutdownReboot)
	if errors.Is(err, xenctl.ErrNoDomain) {
		return nil
	}
	return err
}
