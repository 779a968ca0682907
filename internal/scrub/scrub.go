// Package scrub compares the reusable pages of running domains with their disks, in
// the background. It finds what nobody has an account of: a hypervisor that is wrong, a
// disk that lies, a write that nothing has counted; before a reboot, and not in a sample
// of it. It is to take so little that nobody notices.
package scrub

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/internal/validate"
)

// ID names a disk over the reboots of its domain.
type ID struct {
	UUID ident.UUID
	VBD  ident.VBD
}

// Disk is a disk that a running domain uses.
type Disk struct {
	ID
	Name  string // the domain's
	Domid ident.Domid
	// Open opens it for reading past dom0's page cache.
	Open func() (Reader, error)
	// BusyTime is for how long it has had requests, since whenever; an error if
	// that cannot be told.
	BusyTime func() (time.Duration, error)
}

// Reader is an open disk.
type Reader interface {
	validate.Disk
	Close() error
}

// Source knows the disks, and is told what was found.
type Source interface {
	// Disks are those of the domains that run, and are not in a reboot.
	Disks() []Disk
	// Stale is told that a page differs from its disk: what is known of the disk
	// is worthless.
	Stale(ctx context.Context, d Disk, why string) error
}

// Limits are what scrubbing may take.
type Limits struct {
	Rate  float64 // bytes a second, read from all disks together; 0 switches it off
	Share float64 // of the time, during which it does anything: of one processor, and of a disk
}

const (
	batch    = 32              // pages compared at a time; as many are mapped, for some milliseconds
	chunk    = 32 * batch      // pages collected at a time: the whole table is mapped for it
	idle     = 5 * time.Second // between two looks, if there is nothing to do
	loadWait = time.Second     // while others need the disk or the processor
	// busyDisk is the share of the time that others may keep a disk busy before
	// they are left alone with it.
	busyDisk = 0.5
	pageSize = 4096
)

// Count is what was found of a disk.
type Count struct {
	ID
	Name                            string
	Compared, Differed, NotReadable uint64 // pages, since the scrubber was made
	// Since is when the last pass over all reusable pages began that has ended; the
	// zero time if there was none. A page that had been reusable by then has been
	// compared. First is when the disk was first seen.
	Since, First time.Time
}

// Uncompared is for how long a page can have been reusable without having been compared.
func (c Count) Uncompared(now time.Time) time.Duration {
	if c.Since.IsZero() {
		return now.Sub(c.First)
	}
	return now.Sub(c.Since)
}

// Scrubber scrubs.
type Scrubber struct {
	Source Source
	Memory hypervisor.Memory
	Limits Limits
	// Loaded reports whether dom0 needs its processors itself; may be nil.
	Loaded func() bool
	Log    *slog.Logger

	// Wait waits, and Now is the time; nil for real ones.
	Wait func(context.Context, time.Duration) error
	Now  func() time.Time

	mu    sync.Mutex
	disks map[ID]*progress
}

// progress is how far a disk is.
type progress struct {
	Count
	domid ident.Domid
	next  ident.PFN // where the pass goes on
	began time.Time // when it began
	seen  time.Time // when the disk was last there
	// lastBusy and lastAsked are of BusyTime.
	lastBusy  time.Duration
	lastAsked time.Time
	failed    string // the last error that was logged
}

// Counts are those of all disks that there are, in order.
func (s *Scrubber) Counts() []Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Count
	for _, p := range s.disks {
		all = append(all, p.Count)
	}
	slices.SortFunc(all, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.UUID[:], b.UUID[:]), cmp.Compare(a.VBD, b.VBD))
	})
	return all
}

// Run scrubs until ctx ends.
func (s *Scrubber) Run(ctx context.Context) {
	if s.Limits.Rate <= 0 || s.Limits.Share <= 0 {
		return
	}
	if s.Wait == nil {
		s.Wait = sleep
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	for ctx.Err() == nil {
		pages := 0
		for _, d := range s.look() {
			n, err := s.part(ctx, d)
			pages += n
			if ctx.Err() != nil {
				return
			}
			if err != nil && !s.there(d) {
				err = nil // it went down meanwhile
			}
			s.report(d, err)
		}
		if pages == 0 && s.Wait(ctx, idle) != nil {
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// look returns the disks that there are, and forgets those that are gone.
func (s *Scrubber) look() []Disk {
	all := s.Source.Disks()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disks == nil {
		s.disks = map[ID]*progress{}
	}
	there := map[ID]bool{}
	for _, d := range all {
		there[d.ID] = true
		p := s.disks[d.ID]
		if p == nil {
			p = &progress{Count: Count{ID: d.ID, First: s.Now()}, domid: d.Domid}
			s.disks[d.ID] = p
		}
		p.Name, p.seen = d.Name, s.Now()
		if p.domid != d.Domid { // it has other pages
			p.domid, p.next, p.began, p.Since, p.First = d.Domid, 0, time.Time{}, time.Time{}, s.Now()
		}
	}
	for id, p := range s.disks {
		if !there[id] && s.Now().Sub(p.seen) > time.Hour { // it may be rebooting, or have been found to differ
			delete(s.disks, id)
		}
	}
	return all
}

// report logs why a disk cannot be scrubbed, once for each reason.
func (s *Scrubber) report(d Disk, err error) {
	p := s.of(d)
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != p.failed && err != nil {
		s.Log.Warn("pages cannot be compared in the background", "op", "scrub", "uuid", d.UUID, "domain", d.Name, "vbd", d.VBD, "err", err)
	}
	p.failed = text
}

func (s *Scrubber) of(d Disk) *progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.disks[d.ID]
}

// there reports whether the disk is still to be scrubbed: pages that are mapped when
// their domain is destroyed are lost to the next one.
func (s *Scrubber) there(d Disk) bool {
	return slices.ContainsFunc(s.Source.Disks(), func(o Disk) bool { return o.ID == d.ID && o.Domid == d.Domid })
}

// part compares the next pages of a disk, and returns how many those are.
func (s *Scrubber) part(ctx context.Context, d Disk) (int, error) {
	p := s.of(d)
	if p.next == 0 {
		p.began = s.Now()
	}
	view, closeView, err := validate.MapView(s.Memory, d.Domid, false)
	if err != nil {
		return 0, err
	}
	pages, next, more := validate.Collect(view, d.VBD, p.next, chunk)
	closeView()
	if len(pages) > 0 {
		r, err := d.Open()
		if err != nil {
			return 0, err
		}
		defer r.Close()
		// In the order of the disk, so that one read gets several.
		slices.SortFunc(pages, func(a, b validate.Page) int { return cmp.Compare(a.Entry.Sector, b.Entry.Sector) })
		check := validate.ContentCheck{Memory: s.Memory, Domid: d.Domid, Disk: r, Workers: 1}
		for rest := pages; len(rest) > 0; {
			if !s.there(d) {
				return 0, nil
			}
			n := min(batch, len(rest))
			if err := s.compare(ctx, d, check, rest[:n]); err != nil {
				return 0, err
			}
			rest = rest[n:]
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.next = next; !more {
		p.next, p.Since = 0, p.began
	}
	return len(pages), nil
}

// compare compares a few pages when it may, and waits for as long as that has cost.
func (s *Scrubber) compare(ctx context.Context, d Disk, check validate.ContentCheck, pages []validate.Page) error {
	for s.needed(d) {
		if err := s.Wait(ctx, loadWait); err != nil {
			return err
		}
	}
	start := s.Now()
	out, err := check.Run(ctx, pages)
	if err != nil {
		return err
	}
	differed := 0
	for _, page := range out.Examples {
		stale, err := check.Confirm(ctx, page, func(ctx context.Context) error {
			return s.Wait(ctx, time.Duration(50+rand.IntN(200))*time.Millisecond)
		})
		if err != nil {
			return err
		}
		if !stale {
			continue
		}
		differed++
		why := fmt.Sprintf("PFN %#x, %v, differs from the disk", uint64(page.PFN), page.Entry)
		s.Log.Error("a page that would come back differs from its disk", "op", "scrub", "uuid", d.UUID, "domain", d.Name, "domid", d.Domid, "vbd", d.VBD,
			"why", why, "next", "find out who writes to the disk past the guest; if nobody does, warmreboot disable it, and report it")
		if err := s.Source.Stale(ctx, d, why); err != nil {
			return err
		}
		break // all that is known of the disk is worthless now
	}
	took := s.Now().Sub(start)
	p := s.of(d)
	s.mu.Lock()
	p.Compared += out.Checked()
	p.Differed += uint64(differed)
	p.NotReadable += out.Unreadable
	s.mu.Unlock()
	return s.Wait(ctx, s.Limits.pause(len(pages), took))
}

// pause is how long nothing is done after so many pages have taken so long.
func (l Limits) pause(pages int, took time.Duration) time.Duration {
	byRate := time.Duration(float64(pages*pageSize)/l.Rate*float64(time.Second)) - took
	byShare := time.Duration(float64(took) * (1/l.Share - 1))
	return max(byRate, byShare, 0)
}

// needed reports whether others need the disk or the processor.
func (s *Scrubber) needed(d Disk) bool {
	if s.Loaded != nil && s.Loaded() {
		return true
	}
	busy, err := d.BusyTime()
	if err != nil {
		return false
	}
	p, now := s.of(d), s.Now()
	wall, work := now.Sub(p.lastAsked), busy-p.lastBusy
	if wall < loadWait/2 {
		return false // too short to tell
	}
	p.lastAsked, p.lastBusy = now, busy
	return wall < 2*idle && float64(work) > busyDisk*float64(wall)
}
