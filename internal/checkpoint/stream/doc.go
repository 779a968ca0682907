// Package stream reads and writes what `xl save` leaves in a file, and what `xl
// restore` takes: xl's header with the domain's configuration, in it libxl's
// stream (version 2), and in that libxc's (version 3), of PVH and HVM guests on
// x86. PV guests, whose page tables the toolstack rewrites, are refused, and so
// are Remus's streams of many checkpoints.
//
// Sources: docs/specs/libxl-migration-stream.pandoc and
// docs/specs/libxc-migration-stream.pandoc of Xen 4.20; tools/xl/xl.h;
// tools/libs/guest/xg_sr_stream_format.h.
//
// What is not memory is kept as it was found, record by record, so that writing
// it again gives `xl restore` the same. A page is known by its PFN. Whoever wrote
// the file is not trusted: every length is checked before it is used, and what is
// held in memory is bounded by the constants below, whatever the file says.
package stream

import "github.com/warmreboot/warmreboot/ident"

// PageSize is the size of a guest's page in bytes.
const PageSize = 4096

const (
	// MaxState bounds the bytes of everything but memory. An HVM guest's device
	// model takes a few MiB at most, with the video memory in the guest's pages.
	MaxState = 64 << 20
	// MaxPFN is the first PFN that is refused: 16 TiB, what Xen supports for one
	// guest.
	MaxPFN = ident.PFN(16 << 40 / PageSize)
	// maxBatch bounds the pages of one PAGE_DATA record; libxc writes 1024.
	maxBatch = 1 << 16
	// maxRecord is REC_LENGTH_MAX of libxc.
	maxRecord = 128 << 20
)

// Kind says what a stream tells of a page.
type Kind uint8

const (
	// Data is a page whose bytes are in the stream.
	Data Kind = iota
	// Allocated is a page that the guest has, but whose content nobody is
	// promised (XALLOC).
	Allocated
	// Absent is a frame without a page (XTAB, BROKEN): ballooned out, or a hole.
	Absent
)

// Page is a page of a stream. Data has PageSize bytes if the kind is Data, and is
// nil otherwise.
type Page struct {
	PFN  ident.PFN
	Kind Kind
	Data []byte
}

// Record is a record that is passed on without being understood.
type Record struct {
	Type uint32
	Body []byte
}

// Types of libxc's records.
const (
	recEnd           = 0x0
	recPageData      = 0x1
	RecTSCInfo       = 0x8
	RecHVMContext    = 0x9
	RecHVMParams     = 0xa
	recVerify        = 0xd
	recCheckpoint    = 0xe
	recDirtyList     = 0xf
	recStaticDataEnd = 0x10
	RecCPUIDPolicy   = 0x11
	RecMSRPolicy     = 0x12
	recOptional      = 0x80000000
)

// Types of libxl's records.
const (
	outerEnd              = 0
	outerLibxcContext     = 1
	outerEmulatorXenstore = 2
	outerEmulatorContext  = 3
	outerCheckpointEnd    = 4
	outerCheckpointState  = 5
)

// State is everything of a domain but its memory.
type State struct {
	// Config is the domain's configuration as libxl's JSON, without the NUL that
	// ends it in the file. Empty if the file has none: `xl restore` then wants a
	// configuration of its own.
	Config []byte
	// XenMajor and XenMinor are the version of the Xen that wrote it.
	XenMajor, XenMinor uint32
	// Static are libxc's records before memory, and Rest those after
	// STATIC_DATA_END that are no pages.
	Static, Rest []Record
	// Emulators are libxl's records behind libxc's stream: the device model of an
	// HVM guest; a PVH guest has none.
	Emulators []Record
}

// Find returns the body of the first record of libxc's with that type, or nil.
func (s *State) Find(typ uint32) []byte {
	for _, list := range [][]Record{s.Static, s.Rest} {
		for _, r := range list {
			if r.Type == typ {
				return r.Body
			}
		}
	}
	return nil
}

const (
	xlMagic        = "Xen saved domain, xl format\n \x00 \r" // and a NUL
	xlMagicSize    = 32
	xlByteOrder    = 0x01020304
	xlJSON         = 1 << 0
	xlStreamV2     = 1 << 1
	libxlIdent     = 0x4c6962786c466d74 // "LibxlFmt"
	libxlVersion   = 2
	libxcMarker    = ^uint64(0)
	libxcID        = 0x58454e46 // "XENF"
	libxcVersion   = 3
	domainPV       = 1
	domainHVM      = 2
	pageShift      = 12
	pfnMask        = 1<<52 - 1
	typeData       = 0x0
	typeBroken     = 0xd
	typeXAlloc     = 0xe
	typeXTab       = 0xf
	pageTypeShift  = 60
	paramsEntry    = 16
	headerOfPages  = 8
	alignment      = 8
	superpagePages = 1024
)
