package abi

// Domctl commands used here (domctl.h).
const (
	DomctlGetdomaininfo = 5
	DomctlWarmcache     = 30563
)

// DomctlUnionSize is the size in bytes of the union in struct xen_domctl.
const DomctlUnionSize = 128

// Domctl is struct xen_domctl; U holds one of the command structures.
type Domctl struct {
	Cmd              uint32
	InterfaceVersion uint32
	Domain           uint16
	Pad              [3]uint16
	U                [DomctlUnionSize]byte
}

// Flags of DomctlGetDomainInfo.
const (
	DominfDying         = 1 << 0
	DominfHVMGuest      = 1 << 1
	DominfShutdown      = 1 << 2
	DominfPaused        = 1 << 3
	DominfBlocked       = 1 << 4
	DominfRunning       = 1 << 5
	DominfDebugged      = 1 << 6
	DominfXSDomain      = 1 << 7
	DominfHAP           = 1 << 8
	DominfShutdownMask  = 255
	DominfShutdownShift = 16
)

// DomctlGetDomainInfo is struct xen_domctl_getdomaininfo.
type DomctlGetDomainInfo struct {
	Domain           uint16
	Pad1             uint16
	Flags            uint32
	TotPages         uint64
	MaxPages         uint64
	OutstandingPages uint64
	ShrPages         uint64
	PagedPages       uint64
	SharedInfoFrame  uint64
	CPUTime          uint64
	NrOnlineVcpus    uint32
	MaxVcpuID        uint32
	Ssidref          uint32
	Handle           [16]byte
	Cpupool          uint32
	GpaddrBits       uint8
	Pad2             [7]byte
	EmulationFlags   uint32
	MiscFlags        uint32
}
