package xenctl

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl/facts"
	"github.com/warmreboot/warmreboot/xenctl/internal/abi"
	"github.com/warmreboot/warmreboot/xenctl/internal/privcmd"
)

// Verdict is what dom0 says about the held pages of one vbd.
type Verdict uint32

// Verdicts.
const (
	Undecided Verdict = abi.WarmcacheVerdictUndecided
	Approved  Verdict = abi.WarmcacheVerdictApproved
	Refused   Verdict = abi.WarmcacheVerdictRefused
)

func (v Verdict) String() string {
	switch v {
	case Undecided:
		return "undecided"
	case Approved:
		return "approved"
	case Refused:
		return "refused"
	}
	return "unknown"
}

// What Xen says of a warm cache is data that others reason with, without Xen.
type (
	WarmcacheStatus = facts.WarmcacheStatus
	WarmcacheReport = facts.WarmcacheReport
	Image           = facts.Image
)

// refusedNames are the names that the guest's sysfs uses, too.
var refusedNames = [abi.WarmcacheNrRefused]string{
	abi.WarmcacheRefusedUnapproved: "unapproved",
	abi.WarmcacheRefusedNoMount:    "no_mount",
	abi.WarmcacheRefusedNoInode:    "no_inode",
	abi.WarmcacheRefusedNotRegular: "not_regular",
	abi.WarmcacheRefusedBeyondEOF:  "beyond_eof",
	abi.WarmcacheRefusedSector:     "sector",
	abi.WarmcacheRefusedCached:     "cached",
	abi.WarmcacheRefusedDropped:    "dropped",
	abi.WarmcacheRefusedReclaimed:  "reclaimed",
	abi.WarmcacheRefusedNotHeld:    "not_held",
	abi.WarmcacheRefusedError:      "error",
	11:                             "other",
}

var warmcacheErrors = map[unix.Errno]error{
	unix.ESRCH:      ErrNoDomain,
	unix.ENODEV:     ErrNotEnabled,
	unix.ENOENT:     ErrNotEnabled,
	unix.EOPNOTSUPP: ErrNotSupported,
	unix.ENOSYS:     ErrNotSupported,
	unix.EEXIST:     ErrExists,
	unix.EACCES:     ErrVersion,
}

var imageErrors = map[unix.Errno]error{
	unix.ESRCH:      ErrNotSupported, // a Xen that looks for the domain first
	unix.ENOENT:     ErrNoImage,
	unix.EOPNOTSUPP: ErrNotSupported,
	unix.ENOSYS:     ErrNotSupported,
	unix.EACCES:     ErrVersion,
}

// header is the header of every command structure of the warmcache domctl.
const version = abi.WarmcacheVersion

// WarmcacheEnable enables the warm cache of a domain. An image of it is kept
// for ttl; 0 is Xen's default. Errors: ErrExists, ErrNotSupported.
func (h *Handle) WarmcacheEnable(domid ident.Domid, ttl time.Duration) error {
	arg := abi.DomctlWarmcacheEnable{Cmd: abi.WarmcacheEnable, Version: version, TTL: seconds(ttl)}
	err := domctl(h, abi.DomctlWarmcache, uint16(domid), &arg)
	return wrap(err, warmcacheErrors, "warmcache_enable", "domid=%d", domid)
}

// WarmcacheDisable forgets everything known of the domain's pages.
func (h *Handle) WarmcacheDisable(domid ident.Domid) error {
	arg := abi.DomctlWarmcacheEnable{Cmd: abi.WarmcacheDisable, Version: version}
	err := domctl(h, abi.DomctlWarmcache, uint16(domid), &arg)
	return wrap(err, warmcacheErrors, "warmcache_disable", "domid=%d", domid)
}

// WarmcacheArm has Xen keep an image of the domain when it dies, for ttl; 0
// leaves the time as it is.
func (h *Handle) WarmcacheArm(domid ident.Domid, ttl time.Duration) error {
	arg := abi.DomctlWarmcacheEnable{Cmd: abi.WarmcacheArm, Version: version, TTL: seconds(ttl)}
	err := domctl(h, abi.DomctlWarmcache, uint16(domid), &arg)
	return wrap(err, warmcacheErrors, "warmcache_arm", "domid=%d", domid)
}

// WarmcacheDisarm is the opposite of WarmcacheArm.
func (h *Handle) WarmcacheDisarm(domid ident.Domid) error {
	arg := abi.DomctlWarmcacheEnable{Cmd: abi.WarmcacheDisarm, Version: version}
	err := domctl(h, abi.DomctlWarmcache, uint16(domid), &arg)
	return wrap(err, warmcacheErrors, "warmcache_disarm", "domid=%d", domid)
}

func seconds(d time.Duration) uint32 {
	return uint32(min(max(d, 0)/time.Second, 1<<31))
}

// WarmcacheStatus returns the state and the counters of a domain's warm cache.
func (h *Handle) WarmcacheStatus(domid ident.Domid) (WarmcacheStatus, error) {
	buf, err := h.dev.Alloc(abi.PageSize)
	if err != nil {
		return WarmcacheStatus{}, err
	}
	defer buf.Free()
	raw := privcmd.At[abi.WarmcacheStatus](buf.Bytes(), 0)
	arg := abi.DomctlWarmcacheStatus{Cmd: abi.WarmcacheStatusCmd, Version: version,
		Buf: buf.Addr(), Size: warmcacheStatusSize}
	if err := domctl(h, abi.DomctlWarmcache, uint16(domid), &arg); err != nil {
		return WarmcacheStatus{}, wrap(err, warmcacheErrors, "warmcache_status", "domid=%d", domid)
	}
	return statusFromABI(raw), nil
}

func statusFromABI(raw *abi.WarmcacheStatus) WarmcacheStatus {
	s := WarmcacheStatus{
		Enabled:  raw.Flags&abi.WarmcacheStatusEnabled != 0,
		Armed:    raw.Flags&abi.WarmcacheStatusArmed != 0,
		Attached: raw.Flags&abi.WarmcacheStatusAttached != 0,
		EarlyIO:  raw.Flags&abi.WarmcacheStatusEarlyIO != 0,
		TTL:      time.Duration(raw.TTL) * time.Second,
		MaxPFN:   raw.MaxPFN, Committed: raw.Committed, Pending: raw.Pending,
		Held: raw.Held, Preserved: raw.Preserved, Adopted: raw.Adopted,
		LostBusy: raw.LostBusy, Registered: raw.Registered, Commits: raw.Commits,
		CommitsIgnored: raw.CommitsIgnored, Unregistered: raw.Unregistered,
		WriteFaults: raw.WriteFaults, ForeignWrites: raw.ForeignWrites,
		P2MChanges: raw.P2MChanges, Replaced: raw.Replaced,
		Untrackable: raw.Untrackable, Hypercalls: raw.Hypercalls,
		Report: WarmcacheReport{
			Held: raw.Report.Held, Restored: raw.Report.Restored,
			Done:    raw.Report.Flags&abi.WarmcacheReportDone != 0,
			Refused: map[string]uint64{},
		},
	}
	for i, n := range raw.Report.Refused {
		if n != 0 {
			s.Report.Refused[refusedNames[i]] += n
		}
	}
	return s
}

// WarmcacheVerdict records dom0's verdict on the held pages of a vbd and
// returns how many it is about. Refused also drops them.
func (h *Handle) WarmcacheVerdict(domid ident.Domid, vbd ident.VBD, v Verdict) (pages uint64, err error) {
	arg := abi.DomctlWarmcacheApprove{Cmd: abi.WarmcacheApprove, Version: version,
		VBD: uint32(vbd), Verdict: uint32(v)}
	if err := domctl(h, abi.DomctlWarmcache, uint16(domid), &arg); err != nil {
		return 0, wrap(err, warmcacheErrors, "warmcache_approve", "domid=%d vbd=%d verdict=%v", domid, vbd, v)
	}
	return arg.Pages, nil
}

// WarmcacheDrop clears all reuse bits of a domain and returns how many.
func (h *Handle) WarmcacheDrop(domid ident.Domid) (dropped uint64, err error) {
	return h.drop(domid, abi.DomctlWarmcacheDrop{}, "")
}

// WarmcacheDropVBD clears the reuse bits of one vbd's pages.
func (h *Handle) WarmcacheDropVBD(domid ident.Domid, vbd ident.VBD) (dropped uint64, err error) {
	return h.drop(domid, abi.DomctlWarmcacheDrop{Flags: abi.WarmcacheDropVBD, VBD: uint32(vbd)}, "vbd")
}

// dropBatch is the number of PFNs in one call.
const dropBatch = 4096

// WarmcacheDropPFNs clears the reuse bits of pfns, in batches. On an error
// dropped is what was cleared before it.
func (h *Handle) WarmcacheDropPFNs(domid ident.Domid, pfns []ident.PFN) (dropped uint64, err error) {
	buf, err := h.dev.Alloc(dropBatch * 8)
	if err != nil {
		return 0, err
	}
	defer buf.Free()
	list := privcmd.Slice[uint64](buf.Bytes())
	for len(pfns) > 0 {
		n := min(len(pfns), dropBatch)
		for i, p := range pfns[:n] {
			list[i] = uint64(p)
		}
		pfns = pfns[n:]
		d, err := h.drop(domid, abi.DomctlWarmcacheDrop{Flags: abi.WarmcacheDropPFNs,
			Nr: uint32(n), PFNs: buf.Addr()}, "pfns")
		dropped += d
		if err != nil {
			return dropped, err
		}
	}
	return dropped, nil
}

func (h *Handle) drop(domid ident.Domid, arg abi.DomctlWarmcacheDrop, what string) (uint64, error) {
	arg.Cmd, arg.Version = abi.WarmcacheDrop, version
	err := domctl(h, abi.DomctlWarmcache, uint16(domid), &arg)
	return arg.Dropped, wrap(err, warmcacheErrors, "warmcache_drop", "domid=%d %s", domid, what)
}

// Images returns all images that Xen keeps.
func (h *Handle) Images() ([]Image, error) {
	var all []Image
	for i := uint32(0); ; i++ {
		img, err := h.image(ident.UUID{}, i)
		if errors.Is(err, ErrNoImage) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, img)
	}
}

// Image returns the image kept under a UUID, or ErrNoImage.
func (h *Handle) Image(uuid ident.UUID) (Image, error) { return h.image(uuid, ^uint32(0)) }

func (h *Handle) image(uuid ident.UUID, index uint32) (Image, error) {
	arg := abi.DomctlWarmcacheImage{Cmd: abi.WarmcacheImageStatus, Version: version,
		UUID: uuid, Index: index}
	if err := domctl(h, abi.DomctlWarmcache, abi.DomidInvalid, &arg); err != nil {
		return Image{}, wrap(err, imageErrors, "warmcache_image_status", "uuid=%v index=%d", uuid, int32(index))
	}
	return Image{UUID: arg.UUID, TTLLeft: time.Duration(arg.TTLLeft) * time.Second, Pages: arg.Pages}, nil
}

// DropImage scrubs and frees the image kept under a UUID and returns how many
// pages it had. ErrNoImage if there is none.
func (h *Handle) DropImage(uuid ident.UUID) (pages uint64, err error) {
	arg := abi.DomctlWarmcacheImage{Cmd: abi.WarmcacheImageDrop, Version: version, UUID: uuid}
	err = domctl(h, abi.DomctlWarmcache, abi.DomidInvalid, &arg)
	return arg.Pages, wrap(err, imageErrors, "warmcache_image_drop", "uuid=%v", uuid)
}
