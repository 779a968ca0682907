// Package store keeps checkpoints of one domain's memory: for each page the list
// of its versions, so that any checkpoint is found without walking through
// others.
//
// A version of a page is named by its PFN and by the checkpoint (Epoch) in which
// it was first seen; that name stays when what holds it is written anew. A
// checkpoint changes some pages; for all others the version before holds on.
//
// Files, in a folder of mode 0700, all of mode 0600:
//
//	lock                 held by the one writer; readers take no lock
//	catalogue.bolt       what checkpoints are kept, and when they were taken
//	seg-NNNNNNNNNN.log   append-only: pages, what changed, the rest of the
//	                     domain's state, commit, for each checkpoint from the
//	                     one of that number on
//	seg-NNNNNNNNNN.idx   made when a segment is full: for each page the version
//	                     at the segment's beginning, and those in it
//
// A checkpoint exists from the moment on that its commit record, which has a sum
// over all that belongs to it, is on the disk. The catalogue follows; a writer
// that finds commits which the catalogue does not know, and which are whole, adds
// them, and cuts off what comes behind the last whole one. What an index says
// follows from the segments: a lost one is made again.
//
// Nothing is changed in place. What is forgotten is freed by writing the segments
// that hold it anew, newest first, so that whatever a version is encoded against
// is there at every moment.
//
// Encodings: zero, the same as an earlier version, an earlier version but for some
// runs of bytes, compressed (s2), XOR with an earlier version of the same page,
// compressed, or as it is. Each has a CRC of the page's bytes, which is checked
// whenever that version is read. Equality is decided by
// comparing bytes, never by a hash, so that no guest can make one version pass for
// another. One page is never stored as a reference to another: of what changes it
// would save 0.1 to 2.8 % only.
//
// The package knows no Xen: where pages come from is the caller's business. The
// number 6 of the encodings is kept for a reference to a sector of a disk's
// snapshot.
package store

import (
	"errors"
	"fmt"
	"time"
)

// PageSize is the size of a page in bytes.
const PageSize = 4096

// Epoch is the number of a checkpoint of a domain, from 1; 0 is none. Numbers are
// never used again.
type Epoch uint32

// Kind says what is known of a page.
type Kind uint8

const (
	// Data is a page whose bytes are known.
	Data Kind = iota
	// Allocated is a page without promised content.
	Allocated
	// Absent is a frame without a page.
	Absent
)

// Errors. All others that this package returns are the operating system's.
var (
	// ErrBusy is returned to a second writer.
	ErrBusy = errors.New("another process writes to this store")
	// ErrDamaged is the store's own data failing its checks.
	ErrDamaged = errors.New("the store is damaged")
	// ErrFull is a checkpoint that would exceed Options.MaxBytes. It is given up;
	// the store stays as it was.
	ErrFull = errors.New("the store has reached its limit")
	// ErrUnknown is a checkpoint that the store does not have, or no longer.
	ErrUnknown = errors.New("no such checkpoint")
	// ErrNeedsFull is an incremental checkpoint without the one before it.
	ErrNeedsFull = errors.New("the checkpoint before is not there: a full one is needed first")
)

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// Info describes a checkpoint.
type Info struct {
	Epoch Epoch     `json:"-"`
	Time  time.Time `json:"time"`
	// Domain is the domain's name at that time.
	Domain string `json:"domain,omitempty"`
	// Label is what the operator called it.
	Label string `json:"label,omitempty"`
	// Pages is how many pages were looked at; Changed how many have a new version.
	Pages   int `json:"pages"`
	Changed int `json:"changed"`
	// Bytes is what it took in the segment, Meta what of it is not pages.
	Bytes int64 `json:"bytes"`
	Meta  int64 `json:"meta"`
	// Forgotten: versions of it are kept for later checkpoints only.
	Forgotten bool `json:"forgotten,omitempty"`
}

// Options of a writer. The zero value means the defaults.
type Options struct {
	// MaxBytes bounds the store's size; 0 is no bound.
	MaxBytes int64
	// SegmentBytes and SegmentCheckpoints are when a new segment is begun.
	SegmentBytes       int64
	SegmentCheckpoints int
	// SyncEvery is after how many checkpoints they are made durable; 1 if 0.
	// Until then a power cut may lose the last ones, never a part of one.
	SyncEvery int
	// noSync leaves out waiting for the disk, for tests that kill no machine.
	noSync bool
	// step is told of each step of what changes files, for tests that cut there.
	step func(what string)
}

func (o Options) withDefaults() Options {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 256 << 20
	}
	if o.SegmentCheckpoints == 0 {
		o.SegmentCheckpoints = 1024
	}
	if o.SyncEvery == 0 {
		o.SyncEvery = 1
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	return o
}
