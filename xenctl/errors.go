package xenctl

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/xenctl/facts"
)

// Sentinels for what callers decide on. Errors of this package satisfy
// errors.Is for these and for the errno.
var (
	// ErrNotXen: this is not a Xen dom0, or its privcmd module is missing.
	ErrNotXen = errors.New("not a Xen dom0 (no /dev/xen/privcmd)")
	// ErrNoDomain: no domain with that domid.
	ErrNoDomain = facts.ErrNoDomain
	// ErrNotSupported: this Xen has no warm cache, or the domain's type cannot
	// have one.
	ErrNotSupported = errors.New("warm cache not supported")
	// ErrNotEnabled: the warm cache is not enabled for the domain.
	ErrNotEnabled = errors.New("warm cache not enabled")
	// ErrExists: the warm cache is enabled for the domain already.
	ErrExists = errors.New("warm cache already enabled")
	// ErrVersion: Xen speaks another version of the warm cache's interface.
	ErrVersion = facts.ErrVersion
	// ErrNoImage: no image is kept under that UUID or index.
	ErrNoImage = facts.ErrNoImage
)

// opError is an operation that Xen refused.
type opError struct {
	op       string
	args     string
	errno    error
	sentinel error // may be nil
}

func (e *opError) Error() string {
	if e.sentinel != nil {
		return fmt.Sprintf("%s(%s): %v: %v", e.op, e.args, e.sentinel, e.errno)
	}
	return fmt.Sprintf("%s(%s): %v", e.op, e.args, e.errno)
}

func (e *opError) Unwrap() []error {
	if e.sentinel != nil {
		return []error{e.sentinel, e.errno}
	}
	return []error{e.errno}
}

// wrap makes an opError of err, with the sentinel that m has for its errno.
func wrap(err error, m map[unix.Errno]error, op, format string, args ...any) error {
	if err == nil {
		return nil
	}
	var errno unix.Errno
	var sentinel error
	if errors.As(err, &errno) {
		sentinel = m[errno]
	}
	return &opError{op: op, args: fmt.Sprintf(format, args...), errno: err, sentinel: sentinel}
}
