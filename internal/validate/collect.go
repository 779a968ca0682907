package validate

import (
	"math"
	"math/rand/v2"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
)

// Collect returns the pages of a vbd from PFN from on, at most n; next is where
// to go on, and more whether there may be any.
func Collect(v cachemap.View, vbd ident.VBD, from ident.PFN, n int) (pages []Page, next ident.PFN, more bool) {
	return collect(v, from, n, func(e cachemap.Entry) bool { return e.VBD == vbd })
}

// CollectMetadata is Collect for the pages that belong to no file.
func CollectMetadata(v cachemap.View, vbd ident.VBD, from ident.PFN, n int) (pages []Page, next ident.PFN, more bool) {
	return collect(v, from, n, func(e cachemap.Entry) bool { return e.VBD == vbd && Metadata(e) })
}

// Metadata reports whether an entry is of a page that belongs to no file. The guest
// takes that back without asking its file system where it should be, as it does for a
// file's, so that nothing but dom0 stands between it and a stale one.
func Metadata(e cachemap.Entry) bool { return e.Cookie.File().Inode == 0 }

func collect(v cachemap.View, from ident.PFN, n int, want func(cachemap.Entry) bool) (pages []Page, next ident.PFN, more bool) {
	for p, e := range v.From(from) {
		if !want(e) {
			continue
		}
		if len(pages) == n {
			return pages, p, true
		}
		pages = append(pages, Page{p, e})
	}
	return pages, 0, false
}

// SampleView returns n pages of a vbd, each with the same probability; all of
// them if there are no more than n.
//
// By Li's algorithm L (Reservoir-Sampling Algorithms of Time Complexity
// O(n(1 + log(N/n))), 1994): it picks how many pages to pass over, so that most
// of them cost no random number.
func SampleView(v cachemap.View, vbd ident.VBD, n int) []Page {
	if n <= 0 {
		return nil
	}
	var pages []Page
	// If each page seen were given a number between 0 and 1, at random, and the n
	// least were kept, the greatest of those would be w.
	w, skip := 1.0, 0.0
	draw := func() {
		w *= math.Exp(math.Log(1-rand.Float64()) / float64(n))
		skip = math.Floor(math.Log(1-rand.Float64()) / math.Log1p(-w))
	}
	for p, e := range v.All() {
		switch {
		case e.VBD != vbd:
		case len(pages) < n:
			if pages = append(pages, Page{p, e}); len(pages) == n {
				draw()
			}
		case skip > 0:
			skip--
		default:
			pages[rand.IntN(n)] = Page{p, e}
			draw()
		}
	}
	return pages
}
