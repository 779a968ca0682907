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
	// InUse says who else uses each of the disks in dom0.
	InUse([]disk.Backing) []disk.Use
	Flush(disk.Backing) error
	Settle(disk.Backing) error
	// Trace starts or finds the trace of writes by others than the backend.
	Trace(disk.Backing, disk.Backend) (Tracer, error)
	// WatchAccess starts watching who opens an image file that a guest uses.
	WatchAccess(disk.Backing) (AccessWatcher, error)
	// WatchFile starts watching an image file that no guest uses.
	WatchFile(disk.Backing) (FileWatcher, error)
	// CloseTraces ends the traces that keep does not want.
	CloseTraces(keep func(domid, vbd uint32) bool) error
}

// Tracer is a disk.Trace.
type Tracer interface {
	Ask() (doubt, breach string, err error)
	// Holds returns why it cannot be trusted to have seen everything.
	Holds() error
	// Fresh: it was started now, and not found.
	Fresh() bool
	Close() error
}

// AccessWatcher is a disk.AccessWatch.
type AccessWatcher interface {
	Ask() (doubt, breach string, err error)
	Close() error
}

// FileWatcher is a disk.FileWatch.
type FileWatcher interface {
	Breach() string
	Close() error
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
func (HostDisks) InUse(all []disk.Backing) []disk.Use { return disk.InUse(all) }

// Flush implements Disks.
func (HostDisks) Flush(b disk.Backing) error { return b.Flush() }

// Settle implements Disks.
func (HostDisks) Settle(b disk.Backing) error { return b.Settle() }

// WatchAccess implements Disks.
func (HostDisks) WatchAccess(b disk.Backing) (AccessWatcher, error) {
	w, err := b.WatchAccess()
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Trace implements Disks.
func (HostDisks) Trace(b disk.Backing, be disk.Backend) (Tracer, error) {
	t, err := b.Trace(be)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// WatchFile implements Disks.
func (HostDisks) WatchFile(b disk.Backing) (FileWatcher, error) {
	w, err := disk.WatchFile(b.File.Path)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// CloseTraces implements Disks.
func (HostDisks) CloseTraces(keep func(domid, vbd uint32) bool) error { return disk.CloseTraces(keep) }
