package facts

import (
	"time"

	"github.com/warmreboot/warmreboot/ident"
)

// WarmcacheStatus is struct xen_warmcache_status. Counts are pages unless
// stated otherwise.
type WarmcacheStatus struct {
	Enabled, Armed, Attached bool

	// EarlyIO: another domain read a page of this one through a grant while
	// adopted pages were left and no kernel had attached. A boot loader may have
	// written to a disk, and any held page may differ from it. It passes to the
	// domain that adopts this one's image.
	EarlyIO bool

	TTL       time.Duration
	MaxPFN    uint64
	Committed uint64 // reuse bits set now
	Pending   uint64 // registered, I/O not complete
	Held      uint64 // committed ones that were adopted at creation
	Preserved uint64 // in the image when the domain was created
	Adopted   uint64 // of which were placed into the new domain
	LostBusy  uint64 // committed, but not preserved: still referenced

	// Events since creation.
	Registered, Commits, CommitsIgnored, Unregistered uint64
	WriteFaults, ForeignWrites, P2MChanges, Replaced  uint64
	Untrackable, Hypercalls                           uint64

	Report WarmcacheReport
}

// WarmcacheReport is the guest's own account of its restore. It is for
// display only: a guest may say anything.
type WarmcacheReport struct {
	Held     uint64            // kept out of the allocator at boot
	Restored uint64            // inserted into the page cache
	Refused  map[string]uint64 // by reason; reasons with no page are left out
	Done     bool              // no held page is left
}

// Image is what Xen keeps of a domain that has died.
type Image struct {
	UUID    ident.UUID
	TTLLeft time.Duration
	Pages   uint64
}
