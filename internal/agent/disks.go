package agent

import (
	"io"

	"github.com/warmreboot/warmreboot/internal/disk"
)

// Reader reads a disk; see disk.Reader.
type Reader interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Disks is the agent's view of what stands behind vbds.
type Disks interface {
	Resolve(disk.Backend) (disk.Backing, error)
	Read(disk.Backing, disk.Backend) (disk.Reading, error)
	Open(disk.Backing) (Reader, error)
	InUse(disk.Backing) (string, error)
	Flush(disk.Backing) error
}

// HostDisks are those of this machine.
type HostDisks struct{ disk.System }

// Resolve implements Disks.
func (h HostDisks) Resolve(b disk.Backend) (disk.Backing, error) { return h.System.Resolve(b) }

// Read implements Disks.
func (HostDisks) Read(b disk.Backing, be disk.Backend) (disk.Reading, error) { return b.Read(be) }

// Open implements Disks.
func (HostDisks) Open(b disk.Backing) (Reader, error) { return b.OpenReader() }

// InUse implements Disks.
func (HostDisks) InUse(b disk.Backing) (string, error) { return b.InUse() }

// Flush implements Disks.
func (HostDisks) Flush(b disk.Backing) error { return b.Flush() }
