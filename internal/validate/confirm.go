package validate

import (
	"bytes"
	"context"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/internal/disk"
)

// confirmations is how often a page is looked at that is said to differ.
const confirmations = 5

// Confirm reports whether a page that differs from its sectors is stale, though the
// guest that has it runs on: Xen remembers it, with the same entry, each time before and
// after it is looked at, and each time its bytes are the same, the block's are the same,
// and they differ. Between two looks it calls wait.
//
// That Xen remembers it each time is not enough: in between the guest may have written
// to the page, and out again, and each look have seen one from before and the other from
// after. But then one of them is different at the next look. A guest that goes back and
// forth between two contents in time with the looks is taken for stale, to its own harm.
func (c ContentCheck) Confirm(ctx context.Context, p Page, wait func(context.Context) error) (bool, error) {
	buf, err := disk.AlignedBuffer(cachemap.PageSize)
	if err != nil {
		return false, err
	}
	defer buf.Free()
	var page, block []byte
	for i := range confirmations {
		if i > 0 {
			if err := wait(ctx); err != nil {
				return false, err
			}
		}
		before, err := c.remembered([]suspect{{Page: p}}, new(Content))
		if err != nil || len(before) == 0 {
			return false, err
		}
		mem, err := c.copyPage(p)
		if err != nil {
			return false, err
		}
		if err := c.read(buf, p.Entry.Sector); err != nil {
			return false, err
		}
		after, err := c.remembered([]suspect{{Page: p}}, new(Content))
		if err != nil || len(after) == 0 {
			return false, err
		}
		if bytes.Equal(mem, buf) || i > 0 && (!bytes.Equal(mem, page) || !bytes.Equal(buf, block)) {
			return false, nil
		}
		page, block = mem, bytes.Clone(buf)
	}
	return true, nil
}

// copyPage returns the bytes of a page.
func (c ContentCheck) copyPage(p Page) ([]byte, error) {
	m, err := c.Memory.MapPages(c.Domid, pfns([]Page{p}))
	if err != nil {
		return nil, err
	}
	defer m.Close()
	mem, err := m.Page(0)
	if err != nil {
		return nil, err
	}
	return bytes.Clone(mem), nil
}
