//go:build !xenlight

package daemon

import (
	"github.com/warmreboot/warmreboot/internal/toolstack"
	"github.com/warmreboot/warmreboot/xenctl"
	"github.com/warmreboot/warmreboot/xenctl/libxl"
	"github.com/warmreboot/warmreboot/xenstore"
)

func openLifecycle(store *xenstore.Client, xen *xenctl.Handle) (toolstack.Lifecycle, error) {
	return libxl.Xenstore{Store: store, Xen: xen}, nil
}
