package hand

import (
	"context"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/internal/validate"
	"github.com/warmreboot/warmreboot/xenctl"
)

// comparison compares the reusable pages of a domain with its disk.
type comparison struct {
	memory hypervisor.Memory
	domid  xenctl.Domid
	disk   *watchedDisk
	served map[uint64]bool // inodes
}

func (c comparison) run(ctx context.Context) (Pages, error) {
	result := Pages{Mismatches: []Mismatch{}}
	restored := make(map[cachemap.PFN]bool)
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
	wrong := make(map[cachemap.PFN]bool)
	for _, page := range differ {
		mismatch, err := c.describe(page)
		if err != nil {
			return result, err
		}
		mismatch.Restored = restored[page.PFN]
		result.Mismatches = append(result.Mismatches, mismatch)
		wrong[page.PFN] = true
	}
	for _, page := range all {
		block := uint64(page.Entry.Sector / cachemap.SectorsPerPage)
		if c.served[page.Entry.Inode] && c.disk.changed[block] && !wrong[page.PFN] {
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

// compare returns all pages that differ.
func (c comparison) compare(ctx context.Context, list []validate.Page, result *Pages) ([]validate.Page, error) {
	found, err := c.check(ctx, list)
	if err != nil {
		return nil, err
	}
	result.Checked, result.Gone, result.Unreadable = found.Checked(), found.Gone, found.Unreadable
	if found.FirstError != nil {
		result.Error = found.FirstError.Error()
	}
	return c.name(ctx, list, found)
}

func (c comparison) check(ctx context.Context, list []validate.Page) (validate.Content, error) {
	return validate.ContentCheck{Memory: c.memory, Domid: c.domid, Disk: c.disk}.Run(ctx, list)
}

// name returns the pages that a check has found to differ. It names only the
// first ones itself, so it is repeated on halves until it names all.
func (c comparison) name(ctx context.Context, list []validate.Page, found validate.Content) ([]validate.Page, error) {
	if found.Mismatches <= uint64(len(found.Examples)) {
		return found.Examples, nil
	}
	var differ []validate.Page
	for _, half := range [][]validate.Page{list[:len(list)/2], list[len(list)/2:]} {
		found, err := c.check(ctx, half)
		if err != nil {
			return nil, err
		}
		named, err := c.name(ctx, half, found)
		if err != nil {
			return nil, err
		}
		differ = append(differ, named...)
	}
	return differ, nil
}

// describe tells what is wrong: the page, its block, or both.
func (c comparison) describe(page validate.Page) (Mismatch, error) {
	entry := page.Entry
	m := Mismatch{PFN: page.PFN, Inode: entry.Inode, Index: entry.Index, Sector: entry.Sector, Served: c.served[entry.Inode]}
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
	mapped, err := c.memory.MapPages(c.domid, []cachemap.PFN{page.PFN})
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
