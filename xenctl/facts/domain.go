// Package facts is what Xen says of domains and of their warm caches, as data: who
// reasons with it needs no Xen, and compiles anywhere. Package xenctl asks for it.
package facts

import (
	"errors"
	"fmt"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl/internal/abi"
)

// Sentinels; package xenctl has them, and others, under the same names.
var (
	// ErrNoDomain: no domain with that domid.
	ErrNoDomain = errors.New("no such domain")
	// ErrVersion: Xen speaks another version of the warm cache's interface.
	ErrVersion = errors.New("another version of the warm cache's interface")
	// ErrNoImage: no image is kept under that UUID or index.
	ErrNoImage = errors.New("no preserved image")
)

// ShutdownReason is the code a domain shut down with.
type ShutdownReason uint8

// Shutdown reasons (sched.h).
const (
	ShutdownPoweroff  ShutdownReason = abi.ShutdownPoweroff
	ShutdownReboot    ShutdownReason = abi.ShutdownReboot
	ShutdownSuspend   ShutdownReason = abi.ShutdownSuspend
	ShutdownCrash     ShutdownReason = abi.ShutdownCrash
	ShutdownWatchdog  ShutdownReason = abi.ShutdownWatchdog
	ShutdownSoftReset ShutdownReason = abi.ShutdownSoftReset
)

func (r ShutdownReason) String() string {
	switch r {
	case ShutdownPoweroff:
		return "poweroff"
	case ShutdownReboot:
		return "reboot"
	case ShutdownSuspend:
		return "suspend"
	case ShutdownCrash:
		return "crash"
	case ShutdownWatchdog:
		return "watchdog"
	case ShutdownSoftReset:
		return "soft reset"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// DomainInfo is what Xen says of a domain.
type DomainInfo struct {
	Domid    ident.Domid
	UUID     ident.UUID
	HVM      bool // HVM or PVH
	HAP      bool // nested paging
	Dying    bool // being destroyed, or kept by a reference
	Shutdown bool // has shut down with Reason
	Paused   bool // by the toolstack
	Reason   ShutdownReason
	Pages    uint64 // allocated now
	MaxPages uint64 // may be allocated
	CPUTime  uint64 // nanoseconds
}

// Alive reports whether the domain can run: it has neither shut down nor is
// being destroyed.
func (d DomainInfo) Alive() bool { return !d.Dying && !d.Shutdown }
