package validate

import (
	"math/rand/v2"

	"github.com/warmreboot/warmreboot/cachemap"
)

// Collect returns the pages of a vbd from PFN from on, at most n; next is where
// to go on, and more whether there may be any.
func Collect(v cachemap.View, vbd cachemap.VBD, from cachemap.PFN, n int) (pages []Page, next cachemap.PFN, more bool) {
	for p, e := range v.From(from) {
		if e.VBD != vbd {
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
func SampleView(v cachemap.View, vbd cachemap.VBD, n int) []Page {
	var pages []Page
	seen := 0
	for p, e := range v.All() {
		if e.VBD != vbd {
			continue
		}
		seen++
		if len(pages) < n {
			pages = append(pages, Page{p, e})
		} else if i := rand.IntN(seen); i < n {
			pages[i] = Page{p, e}
		}
	}
	return pages
}
