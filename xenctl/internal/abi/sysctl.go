package abi

// Sysctl commands used here (sysctl.h).
const (
	SysctlPhysinfo          = 3
	SysctlGetdomaininfolist = 6
)

// SysctlUnionSize is the size in bytes of the union in struct xen_sysctl.
const SysctlUnionSize = 128

// Sysctl is struct xen_sysctl; U holds one of the command structures.
type Sysctl struct {
	Cmd              uint32
	InterfaceVersion uint32
	U                [SysctlUnionSize]byte
}

// SysctlPhysinfoData is struct xen_sysctl_physinfo.
type SysctlPhysinfoData struct {
	ThreadsPerCore   uint32
	CoresPerSocket   uint32
	NrCPUs           uint32
	MaxCPUID         uint32
	NrNodes          uint32
	MaxNodeID        uint32
	CPUkHz           uint32
	Capabilities     uint32
	ArchCapabilities uint32
	Pad              uint32
	TotalPages       uint64
	FreePages        uint64
	ScrubPages       uint64
	OutstandingPages uint64
	MaxMFN           uint64
	HwCap            [8]uint32
}

// SysctlGetDomainInfoList is struct xen_sysctl_getdomaininfolist.
type SysctlGetDomainInfoList struct {
	FirstDomain uint16
	Pad0        uint16
	MaxDomains  uint32
	Buffer      uint64
	NumDomains  uint32
	Pad1        uint32
}
