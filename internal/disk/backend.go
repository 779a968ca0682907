package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/warmreboot/warmreboot/ident"
)

// Store reads xenstore.
type Store interface {
	Read(ctx context.Context, path string) (string, error)
	Directory(ctx context.Context, path string) ([]string, error)
}

// ErrNoBackend: the domain has no such vbd, or not yet.
var ErrNoBackend = errors.New("no backend")

// Backend is what xenstore says of a vbd's backend in dom0.
type Backend struct {
	VBD    ident.VBD
	Domid  ident.Domid
	Path   string // in xenstore
	Kind   string // "vbd" (blkback) or "qdisk" (QEMU)
	Params string // what the toolstack was given: a device, a file, "aio:FILE"
	// PhysicalDevice is blkback's device as "major:minor" in hexadecimal,
	// empty as long as the hotplug script has not run.
	PhysicalDevice string
	ReadOnly       bool
	// DevName is the name that the backend's threads carry.
	DevName string
}

// backendDir is where dom0's backends are; the guest cannot write below it.
const backendDir = "/local/domain/0/backend"

// FindBackend returns the backend of a domain's vbd; ErrNoBackend if there is
// none. It never follows a path that the guest could have written.
func FindBackend(ctx context.Context, s Store, domid ident.Domid, vbd ident.VBD) (Backend, error) {
	for _, kind := range []string{"vbd", "qdisk"} {
		b := Backend{VBD: vbd, Domid: domid, Kind: kind,
			Path: path.Join(backendDir, kind, fmt.Sprint(domid), fmt.Sprint(vbd))}
		var err error
		if b.Params, err = s.Read(ctx, b.Path+"/params"); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return Backend{}, err
		}
		if b.PhysicalDevice, err = readOptional(ctx, s, b.Path+"/physical-device"); err != nil {
			return Backend{}, err
		}
		mode, err := readOptional(ctx, s, b.Path+"/mode")
		if err != nil {
			return Backend{}, err
		}
		b.ReadOnly = strings.HasPrefix(mode, "r")
		dev, err := readOptional(ctx, s, b.Path+"/dev")
		if err != nil {
			return Backend{}, err
		}
		b.DevName = dev
		if _, name, ok := strings.Cut(dev, "/dev/"); ok {
			b.DevName = name
		}
		return b, nil
	}
	return Backend{}, fmt.Errorf("domain %d vbd %d: %w", domid, vbd, ErrNoBackend)
}

// Backends returns all backends of a domain's vbds.
func Backends(ctx context.Context, s Store, domid ident.Domid) ([]Backend, error) {
	var all []Backend
	for _, kind := range []string{"vbd", "qdisk"} {
		names, err := s.Directory(ctx, path.Join(backendDir, kind, fmt.Sprint(domid)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			var vbd uint32
			if _, err := fmt.Sscanf(name, "%d", &vbd); err != nil {
				continue
			}
			b, err := FindBackend(ctx, s, domid, ident.VBD(vbd))
			if errors.Is(err, ErrNoBackend) {
				continue
			}
			if err != nil {
				return nil, err
			}
			all = append(all, b)
		}
	}
	return all, nil
}

func readOptional(ctx context.Context, s Store, path string) (string, error) {
	v, err := s.Read(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return v, err
}
