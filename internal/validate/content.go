package validate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/reusebitmap"
	"github.com/warmreboot/warmreboot/xenctl"
)

// Page is a page to compare with its sectors.
type Page struct {
	PFN   cachemap.PFN
	Entry cachemap.Entry
}

// Disk reads a vbd's sectors, from the disk itself and not from a cache.
// Buffers are page-aligned, offsets multiples of 512.
type Disk interface {
	ReadAt(p []byte, off int64) (int, error)
	Size() int64
}

// Content is the outcome of a comparison of pages with a disk. Every page that
// was to be compared is counted in exactly one of Equal, Mismatches,
// Unreadable and Gone.
type Content struct {
	Equal      uint64
	Mismatches uint64
	Unreadable uint64 // the page or the sector could not be read
	Gone       uint64 // Xen forgot the page meanwhile: nothing is claimed of it
	Examples   []Page // the first mismatches
	FirstError error  // of the unreadable ones
}

// Checked is the number of pages that were compared.
func (c Content) Checked() uint64 { return c.Equal + c.Mismatches }

// MaxExamples is the number of mismatches that are named.
const MaxExamples = 10

const (
	mapBatch = 256     // pages mapped at a time
	readSize = 1 << 20 // most bytes read at a time
	gap      = 8       // pages read for nothing rather than read twice
	attempts = 3       // for a page that differs
)

// ContentCheck compares pages of one vbd of a domain with its disk.
type ContentCheck struct {
	Memory hypervisor.Memory
	Domid  xenctl.Domid
	Disk   Disk
	// Held restricts what counts as remembered to the pages that were adopted
	// at creation; else the reuse bitmap counts.
	Held bool
	// Progress, if set, is told of every batch.
	Progress func(done int)
}

// Run compares pages, which it sorts by sector. An error means that nothing
// can be said; a page that cannot be read is no error.
//
// A page may be forgotten, or written by the guest, at any time. So a page
// that differs counts only if Xen remembers it, with the same entry, before and
// after it was compared again.
func (c ContentCheck) Run(ctx context.Context, pages []Page) (Content, error) {
	slices.SortFunc(pages, func(a, b Page) int {
		switch {
		case a.Entry.Sector < b.Entry.Sector:
			return -1
		case a.Entry.Sector > b.Entry.Sector:
			return 1
		}
		return 0
	})
	buf, err := disk.AlignedBuffer(readSize)
	if err != nil {
		return Content{}, err
	}
	defer buf.Free()
	var out Content
	for done := 0; done < len(pages); {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		n := min(mapBatch, len(pages)-done)
		suspects, err := c.batch(pages[done:done+n], buf, &out)
		if err != nil {
			return out, err
		}
		for _, p := range suspects {
			if err := c.suspect(ctx, p, buf, &out); err != nil {
				return out, err
			}
		}
		done += n
		if c.Progress != nil {
			c.Progress(done)
		}
	}
	return out, nil
}

// batch compares pages and returns those that differ or could not be read.
func (c ContentCheck) batch(pages []Page, buf []byte, out *Content) ([]Page, error) {
	pfns := make([]cachemap.PFN, len(pages))
	for i, p := range pages {
		pfns[i] = p.PFN
	}
	m, err := c.Memory.MapPages(c.Domid, pfns)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	var suspects []Page
	for i := 0; i < len(pages); {
		n := run(pages[i:])
		first := pages[i].Entry.Sector
		data := buf[:(pages[i+n-1].Entry.Sector-first+cachemap.SectorsPerPage)*cachemap.SectorSize]
		if err := c.read(data, first); err != nil {
			suspects = append(suspects, pages[i:i+n]...)
			i += n
			continue
		}
		for ; n > 0; n, i = n-1, i+1 {
			mem, err := m.Page(i)
			off := (pages[i].Entry.Sector - first) * cachemap.SectorSize
			if err == nil && bytes.Equal(mem, data[off:off+cachemap.PageSize]) {
				out.Equal++
			} else {
				suspects = append(suspects, pages[i])
			}
		}
	}
	return suspects, nil
}

// run returns how many of the pages, which are in order, one read covers.
func run(pages []Page) int {
	first := pages[0].Entry.Sector
	n := 1
	for n < len(pages) {
		prev, next := pages[n-1].Entry.Sector, pages[n].Entry.Sector
		if next-prev > gap*cachemap.SectorsPerPage || next+cachemap.SectorsPerPage-first > readSize/cachemap.SectorSize {
			break
		}
		n++
	}
	return n
}

func (c ContentCheck) read(p []byte, s cachemap.Sector) error {
	if s > cachemap.Sector(c.Disk.Size()/cachemap.SectorSize) {
		return errPastEnd
	}
	_, err := c.Disk.ReadAt(p, int64(s)*cachemap.SectorSize)
	return err
}

var errPastEnd = errors.New("sector past the end of the disk")

// suspect looks closely at a page that differs or could not be read.
func (c ContentCheck) suspect(ctx context.Context, p Page, buf []byte, out *Content) error {
	var failed error
	for range attempts {
		remembered, err := c.remembered(p)
		if err != nil {
			return err
		}
		if !remembered {
			out.Gone++
			return nil
		}
		var equal bool
		if equal, failed = c.compare(p, buf); equal {
			out.Equal++
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
	remembered, err := c.remembered(p)
	switch {
	case err != nil:
		return err
	case !remembered:
		out.Gone++
	case failed != nil && !errors.Is(failed, errPastEnd):
		out.Unreadable++
		if out.FirstError == nil {
			out.FirstError = fmt.Errorf("PFN %#x, %v: %w", uint64(p.PFN), p.Entry, failed)
		}
	default:
		out.Mismatches++
		if len(out.Examples) < MaxExamples {
			out.Examples = append(out.Examples, p)
		}
	}
	return nil
}

func (c ContentCheck) compare(p Page, buf []byte) (bool, error) {
	data := buf[:cachemap.PageSize]
	if err := c.read(data, p.Entry.Sector); err != nil {
		return false, err
	}
	m, err := c.Memory.MapPages(c.Domid, []cachemap.PFN{p.PFN})
	if err != nil {
		return false, err
	}
	defer m.Close()
	mem, err := m.Page(0)
	if err != nil {
		return false, err
	}
	return bytes.Equal(mem, data), nil
}

// remembered asks Xen whether it still claims the page equals its sector.
func (c ContentCheck) remembered(p Page) (bool, error) {
	v, closeView, err := MapView(c.Memory, c.Domid, c.Held)
	if err != nil {
		return false, err
	}
	defer closeView()
	return v.Has(p.PFN) && v.Entry(p.PFN) == p.Entry && v.Has(p.PFN), nil
}

// MapView maps the table and the reuse bitmap of a domain; with held, only the
// pages that were adopted when the domain was created are in the view. Close
// it soon: it keeps a domain that dies from going away.
func MapView(m hypervisor.Memory, domid xenctl.Domid, held bool) (cachemap.View, func(), error) {
	var open []func() error
	closeAll := func() {
		for _, c := range open {
			_ = c()
		}
	}
	t, err := m.MapTable(domid)
	if err != nil {
		return cachemap.View{}, nil, err
	}
	open = append(open, t.Close)
	b, err := m.MapReuse(domid)
	if err != nil {
		closeAll()
		return cachemap.View{}, nil, err
	}
	open = append(open, b.Close)
	words := b.Words()
	if held {
		h, err := m.MapHeld(domid)
		if err != nil {
			closeAll()
			return cachemap.View{}, nil, err
		}
		words = both(words, h.Words())
		_ = h.Close()
	}
	return cachemap.NewView(t.Entries(), words), closeAll, nil
}

// both returns the pages in both bitmaps, in memory of its own.
func both(a, b []uint64) []uint64 {
	all := ^uint64(0)
	return reusebitmap.FromWords(a, all).And(reusebitmap.FromWords(b, all)).Words()
}
