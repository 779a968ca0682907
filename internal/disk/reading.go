package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Reading is how much had been written to a disk at one moment, by whom.
type Reading struct {
	At time.Time `json:"at"`
	// Written and Discarded are sectors since the device was made, by
	// anybody; Discards are requests. Zero for a plain file.
	Written   uint64 `json:"written"`
	Discarded uint64 `json:"discarded"`
	Discards  uint64 `json:"discards"`
	// Uncounted: the kernel has been told not to count.
	Uncounted bool `json:"uncounted,omitempty"`
	// Guest is what the guest has written through its backend, nil if the
	// backend is not connected or is QEMU's.
	Guest *GuestIO `json:"guest,omitempty"`
	// File is the state of the image file, if it is one.
	File *FileState `json:"file,omitempty"`
	// Stack is what a block device consists of. Empty for an image file, of which
	// the file system tells: see FileState.
	Stack Stack `json:"stack,omitzero"`
}

// GuestIO counts what one connection of a blkback has passed on to the disk.
// The counters start at 0 with each connection.
type GuestIO struct {
	Written  uint64 `json:"written"`  // sectors
	Discards uint64 `json:"discards"` // requests
}

// FileState changes whenever a file is written to. It does so as well when the file
// system that the file is on is rolled back, with the file as it was earlier: the
// inode is then as it was earlier, too, with another Ctime, unless nothing had been
// written since, and then the contents are the same. So what the file system lies on
// need not be looked at.
type FileState struct {
	Size  int64 `json:"size"`
	Mtime int64 `json:"mtime"` // nanoseconds
	Ctime int64 `json:"ctime"` // nanoseconds; nobody can set it
}

// Read takes a reading of the disk behind a backend.
//
// Postconditions: the disk's counters were read before the guest's, so that
// what the guest wrote and Written counts is in Guest as well.
func (b Backing) Read(be Backend) (Reading, error) {
	r := Reading{At: time.Now()}
	if b.device != "" {
		if err := b.readStat(&r); err != nil {
			return Reading{}, err
		}
	}
	if b.Block != "" {
		r.Stack = b.sys.stack(b.Block)
	}
	if b.File != nil {
		var err error
		if r.File, err = b.File.State(); err != nil {
			return Reading{}, err
		}
	}
	var err error
	r.Guest, err = b.sys.guestIO(be)
	return r, err
}

// stat returns the device's counters (Documentation/block/stat.rst), 11 at least.
func (b Backing) stat() ([]string, error) {
	path := filepath.Join(b.dir(), "stat")
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := strings.Fields(string(raw))
	if len(f) < 11 {
		return nil, fmt.Errorf("%s: %d fields", path, len(f))
	}
	return f, nil
}

// readStat enters what they say of writes.
func (b Backing) readStat(r *Reading) error {
	f, err := b.stat()
	if err != nil {
		return err
	}
	on, err := readOfDisk(b.dir(), "queue/iostats")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.Uncounted = err == nil && on == 0
	for i, to := range map[int]*uint64{6: &r.Written, 11: &r.Discards, 13: &r.Discarded} {
		if i >= len(f) {
			continue // kernels before 4.19 do not count discards
		}
		if *to, err = strconv.ParseUint(f[i], 10, 64); err != nil {
			return fmt.Errorf("%s: the counters: %w", b.Name, err)
		}
	}
	return nil
}

// BusyTime is for how long the device has had requests since it was made; an error if
// there is no device, as of a plain file.
func (b Backing) BusyTime() (time.Duration, error) {
	if b.device == "" {
		return 0, fmt.Errorf("%s: no device: %w", b.Name, ErrUnsupported)
	}
	f, err := b.stat()
	if err != nil {
		return 0, err
	}
	ms, err := strconv.ParseUint(f[9], 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", b.Name, err)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// State returns the file's state; fs.ErrNotExist if there is no file of that
// name, and an error if it is another file.
func (f FileID) State() (*FileState, error) {
	var st unix.Stat_t
	if err := unix.Stat(f.Path, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: f.Path, Err: err}
	}
	if st.Dev != f.Device || st.Ino != f.Inode {
		return nil, fmt.Errorf("%s: another file (inode %d, was %d)", f.Path, st.Ino, f.Inode)
	}
	return &FileState{Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano()}, nil
}

// guestIO reads blkback's counters; nil if the backend is not there or has no
// connection.
func (s System) guestIO(be Backend) (*GuestIO, error) {
	if be.Kind != "vbd" {
		return nil, nil
	}
	dir := filepath.Join(s.Sys, "bus/xen-backend/devices", fmt.Sprintf("vbd-%d-%d", be.Domid, be.VBD), "statistics")
	var g GuestIO
	for name, to := range map[string]*uint64{"wr_sect": &g.Written, "ds_req": &g.Discards} {
		v, err := readUint(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		*to = v
	}
	return &g, nil
}
