package model

// Sizes of the world. Everything is in arrays, so that a World is a value and a
// step allocates nothing.
const (
	nUUIDs  = 2
	nSlots  = 3 // domains that exist at a time, zombies included
	nPFNs   = 4
	nFrames = 11
	nBlocks = 4 // per UUID: two of each vbd
	nVBDs   = 2
	nKeys   = 4 // pages of files, two on each vbd
	nVCPUs  = 2
	nIOs    = 4
	nImages = 4
	nMaps   = 2
)

// Bytes are what a page or block holds: a number nobody else has. The top bit is
// the UUID of the domain that it is from. Zero is a scrubbed page.
type Bytes uint16

func (b Bytes) uuid() uint8 { return uint8(b >> 15) }

// none is no PFN, frame, slot, image, key or block.
const none int8 = -1

// Owners of a frame other than domains.
const (
	free   int8 = -1
	nobody int8 = -2 // an image, as after page_set_owner(page, NULL)
)

// frame is struct page_info, and what is in the page.
type frame struct {
	owner     int8
	refs      uint8 // count_info & PGC_count_mask
	allocated bool  // PGC_allocated, with a reference of its own
	put       bool  // on relmem_list instead of page_list
	needFlush bool  // u.free.need_tlbflush
	given     bool  // by the guest, which is to clear what it gives away
	gpfn      int8  // M2P
	bytes     Bytes
	// stale: a PV domain that may map the frame's owner has unmapped it, and has a
	// translation left. staleFor is the UUID it was the owner of.
	stale    bool
	staleFor uint8
}

// entry is struct xen_warmcache_entry: which page of which file, where on disk.
type entry struct {
	key, block int8
	// liar: the guest that registered it does not say the truth. Xen can't know.
	liar bool
}

func vbdOf(n int8) int8 { return n / (nBlocks / nVBDs) }

// image is struct wc_image.
type image struct {
	state  imageState
	uuid   uint8
	order  uint8 // position on the list
	frames [nPFNs]int8
	ents   [nPFNs]entry
}

type imageState uint8

const (
	imageNone imageState = iota
	imagePreserving
	imageWaiting // on the list of images
	imageBound   // to the domain that adopts it
	imageReleased
)

// mapping is a foreign mapping by dom0.
type mapping struct {
	frame    int8
	writable bool
	inUse    bool
}

// copying is a write by Xen into a guest's page that is under way.
type copying struct {
	slot, pfn, frame int8
	written, inUse   bool
}

// World is all there is: the machine, Xen's knowledge and the guests'.
type World struct {
	rules  Rules
	frames [nFrames]frame
	doms   [nSlots]domain
	images [nImages]image
	ios    [nIOs]blockIO
	maps   [nMaps]mapping
	copier copying
	disk   [nUUIDs][nBlocks]Bytes
	files  [nUUIDs][nKeys]int8 // the file systems as a new kernel finds them
	acct   [nUUIDs][nVBDs]account
	away   [nUUIDs]bool  // suspended here, and running elsewhere
	born   [nUUIDs]uint8 // how many domains there have been
	noSee  bool          // the agent is not running
	clock  Bytes         // last version given out
	orders uint8
	// bad is the first thing that must not be, at is after which step.
	bad string
}

// Reset makes the world one in which nothing has happened yet.
func (w *World) Reset(r Rules) {
	*w = World{rules: r}
	for i := range w.frames {
		w.frames[i] = frame{owner: free, gpfn: none}
	}
	for u := range w.disk {
		for b := range w.disk[u] {
			w.disk[u][b] = w.fresh(uint8(u))
			w.files[u][b] = int8(b)
		}
	}
}

func (w *World) fail(what string) {
	if w.bad == "" {
		w.bad = what
	}
}

// fresh returns bytes that nobody else has.
func (w *World) fresh(uuid uint8) Bytes {
	w.clock++
	return w.clock | Bytes(uuid)<<15
}

// alloc is alloc_domheap_page for a domain.
func (w *World) alloc(slot int8) int8 {
	for f := range w.frames {
		p := &w.frames[f]
		if p.owner != free {
			continue
		}
		if p.needFlush {
			p.stale = false
		}
		if p.bytes != 0 && p.bytes.uuid() != w.doms[slot].uuid {
			w.fail("a page of one UUID is given to another, unscrubbed")
		}
		*p = frame{owner: slot, refs: 1, allocated: true, gpfn: none, bytes: p.bytes, stale: p.stale, staleFor: p.staleFor}
		return int8(f)
	}
	return none
}

// release is free_domheap_page: of a page without owner, or with a dying one, it
// is scrubbed.
func (w *World) release(f int8, scrub bool) {
	p := &w.frames[f]
	stale, staleFor, bytes := p.stale, p.staleFor, p.bytes
	if scrub || p.given {
		bytes = 0
	}
	*p = frame{owner: free, gpfn: none, needFlush: p.owner != nobody, bytes: bytes, stale: stale, staleFor: staleFor}
}

// putPage is put_page.
func (w *World) putPage(f int8) {
	p := &w.frames[f]
	if p.refs == 0 || p.owner == free {
		w.fail("a reference is put that was not there")
		return
	}
	if p.refs--; p.refs == 0 {
		w.release(f, p.owner == nobody || w.doms[p.owner].phase >= dying)
	}
}

// putAllocRef is put_page_alloc_ref.
func (w *World) putAllocRef(f int8) {
	if w.frames[f].allocated {
		w.frames[f].allocated = false
		w.putPage(f)
	}
}

// store writes to a frame, by whatever way.
func (w *World) store(f int8, b Bytes) { w.frames[f].bytes = b }
