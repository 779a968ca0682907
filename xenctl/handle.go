package xenctl

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/warmreboot/warmreboot/xenctl/internal/abi"
	"github.com/warmreboot/warmreboot/xenctl/internal/privcmd"
)

// PageSize is the size of a page in bytes.
const PageSize = abi.PageSize

// Handle is an open connection to Xen. Its methods may be called concurrently.
type Handle struct {
	dev *privcmd.Device
}

// Open connects to Xen. The error satisfies errors.Is(err, ErrNotXen) where
// there is no privcmd device.
func Open() (*Handle, error) {
	dev, err := privcmd.Open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotXen, err)
	}
	if err != nil {
		return nil, err
	}
	return &Handle{dev: dev}, nil
}

// Close closes the connection.
func (h *Handle) Close() error { return h.dev.Close() }

// domctl makes the domctl cmd with the command structure *arg, which is
// updated with what Xen writes back, also when Xen returns an error.
func domctl[T any](h *Handle, cmd uint32, domid uint16, arg *T) error {
	buf, err := h.dev.Alloc(abi.PageSize)
	if err != nil {
		return err
	}
	defer buf.Free()
	head := privcmd.At[abi.Domctl](buf.Bytes(), 0)
	head.Cmd = cmd
	head.InterfaceVersion = abi.DomctlInterfaceVersion
	head.Domain = domid
	body := privcmd.At[T](head.U[:], 0)
	*body = *arg
	_, err = h.dev.Hypercall(abi.HypervisorDomctl, buf.Addr())
	*arg = *body
	return err
}

// sysctl is domctl's counterpart for the machine as a whole.
func sysctl[T any](h *Handle, cmd uint32, arg *T) error {
	buf, err := h.dev.Alloc(abi.PageSize)
	if err != nil {
		return err
	}
	defer buf.Free()
	head := privcmd.At[abi.Sysctl](buf.Bytes(), 0)
	head.Cmd = cmd
	head.InterfaceVersion = abi.SysctlInterfaceVersion
	body := privcmd.At[T](head.U[:], 0)
	*body = *arg
	_, err = h.dev.Hypercall(abi.HypervisorSysctl, buf.Addr())
	*arg = *body
	return err
}
