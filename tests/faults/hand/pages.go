package hand

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/internal/validate"
	"github.com/warmreboot/warmreboot/xenctl"
	"github.com/warmreboot/warmreboot/xenstore"
)

// VBD is the disk of the domU that the work is done on, xvda.
const VBD = ident.VBD(51712)

// Pages is what dom0 finds of a domU's reusable pages.
type Pages struct {
	Restored   uint64 `json:"restored"`   // from before the reboot, and not written since
	Checked    uint64 `json:"checked"`    // all that were compared with their block
	Gone       uint64 `json:"gone"`       // forgotten by Xen meanwhile: nothing is claimed of them
	Unreadable uint64 `json:"unreadable"` // of these, nothing is known
	Error      string `json:"error,omitempty"`
	// Mismatches are pages that differ from their block.
	Mismatches []Mismatch `json:"mismatches"`
	// Corrupt are pages that equal their block, of files that nobody should
	// have written, while the block is not what it was before the faults.
	Corrupt uint64 `json:"corrupt"`
}

// Mismatch is a page that differs from its disk block.
type Mismatch struct {
	PFN    ident.PFN       `json:"pfn"`
	Inode  uint64          `json:"inode"`
	Index  uint64          `json:"index"`
	Sector cachemap.Sector `json:"sector"`
	// Restored: it is from before the reboot.
	Restored bool `json:"restored"`
	// Served: it belongs to a file that was never written.
	Served bool `json:"served"`
	// PageIntact and DiskIntact: the page, or the block, is what the block was
	// before the faults.
	PageIntact bool `json:"page_intact"`
	DiskIntact bool `json:"disk_intact"`
}

// Sum is a fingerprint of a block. Whoever would want to forge it could; faults
// don't want to.
func Sum(block []byte) uint64 { return xxhash.Sum64(block) }

// watchedDisk notes which blocks are not what they were.
type watchedDisk struct {
	validate.Disk
	pristine []byte // Sum of each block, 8 bytes each
	mu       sync.Mutex
	changed  map[uint64]bool
}

func (d *watchedDisk) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.Disk.ReadAt(p, off)
	d.mu.Lock()
	defer d.mu.Unlock()
	for at := 0; at+cachemap.PageSize <= n; at += cachemap.PageSize {
		block := (uint64(off) + uint64(at)) / cachemap.PageSize
		d.changed[block] = !d.intact(block, p[at:at+cachemap.PageSize])
	}
	return n, err
}

func (d *watchedDisk) intact(block uint64, content []byte) bool {
	return (block+1)*8 <= uint64(len(d.pristine)) && binary.LittleEndian.Uint64(d.pristine[block*8:]) == Sum(content)
}

// pages compares all reusable pages of a domain's VBD with the disk.
func pages(ctx context.Context, domid ident.Domid) (Pages, error) {
	var result Pages
	sums, err := os.ReadFile(Pristine)
	if err != nil {
		return result, err
	}
	served, err := readInodes(inodesPath)
	if err != nil {
		return result, err
	}
	handle, err := xenctl.Open()
	if err != nil {
		return result, err
	}
	defer handle.Close()
	store, err := xenstore.Open()
	if err != nil {
		return result, err
	}
	defer store.Close()
	backend, err := disk.FindBackend(ctx, store, domid, VBD)
	if err != nil {
		return result, err
	}
	backing, err := disk.Host.Resolve(backend)
	if err != nil {
		return result, err
	}
	reader, err := backing.OpenReader()
	if err != nil {
		return result, err
	}
	defer reader.Close()
	watched := &watchedDisk{Disk: reader, pristine: sums, changed: make(map[uint64]bool)}
	c := comparison{memory: hypervisor.Real{Handle: handle}, domid: domid, disk: watched, served: served}
	return c.run(ctx)
}

func readInodes(path string) (map[uint64]bool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []uint64
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	set := make(map[uint64]bool, len(list))
	for _, inode := range list {
		set[inode] = true
	}
	return set, nil
}
