package abi

// Hypercall numbers (xen.h).
const (
	HypervisorMemoryOp   = 12
	HypervisorXenVersion = 17
	HypervisorSchedOp    = 29
	HypervisorSysctl     = 35
	HypervisorDomctl     = 36
)

// Interface versions that the privileged structures carry.
const (
	DomctlInterfaceVersion = 0x17
	SysctlInterfaceVersion = 0x15
)

// Domain ids with a meaning of their own (xen.h).
const (
	DomidFirstReserved = 0x7ff0
	DomidSelf          = 0x7ff0
	DomidInvalid       = 0x7ff4
)

// SCHEDOP_remote_shutdown and the shutdown reasons (sched.h).
const (
	SchedopRemoteShutdown = 4

	ShutdownPoweroff  = 0
	ShutdownReboot    = 1
	ShutdownSuspend   = 2
	ShutdownCrash     = 3
	ShutdownWatchdog  = 4
	ShutdownSoftReset = 5
)

// SchedRemoteShutdown is struct sched_remote_shutdown.
type SchedRemoteShutdown struct {
	DomainID uint16
	Pad      uint16
	Reason   uint32
}

// PageSize is the size of a Xen page in bytes.
const PageSize = 4096
