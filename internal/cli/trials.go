package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/bootonce"
	"github.com/warmreboot/warmreboot/internal/toolstack"
)

// loader is what a domain is booted by while its update goes on.
type loader struct {
	dir   string // the trial's; "": there is none
	there bool   // so is the folder
	armed bool   // the next boot is of the new kernel
}

// loaderOf asks a domain's toolstack for its loader.
func loaderOf(ctx context.Context, o toolstack.Owner, d toolstack.Domain) (loader, error) {
	self, err := os.Executable()
	if err != nil {
		return loader{}, err
	}
	daemon := filepath.Join(filepath.Dir(self), "warmrebootd")
	var driver toolstack.Driver = toolstack.Xl{Host: toolstack.Here, Run: toolstack.Command, Loader: daemon}
	if o.Toolstack == toolstack.Libvirt {
		driver = toolstack.LibvirtDriver{Host: toolstack.Here, Run: toolstack.Command, Loader: daemon}
	}
	k, err := driver.Kernel(ctx, d)
	switch {
	case errors.Is(err, toolstack.ErrOwnKernel), errors.Is(err, toolstack.ErrNoDefinition), errors.Is(err, fs.ErrNotExist):
		return loader{}, nil // none of ours, or nothing is stored of it
	case err != nil || k.Once == "":
		return loader{}, err
	}
	l := loader{dir: k.Once}
	if _, err := os.Stat(l.dir); errors.Is(err, fs.ErrNotExist) {
		return l, nil
	} else if err != nil {
		return l, err
	}
	l.there = true
	l.armed, err = bootonce.Trial{Dir: l.dir}.Armed()
	return l, err
}

// checkLoaders looks for domains that are booted by the loader of an update which does
// not go on: of all, or the one that is named. Nobody else would say so.
func (d *diagnosis) checkLoaders(ctx context.Context, l local, operations api.Operations, agent bool, all []api.DomainStatus, only string) {
	updated := map[ident.UUID]bool{}
	if agent {
		ops, err := operations.Operations(ctx)
		if err != nil {
			d.add("updates", "", sevUnknown, "journalctl -u warmrebootd", "whether updates go on cannot be told: %v", err)
			return
		}
		for _, op := range ops {
			updated[op.UUID] = updated[op.UUID] || op.Kind != api.KindReboot && op.State == api.OperationRunning // a schedule's run may be one
		}
	}
	ref := ident.ParseRef(only)
	for _, s := range all {
		if s.Domid == 0 || updated[s.UUID] || only != "" && !ref.Matches(s.Domain, s.UUID, s.Domid) {
			continue
		}
		o, err := l.owner(s.Domid, s.UUID, s.Domain)
		var by loader
		if err == nil {
			by, err = l.loader(ctx, o, toolstack.Domain{Domid: s.Domid, UUID: s.UUID, Name: s.Domain})
		}
		switch word := ident.Word(s.Domain, s.UUID); {
		case err != nil:
			d.add("kernel", s.Domain, sevUnknown, "run it as root", "whether it is booted by an update's loader cannot be told: %v", err)
		case by.dir == "":
		case !by.there:
			d.add("kernel", s.Domain, sevWarning, "xl shutdown it and xl create it, when it suits",
				"it is booted by an update's loader, %s, which is not here, as it has moved: each boot is of the kernel that its configuration names, as long as warmrebootd is installed", by.dir)
		case !agent:
			d.add("kernel", s.Domain, sevWarning, "systemctl start warmrebootd", "it is in an update, %s, which nobody looks after", by.dir)
		case by.armed:
			d.add("kernel", s.Domain, sevCritical, "remove armed in "+by.dir+": it boots its old kernel then",
				"its next boot is of a new kernel on trial, and no update looks after it")
		default:
			d.add("kernel", s.Domain, sevWarning, "warmreboot update "+word+", or xl shutdown it and xl create it",
				"it is booted by an update's loader, and there is no such update: each boot is of its old kernel, by the copy in %s", by.dir)
		}
	}
}
