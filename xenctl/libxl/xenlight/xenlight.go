// Package xenlight has the shape of libxl's Go binding, as far as xenctl/libxl
// uses it, and none of its function. The binding is part of Xen's source tree and
// no module that can be downloaded; with this in its place everything can be
// listed, vetted and linted without that tree and without libxl's headers. When a
// program is built for use, the binding of the Xen that it is built for is laid
// over it; see Xenlight in tests/lab/build.
package xenlight

import "errors"

// ErrStub is what a program says that was built without the binding.
var ErrStub = errors.New("built with a stand-in for libxl's binding: build with the Makefile, or without the tag xenlight")

// Domid is a domain's number.
type Domid uint32

// Context cannot be had.
type Context struct{}

// NewContext fails.
func NewContext() (*Context, error) { return nil, ErrStub }

// Close fails.
func (*Context) Close() error { return ErrStub }

// DomainReboot fails.
func (*Context) DomainReboot(Domid) error { return ErrStub }

// DomainUnpause fails.
func (*Context) DomainUnpause(Domid) error { return ErrStub }

// DomainDestroy fails.
func (*Context) DomainDestroy(Domid) error { return ErrStub }

// NameToDomid fails.
func (*Context) NameToDomid(string) (Domid, error) { return 0, ErrStub }
