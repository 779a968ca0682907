package reusebitmap_test

import (
	"fmt"
	"slices"

	"github.com/warmreboot/warmreboot/reusebitmap"
)

// What the guest holds, less what validation has refused, is what may come back.
func ExampleSet() {
	held := reusebitmap.FromWords([]uint64{0b1110}, 64) // PFNs 1 to 3
	refused := reusebitmap.Of(64, 2)
	approved := held.Minus(refused)
	fmt.Println(approved.Count(), slices.Collect(approved.All()))
	// Output: 2 [1 3]
}
