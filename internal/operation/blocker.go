package operation

import (
	"github.com/warmreboot/warmreboot/ident"
)

// Target is what an operation is to be done to.
type Target struct {
	Domain string
	UUID   ident.UUID
	// Owner of the operation: what it holds itself is not in its way.
	Owner string
}

// Blocker is one reason for which an operation may not begin now. It returns an error
// for the operator, with what to do next, or nil.
type Blocker interface {
	Blocks(Target) error
}

// BlockerFunc is a Blocker.
type BlockerFunc func(Target) error

// Blocks implements Blocker.
func (f BlockerFunc) Blocks(t Target) error { return f(t) }

// Blocked asks all, in their order, and returns the first reason.
func Blocked(t Target, all ...Blocker) error {
	for _, b := range all {
		if err := b.Blocks(t); err != nil {
			return err
		}
	}
	return nil
}
