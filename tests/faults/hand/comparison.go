package hand

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/internal/validate"
)

// comparison compares the reusable pages of a domain with its disk.
type comparison struct {
	memory hypervisor.Memory
	domid  ident.Domid
	disk   *watchedDisk
	served map[uint64]bool // inodes
}

func (c comparison) run(ctx context.Context) (Pages, error) {
	result := Pages{Mismatches: []Mismatch{}}
	restored := make(map[ident.PFN]bool)
	err := c.each(true, func(page validate.Page) { restored[page.PFN] = true })
	if err != nil {
		return result, err
	}
	result.Restored = uint64(len(restored))
	var all []validate.Page
	if err := c.each(false, func(page validate.Page) { all = append(all, page) }); err != nil {
		return result, err
	}
	differ, err := c.compare(ctx, all, &result)
	if err != nil {
		return result, err
	}
	wrong := make(map[ident.PFN]bool)
	for _, page := range differ {
		mismatch, err := c.describe(page)
		if err != nil {
			result.Unreadable, result.Error = result.Unreadable+1, err.Error()
			continue
		}
		mismatch.Restored = restored[page.PFN]
		result.Mismatches = append(result.Mismatches, mismatch)
		wrong[page.PFN] = true
	}
	for _, page := range all {
		block := uint64(page.Entry.Sector / cachemap.SectorsPerPage)
		if c.served[page.Entry.Cookie.File().Inode] && c.disk.changed[block] && !wrong[page.PFN] {
			result.Corrupt++
		}
	}
	return result, nil
}

func (c comparison) each(held bool, visit func(validate.Page)) error {
	view, closeView, err := validate.MapView(c.memory, c.domid, held)
	if err != nil {
		return err
	}
	defer closeView()
	for pfn, entry := range view.All() {
		if entry.VBD == VBD {
			visit(validate.Page{PFN: pfn, Entry: entry})
		}
	}
	return nil
}

// attempts is how often a page that differs is compared again.
const attempts = 3

// compare returns all pages that differ. A page may be forgotten, or written by
// the guest, at any time: one that differs counts only if Xen remembers it,
// with the same entry, before and after it was compared again.
func (c comparison) compare(ctx context.Context, list []validate.Page, result *Pages) ([]validate.Page, error) {
	differ, err := c.suspects(list)
	for i := 0; i < attempts && err == nil && len(differ) > 0; i++ {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
		if differ, err = c.remembered(differ, result); err == nil {
			differ, err = c.suspects(differ)
		}
	}
	if err == nil && len(differ) > 0 {
		differ, err = c.remembered(differ, result)
	}
	result.Checked = uint64(len(list)) - result.Gone
	return differ, err
}

// remembered returns the pages that Xen still claims to equal their blocks, and
// counts the others.
func (c comparison) remembered(pages []validate.Page, result *Pages) ([]validate.Page, error) {
	now := make(map[validate.Page]bool)
	if err := c.each(false, func(page validate.Page) { now[page] = true }); err != nil {
		return nil, err
	}
	var still []validate.Page
	for _, page := range pages {
		if now[page] {
			still = append(still, page)
		}
	}
	result.Gone += uint64(len(pages) - len(still))
	return still, nil
}

// batch is how many pages are mapped, or read, at a time.
const batch = 256

// suspects sorts the pages by sector and returns those that are not equal, or
// can't be read.
func (c comparison) suspects(list []validate.Page) ([]validate.Page, error) {
	slices.SortFunc(list, func(a, b validate.Page) int { return cmp.Compare(a.Entry.Sector, b.Entry.Sector) })
	buffer, err := disk.AlignedBuffer(batch * cachemap.PageSize)
	if err != nil {
		return nil, err
	}
	defer buffer.Free()
	var found []validate.Page
	for pages := range slices.Chunk(list, batch) {
		pfns := make([]ident.PFN, len(pages))
		for i, page := range pages {
			pfns[i] = page.PFN
		}
		mapped, err := c.memory.MapPages(c.domid, pfns)
		if err != nil {
			return nil, err
		}
		for i := 0; i < len(pages); {
			n := adjacent(pages[i:])
			length := n * cachemap.PageSize
			got, err := c.disk.ReadAt(buffer[:length], int64(pages[i].Entry.Sector)*cachemap.SectorSize)
			for j := range n {
				content, pageErr := mapped.Page(i + j)
				at := j * cachemap.PageSize
				if err != nil || got < length || pageErr != nil || !bytes.Equal(content, buffer[at:at+cachemap.PageSize]) {
					found = append(found, pages[i+j])
				}
			}
			i += n
		}
		if err := mapped.Close(); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// adjacent returns how many pages, from the first, follow one another on the
// disk.
func adjacent(pages []validate.Page) int {
	n := 1
	for n < len(pages) && pages[n].Entry.Sector == pages[n-1].Entry.Sector+cachemap.SectorsPerPage {
		n++
	}
	return n
}

// describe tells what is wrong: the page, its block, or both.
func (c comparison) describe(page validate.Page) (Mismatch, error) {
	entry := page.Entry
	file := entry.Cookie.File()
	m := Mismatch{PFN: page.PFN, Inode: file.Inode, Index: uint64(file.Index), Sector: entry.Sector, Served: c.served[file.Inode]}
	block := uint64(entry.Sector / cachemap.SectorsPerPage)
	buffer, err := disk.AlignedBuffer(cachemap.PageSize)
	if err != nil {
		return m, err
	}
	defer buffer.Free()
	if _, err := c.disk.ReadAt(buffer, int64(entry.Sector)*cachemap.SectorSize); err != nil {
		return m, err
	}
	m.DiskIntact = c.disk.intact(block, buffer)
	mapped, err := c.memory.MapPages(c.domid, []ident.PFN{page.PFN})
	if err != nil {
		return m, err
	}
	defer mapped.Close()
	content, err := mapped.Page(0)
	if err != nil {
		return m, err
	}
	m.PageIntact = c.disk.intact(block, content)
	return m, nil
}
