package api

import (
	"slices"
	"time"

	"github.com/warmreboot/warmreboot/ident"
)

// Reason is why pages of a vbd were not given back.
type Reason string

// Reasons. The guest has reasons of its own, see Summary.Refused.
const (
	ColdAsked Reason = "cold_asked" // a normal reboot was asked for
	// RestoreFailed: the last restore took the guest down, or was never heard of again.
	RestoreFailed Reason = "restore_failed"
	Structure     Reason = "structure"  // entries that cannot be right
	NoDisk        Reason = "no_disk"    // the vbd is gone, or what is behind it cannot be read
	Identity      Reason = "identity"   // another disk, or of another size
	InUse         Reason = "in_use"     // somebody in dom0 has it mounted, or open for writing
	Written       Reason = "written"    // somebody else than the guest wrote to it
	Uncertain     Reason = "uncertain"  // nobody can tell, and the policy is to refuse
	Content       Reason = "content"    // pages differ from the disk
	Unreadable    Reason = "unreadable" // pages could not be compared with the disk
	Swapped       Reason = "swapped"    // the vbd was given another disk while the guest ran
	EarlyIO       Reason = "early_io"   // of a block that was written before the kernel attached
	TooLate       Reason = "too_late"   // Xen takes no verdict any more
	Failure       Reason = "failure"    // of the agent
)

// Refusal counts the pages of a vbd that were not given back for one reason.
type Refusal struct {
	Reason Reason `json:"reason"`
	// Times is in how many reboots, or on how many occasions while the guest
	// ran, that happened.
	Times uint64 `json:"times"`
	Pages uint64 `json:"pages"`
	// Example is the first case, at First.
	Example string    `json:"example"`
	First   time.Time `json:"first"`
}

// Refusals are those of one vbd, in the order in which they first occurred.
type Refusals []Refusal

// Add enters a refusal.
func (r *Refusals) Add(at time.Time, reason Reason, pages uint64, example string) {
	i := slices.IndexFunc(*r, func(x Refusal) bool { return x.Reason == reason })
	if i < 0 {
		i = len(*r)
		*r = append(*r, Refusal{Reason: reason, Example: example, First: at})
	}
	(*r)[i].Times++
	(*r)[i].Pages += pages
}

// VBDRefusals are all refusals of a vbd since it was enabled.
type VBDRefusals struct {
	VBD      ident.VBD `json:"vbd"`
	Name     string    `json:"name"`
	Refusals Refusals  `json:"refusals"`
}
