package reboot

import (
	"fmt"

	"github.com/warmreboot/warmreboot/ident"
)

// Claim is what a verdict is about: pages that a domain holds, by what is said to be
// true of their bytes. Each kind has its own way to be vouched for; what nobody
// vouches for is refused.
type Claim struct {
	Kind ClaimKind
	VBD  ident.VBD // of Cached
}

// ClaimKind is what is claimed.
type ClaimKind string

// Cached is that the bytes equal those of sectors of a vbd. The disk's custody vouches
// for it, or a comparison.
const Cached ClaimKind = "cached"

func (c Claim) String() string {
	if c.Kind == Cached {
		return fmt.Sprintf("%s %s", c.Kind, c.VBD.Name())
	}
	return string(c.Kind)
}
