package abi

// WarmcacheVersion is XEN_WARMCACHE_VERSION.
const WarmcacheVersion = 3

// WarmcacheSectorsPerPage is XEN_WARMCACHE_SECTORS_PER_PAGE.
const WarmcacheSectorsPerPage = 8

// WarmcacheCookieWords is XEN_WARMCACHE_COOKIE_WORDS.
const WarmcacheCookieWords = 5

// XENMEM_resource_warmcache and its ids.
const (
	XenmemResourceWarmcache = 3

	WarmcacheResourceTable  = 0
	WarmcacheResourceBitmap = 1
	WarmcacheResourceHeld   = 2
)

// Commands of XEN_DOMCTL_warmcache.
const (
	WarmcacheEnable      = 0
	WarmcacheDisable     = 1
	WarmcacheArm         = 2
	WarmcacheDisarm      = 3
	WarmcacheStatusCmd   = 4
	WarmcacheApprove     = 5
	WarmcacheDrop        = 6
	WarmcacheImageStatus = 7
	WarmcacheImageDrop   = 8
	WarmcacheProbe       = 9
)

// WarmcacheMagic is XEN_DOMCTL_WARMCACHE_MAGIC.
const WarmcacheMagic = 0x5741524d43414348

// Verdicts of WarmcacheApprove.
const (
	WarmcacheVerdictUndecided = 0
	WarmcacheVerdictApproved  = 1
	WarmcacheVerdictRefused   = 2
)

// Flags of WarmcacheDrop.
const (
	WarmcacheDropVBD  = 1 << 0
	WarmcacheDropPFNs = 1 << 1
)

// Flags of WarmcacheStatus.
const (
	WarmcacheStatusEnabled  = 1 << 0
	WarmcacheStatusArmed    = 1 << 1
	WarmcacheStatusAttached = 1 << 2
	WarmcacheStatusEarlyIO  = 1 << 3
)

// WarmcacheReportDone is XEN_WARMCACHE_REPORT_DONE.
const WarmcacheReportDone = 1 << 0

// Reasons why a guest did not take a held page back; indices of
// WarmcacheReport.Refused.
const (
	WarmcacheRefusedUnapproved = 0
	WarmcacheRefusedNoMount    = 1
	WarmcacheRefusedNoInode    = 2
	WarmcacheRefusedNotRegular = 3
	WarmcacheRefusedBeyondEOF  = 4
	WarmcacheRefusedSector     = 5
	WarmcacheRefusedCached     = 6
	WarmcacheRefusedDropped    = 7
	WarmcacheRefusedReclaimed  = 8
	WarmcacheRefusedNotHeld    = 9
	WarmcacheRefusedError      = 10
	WarmcacheNrRefused         = 12
)

// WarmcacheEntry is struct xen_warmcache_entry.
type WarmcacheEntry struct {
	Sector uint64
	VBD    uint32
	Cookie [WarmcacheCookieWords]uint32
}

// DomctlWarmcacheEnable is the enable member of struct xen_domctl_warmcache,
// with the header that all members share.
type DomctlWarmcacheEnable struct {
	Cmd     uint32
	Version uint32
	TTL     uint32
	Cursor  uint32 // 0; Xen's, while it is preempted
}

// DomctlWarmcacheApprove is the approve member.
type DomctlWarmcacheApprove struct {
	Cmd     uint32
	Version uint32
	VBD     uint32
	Verdict uint32
	Pages   uint64
	Cursor  uint32 // 0; Xen's, while it is preempted
	Pad     uint32
}

// DomctlWarmcacheDrop is the drop member.
type DomctlWarmcacheDrop struct {
	Cmd     uint32
	Version uint32
	Flags   uint32
	VBD     uint32
	Nr      uint32
	Cursor  uint32 // 0; Xen's, while it is preempted
	PFNs    uint64
	Dropped uint64
}

// DomctlWarmcacheStatus is the status member.
type DomctlWarmcacheStatus struct {
	Cmd     uint32
	Version uint32
	Buf     uint64
	Size    uint32
	Pad     uint32
}

// DomctlWarmcacheImage is the image member.
type DomctlWarmcacheImage struct {
	Cmd     uint32
	Version uint32
	UUID    [16]byte
	Index   uint32
	TTLLeft uint32
	Pages   uint64
}

// DomctlWarmcacheProbe is the probe member.
type DomctlWarmcacheProbe struct {
	Cmd     uint32
	Version uint32
	Magic   uint64 // 0; WarmcacheMagic
}

// WarmcacheReport is struct xen_warmcache_report.
type WarmcacheReport struct {
	Held     uint64
	Restored uint64
	Refused  [WarmcacheNrRefused]uint64
	Flags    uint32
	Pad      uint32
}

// WarmcacheStatus is struct xen_warmcache_status.
type WarmcacheStatus struct {
	Version        uint32
	Flags          uint32
	TTL            uint32
	Pad            uint32
	MaxPFN         uint64
	Committed      uint64
	Pending        uint64
	Held           uint64
	Preserved      uint64
	Adopted        uint64
	LostBusy       uint64
	Registered     uint64
	Commits        uint64
	CommitsIgnored uint64
	Unregistered   uint64
	WriteFaults    uint64
	ForeignWrites  uint64
	P2MChanges     uint64
	Replaced       uint64
	Untrackable    uint64
	Hypercalls     uint64
	Report         WarmcacheReport
}
