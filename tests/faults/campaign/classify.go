package campaign

// Class is the judgement on a run.
type Class string

// Classes, from the best to the worst.
const (
	// Consistent: every page that came back equals its block, and the blocks
	// are as they were.
	Consistent Class = "consistent"
	// Cold: no page came back. Nothing wrong can have.
	Cold Class = "cold"
	// NoBoot: the guest did not come up, as the faults had damaged its disk.
	NoBoot Class = "no-boot"
	// DiskCorrupt: pages equal their blocks, but the guest had written
	// something wrong to the blocks. A normal reboot gives the same.
	DiskCorrupt Class = "disk-corrupt"
	// Exception: a page differs from its block because the block is wrong; the
	// page is what the block should be. The paper has one such case.
	Exception Class = "exception"
	// Stale: a page of a file that the guest was writing to came back though
	// it differs from its block. Where the block is what it was on the first
	// disk, nobody was writing to it.
	Stale Class = "stale"
	// Inconsistent: a page of a file that nobody was writing to came back
	// though it differs from its block.
	Inconsistent Class = "inconsistent"
)

// Classes is all of them, in this order.
var Classes = []Class{Consistent, Cold, NoBoot, DiskCorrupt, Exception, Stale, Inconsistent}

// Wrong reports whether a page came back that should not have.
func (c Class) Wrong() bool { return c == Stale || c == Inconsistent }

// Classify judges a run. Where more than one class fits, the worst one counts.
func Classify(r Result) Class {
	exception, stale, inconsistent := false, false, false
	for _, m := range r.Pages.Mismatches {
		switch {
		case !m.Served && !m.DiskIntact:
			stale = true
		case m.PageIntact && !m.DiskIntact:
			exception = true
		default:
			inconsistent = true
		}
	}
	// A file that differs in the guest though no page does in dom0: a right page
	// in the wrong place.
	if len(r.Seen.Differ) > 0 && !exception {
		inconsistent = true
	}
	switch {
	case inconsistent:
		return Inconsistent
	case stale:
		return Stale
	case exception:
		return Exception
	case r.Pages.Corrupt > 0:
		return DiskCorrupt
	case !r.Up:
		return NoBoot
	case r.Reboot.PagesRestored == 0:
		return Cold
	}
	return Consistent
}
