package xenctl

import (
	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl/facts"
	"github.com/warmreboot/warmreboot/xenctl/internal/abi"
	"github.com/warmreboot/warmreboot/xenctl/internal/privcmd"
)

// What Xen says of a domain is data that others reason with, without Xen.
type (
	ShutdownReason = facts.ShutdownReason
	DomainInfo     = facts.DomainInfo
)

// Shutdown reasons (sched.h).
const (
	ShutdownPoweroff  = facts.ShutdownPoweroff
	ShutdownReboot    = facts.ShutdownReboot
	ShutdownSuspend   = facts.ShutdownSuspend
	ShutdownCrash     = facts.ShutdownCrash
	ShutdownWatchdog  = facts.ShutdownWatchdog
	ShutdownSoftReset = facts.ShutdownSoftReset
)

func infoFromABI(i *abi.DomctlGetDomainInfo) DomainInfo {
	return DomainInfo{
		Domid:    ident.Domid(i.Domain),
		UUID:     i.Handle,
		HVM:      i.Flags&abi.DominfHVMGuest != 0,
		HAP:      i.Flags&abi.DominfHAP != 0,
		Dying:    i.Flags&abi.DominfDying != 0,
		Shutdown: i.Flags&abi.DominfShutdown != 0,
		Paused:   i.Flags&abi.DominfPaused != 0,
		Reason:   ShutdownReason(i.Flags >> abi.DominfShutdownShift & abi.DominfShutdownMask),
		Pages:    i.TotPages,
		MaxPages: i.MaxPages,
		CPUTime:  i.CPUTime,
	}
}

var domainErrors = map[unix.Errno]error{unix.ESRCH: ErrNoDomain}

// Domain returns what Xen says of domain domid; ErrNoDomain if it is gone.
func (h *Handle) Domain(domid ident.Domid) (DomainInfo, error) {
	var info abi.DomctlGetDomainInfo
	if err := domctl(h, abi.DomctlGetdomaininfo, uint16(domid), &info); err != nil {
		return DomainInfo{}, wrap(err, domainErrors, "getdomaininfo", "domid=%d", domid)
	}
	return infoFromABI(&info), nil
}

// Domains returns all domains in order of domid, dom0 included.
func (h *Handle) Domains() ([]DomainInfo, error) {
	const batch = 128
	buf, err := h.dev.Alloc(batch * 112)
	if err != nil {
		return nil, err
	}
	defer buf.Free()
	var all []DomainInfo
	first := 0
	for first < abi.DomidFirstReserved {
		arg := abi.SysctlGetDomainInfoList{FirstDomain: uint16(first), MaxDomains: batch, Buffer: buf.Addr()}
		if err := sysctl(h, abi.SysctlGetdomaininfolist, &arg); err != nil {
			return nil, wrap(err, nil, "getdomaininfolist", "first=%d", first)
		}
		list := privcmd.Slice[abi.DomctlGetDomainInfo](buf.Bytes())
		n := min(int(arg.NumDomains), batch)
		for i := range list[:n] {
			all = append(all, infoFromABI(&list[i]))
		}
		if n < batch {
			break
		}
		first = int(list[n-1].Domain) + 1
	}
	return all, nil
}

// ShutdownDomain shuts the domain down from outside, without its help, as if
// it had asked for it with that reason.
func (h *Handle) ShutdownDomain(domid ident.Domid, reason ShutdownReason) error {
	buf, err := h.dev.Alloc(abi.PageSize)
	if err != nil {
		return err
	}
	defer buf.Free()
	*privcmd.At[abi.SchedRemoteShutdown](buf.Bytes(), 0) = abi.SchedRemoteShutdown{
		DomainID: uint16(domid), Reason: uint32(reason)}
	_, err = h.dev.Hypercall(abi.HypervisorSchedOp, abi.SchedopRemoteShutdown, buf.Addr())
	return wrap(err, domainErrors, "remote_shutdown", "domid=%d reason=%v", domid, reason)
}

// Memory is the machine's memory, in pages.
type Memory struct {
	Total, Free, Scrub, Outstanding uint64
}

// Memory returns how much memory the machine has and how much is free.
func (h *Handle) Memory() (Memory, error) {
	var p abi.SysctlPhysinfoData
	if err := sysctl(h, abi.SysctlPhysinfo, &p); err != nil {
		return Memory{}, wrap(err, nil, "physinfo", "")
	}
	return Memory{Total: p.TotalPages, Free: p.FreePages, Scrub: p.ScrubPages,
		Outstanding: p.OutstandingPages}, nil
}
