package cachemap_test

import (
	"fmt"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
)

// A table has an entry for each page of a domain; a bitmap says which of them hold.
func ExampleView() {
	const xvda = ident.VBD(51712)
	table := []cachemap.Entry{
		{VBD: xvda, Sector: 2048, Cookie: cachemap.File{Inode: 12, Index: 0}.Cookie()},
		{VBD: xvda, Sector: 2056, Cookie: cachemap.File{Inode: 12, Index: 1}.Cookie()},
		{VBD: xvda, Sector: 4096, Cookie: cachemap.File{Inode: 13, Index: 0}.Cookie()},
	}
	reusable := []uint64{0b101} // the page at PFN 1 was written to
	v := cachemap.NewView(table, reusable)
	fmt.Println(v.Len(), "of", len(table), "pages are reusable")
	for pfn, e := range v.All() {
		fmt.Printf("PFN %d equals %s sector %d\n", pfn, e.VBD.Name(), e.Sector)
	}
	// Output:
	// 2 of 3 pages are reusable
	// PFN 0 equals xvda sector 2048
	// PFN 2 equals xvda sector 4096
}
