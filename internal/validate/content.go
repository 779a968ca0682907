package validate

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/reusebitmap"
)

// Page is a page to compare with its sectors.
type Page struct {
	PFN   ident.PFN
	Entry cachemap.Entry
}

// Disk reads a vbd's sectors, from the disk itself and not from a cache.
// Buffers are page-aligned, offsets multiples of 512.
type Disk interface {
	ReadAt(p []byte, off int64) (int, error)
	Size() int64
}

// Content is the outcome of a comparison of pages with a disk. Every page that
// was compared is counted in exactly one of Equal, Mismatches, Unreadable and
// Gone.
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

// MaxExamples is the number of mismatches that are named unless told otherwise.
const MaxExamples = 10

const (
	mapBatch = 256     // most pages mapped at a time by one worker
	readSize = 1 << 20 // most bytes read at a time
	gap      = 8       // pages read for nothing rather than read twice
	attempts = 3       // for pages that differ
	// defaultWorkers batches are under way at a time, so that the disk has the
	// next reads while pages are compared, and several if they are scattered.
	defaultWorkers = 8
)

// ContentCheck compares pages of one vbd of a domain with its disk.
type ContentCheck struct {
	Memory hypervisor.Memory
	Domid  ident.Domid
	Disk   Disk
	// Held restricts what counts as remembered to the pages that were adopted
	// at creation; else the reuse bitmap counts.
	Held bool
	// Enough, if not 0, is the number of pages that differ or cannot be read
	// after which Run returns, without looking at the rest.
	Enough uint64
	// Name is how many of the pages that differ are named; 0: MaxExamples.
	Name int
	// Workers is how many batches are under way at a time; 0 for as many as keep a
	// disk busy.
	Workers int
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
	if c.Name == 0 {
		c.Name = MaxExamples
	}
	slices.SortFunc(pages, func(a, b Page) int { return cmp.Compare(a.Entry.Sector, b.Entry.Sector) })
	workers := c.Workers
	if workers == 0 {
		workers = defaultWorkers
	}
	// A sample is split among all workers.
	size := min(mapBatch, (len(pages)+workers-1)/workers)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	batches := make(chan []Page)
	go func() {
		defer close(batches)
		for rest := pages; len(rest) > 0; {
			n := min(size, len(rest))
			select {
			case batches <- rest[:n]:
			case <-ctx.Done():
				return
			}
			rest = rest[n:]
		}
	}()
	var (
		wait sync.WaitGroup
		lock sync.Mutex
		out  Content
		done int
	)
	for range min(workers, len(pages)) {
		wait.Add(1)
		go func() {
			defer wait.Done()
			buf, err := disk.AlignedBuffer(readSize)
			if err != nil {
				cancel(err)
				return
			}
			defer buf.Free()
			for batch := range batches {
				found, err := c.batch(ctx, batch, buf)
				lock.Lock()
				out.add(found, c.Name)
				done += len(batch)
				if c.Progress != nil {
					c.Progress(done)
				}
				if c.Enough > 0 && out.Mismatches+out.Unreadable >= c.Enough {
					cancel(errEnough)
				}
				lock.Unlock()
				if err != nil {
					cancel(err)
					return
				}
			}
		}()
	}
	wait.Wait()
	if err := context.Cause(ctx); err != errEnough {
		return out, err
	}
	return out, nil
}

// add adds what was found of other pages; so many that differ are named.
func (c *Content) add(o Content, name int) {
	c.Equal += o.Equal
	c.Mismatches += o.Mismatches
	c.Unreadable += o.Unreadable
	c.Gone += o.Gone
	c.Examples = append(c.Examples, o.Examples[:min(len(o.Examples), name-len(c.Examples))]...)
	if c.FirstError == nil {
		c.FirstError = o.FirstError
	}
}

// suspect is a page that differs, or that could not be read.
type suspect struct {
	Page
	err error
}

// batch compares pages, and looks closely at those that differ or could not be
// read. It returns what it found also with an error.
func (c ContentCheck) batch(ctx context.Context, pages []Page, buf []byte) (Content, error) {
	var out Content
	suspects, err := c.compare(pages, buf, &out)
	for i := 0; i < attempts && err == nil && len(suspects) > 0; i++ {
		if i > 0 {
			select {
			case <-ctx.Done():
				return out, ctx.Err()
			case <-time.After(2 * time.Millisecond):
			}
		}
		if suspects, err = c.remembered(suspects, &out); err != nil {
			return out, err
		}
		again := make([]Page, len(suspects))
		for i, s := range suspects {
			again[i] = s.Page
		}
		suspects, err = c.compare(again, buf, &out)
	}
	if err != nil || len(suspects) == 0 {
		return out, err
	}
	if suspects, err = c.remembered(suspects, &out); err != nil {
		return out, err
	}
	for _, s := range suspects {
		if s.err != nil && !errors.Is(s.err, errPastEnd) {
			out.Unreadable++
			if out.FirstError == nil {
				out.FirstError = fmt.Errorf("PFN %#x, %v: %w", uint64(s.PFN), s.Entry, s.err)
			}
			continue
		}
		out.Mismatches++
		if len(out.Examples) < c.Name {
			out.Examples = append(out.Examples, s.Page)
		}
	}
	return out, nil
}

// compare compares pages, which are in order of sector, counts those that are
// equal, and returns the others.
func (c ContentCheck) compare(pages []Page, buf []byte, out *Content) ([]suspect, error) {
	m, err := c.Memory.MapPages(c.Domid, pfns(pages))
	if err != nil {
		return nil, err
	}
	defer m.Close()
	var suspects []suspect
	// check compares pages [i, end), whose sectors one read gets.
	var check func(i, end int)
	check = func(i, end int) {
		first := pages[i].Entry.Sector
		data := buf[:(pages[end-1].Entry.Sector-first+cachemap.SectorsPerPage)*cachemap.SectorSize]
		err := c.read(data, first)
		switch {
		case err != nil && end-i > 1: // one bad sector says nothing of the others
			for ; i < end; i++ {
				check(i, i+1)
			}
		case err != nil:
			suspects = append(suspects, suspect{pages[i], err})
		default:
			for ; i < end; i++ {
				mem, err := m.Page(i)
				off := (pages[i].Entry.Sector - first) * cachemap.SectorSize
				if err == nil && bytes.Equal(mem, data[off:off+cachemap.PageSize]) {
					out.Equal++
				} else {
					suspects = append(suspects, suspect{pages[i], err})
				}
			}
		}
	}
	for i := 0; i < len(pages); {
		n := run(pages[i:])
		check(i, i+n)
		i += n
	}
	return suspects, nil
}

func pfns(pages []Page) []ident.PFN {
	all := make([]ident.PFN, len(pages))
	for i, p := range pages {
		all[i] = p.PFN
	}
	return all
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

var (
	errPastEnd = errors.New("sector past the end of the disk")
	errEnough  = errors.New("enough pages differ")
)

// remembered returns the pages that Xen still claims to equal their
// sectors, and counts the others.
func (c ContentCheck) remembered(pages []suspect, out *Content) ([]suspect, error) {
	v, closeView, err := MapView(c.Memory, c.Domid, c.Held)
	if err != nil {
		return nil, err
	}
	defer closeView()
	var still []suspect
	for _, p := range pages {
		if v.Has(p.PFN) && v.Entry(p.PFN) == p.Entry && v.Has(p.PFN) {
			still = append(still, p)
		} else {
			out.Gone++
		}
	}
	return still, nil
}

// MapView maps the table and the reuse bitmap of a domain; with held, only the
// pages that were adopted when the domain was created are in the view. Close
// it soon: it keeps a domain that dies from going away.
func MapView(m hypervisor.Memory, domid ident.Domid, held bool) (cachemap.View, func(), error) {
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
