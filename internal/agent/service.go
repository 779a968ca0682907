package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/internal/reboot"
	"github.com/warmreboot/warmreboot/internal/validate"
	"github.com/warmreboot/warmreboot/xenctl"
)

// Status implements api.Service.
func (a *Agent) Status(ctx context.Context, domain string, wait bool) (api.DomainStatus, error) {
	t, err := a.find(ctx, domain)
	if err != nil {
		return api.DomainStatus{}, err
	}
	if k := a.keeper(t.uuid); wait && k != nil {
		// What has happened may not have been looked at yet.
		if err := k.look(ctx); err != nil && ctx.Err() == nil {
			return api.DomainStatus{}, err
		}
		for {
			s, changed := k.watch()
			if s.Current == nil {
				break
			}
			select {
			case <-changed:
			case <-k.ended:
				if s, _ := k.watch(); s.Current != nil {
					return a.describeOne(t), k.stopping()
				}
			case <-ctx.Done():
				return a.describeOne(t), notYet(t, s.Current)
			}
		}
		if t, err = a.find(ctx, t.uuid.String()); err != nil {
			return api.DomainStatus{}, err
		}
	}
	return a.describeOne(t), nil
}

// recreateSoon is how long a toolstack may take to create a domain again before it is
// advised to be done by hand, which would be in its way.
const recreateSoon = 30 * time.Second

// progressText says how far a reboot has got that did not end in time.
func progressText(s *api.Summary) string {
	down := time.Since(s.Started).Round(time.Second)
	switch {
	case s.DomidAfter == 0 && down < recreateSoon:
		return fmt.Sprintf("it went down %v ago, and has not been created again yet", down)
	case s.DomidAfter == 0:
		return fmt.Sprintf("it went down, but nobody has recreated it in %v; is its xl process running, with on_reboot and on_crash set to restart? unless it runs on another host, `xl create` its configuration to bring it back", down)
	case len(s.VBDs) == 0:
		return "it is back, but its disks are not checked yet"
	}
	return fmt.Sprintf("it is back, but its restore has not ended (%d of %d approved pages restored)", s.PagesRestored, s.PagesApproved)
}

// notYet says that the time is over, and the reboot is not.
func notYet(t target, s *api.Summary) error {
	return api.Errorf(api.TimedOut, "domain %s: %s", t.name, progressText(s)).Try(api.TryWait)
}

// usable returns why a domain cannot have a warm cache, or nil.
func (a *Agent) usable(t target) error {
	switch feature, err := a.Xen.ProbeWarmcache(); {
	case feature == xenctl.No:
		return api.Errorf(api.NoWarmcache, "domain %s: this Xen has no warm cache: boot a Xen built with CONFIG_WARMCACHE", t.name).Try(api.TryCold)
	case skewed(err):
		return api.Errorf(api.VersionSkew, "domain %s: %s", t.name, reboot.Plain(err)).Try(api.TryCold)
	case feature == xenctl.Unknown:
		return api.Errorf(api.Failed, "domain %s: cannot tell whether this Xen has a warm cache: %v; warmreboot doctor looks further", t.name, err)
	}
	if t.info == nil {
		return down(t)
	}
	if !t.info.HVM {
		return api.Errorf(api.NotTracked, "domain %s is a PV guest: only PVH and HVM guests can have a warm cache", t.name).Try(api.TryCold)
	}
	return nil
}

// failed makes an error of Xen's one that an operator can do something with.
func (t target) failed(doing string, err error) error {
	if skewed(err) {
		return api.Errorf(api.VersionSkew, "domain %s: %s: %s", t.name, doing, reboot.Plain(err))
	}
	if errors.Is(err, xenctl.ErrNoDomain) {
		return api.Errorf(api.NotFound, "domain %s: %s: it has just gone; xl list shows whether it is back", t.name, doing)
	}
	return api.Errorf(api.Failed, "domain %s: %s: %v; see the log of warmrebootd, and warmreboot doctor", t.name, doing, err)
}

// Enable implements api.Service.
func (a *Agent) Enable(ctx context.Context, domain string, p api.Policy) (api.DomainStatus, error) {
	p, err := withDefaults(p)
	if err != nil {
		return api.DomainStatus{}, err
	}
	t, err := a.find(ctx, domain)
	if err != nil {
		return api.DomainStatus{}, err
	}
	if err := a.usable(t); err != nil {
		return api.DomainStatus{}, err
	}
	if infos, err := a.Xen.Domains(); err != nil {
		return api.DomainStatus{}, t.failed("Xen cannot list its domains", err)
	} else if hypervisor.PVHDom0(infos) {
		return api.DomainStatus{}, api.Errorf(api.NoWarmcache, "domain %s: dom0 is a PVH domain, and Xen tells only a PV dom0 which pages are kept: boot Xen without dom0=pvh", t.name).Try(api.TryCold)
	}
	if err := t.clones(); err != nil {
		return api.DomainStatus{}, err
	}
	if !a.built(ctx, *t.info) {
		return api.DomainStatus{}, api.Errorf(api.Locked, "domain %s is still being built: try again when xl create has returned", t.name)
	}
	ttl := time.Duration(p.TTLSeconds) * time.Second
	if err := a.Xen.WarmcacheEnable(t.info.Domid, ttl); err != nil && !errors.Is(err, xenctl.ErrExists) {
		if errors.Is(err, xenctl.ErrNotSupported) {
			return api.DomainStatus{}, api.Errorf(api.NotTracked, "domain %s cannot have a warm cache: Xen says %v; it has to be a PVH or HVM guest on nested paging, without PCI devices", t.name, err)
		}
		return api.DomainStatus{}, t.failed("Xen cannot enable its warm cache", err)
	}
	if err := a.Xen.WarmcacheArm(t.info.Domid, ttl); err != nil {
		return api.DomainStatus{}, t.failed("Xen cannot arm its warm cache", err)
	}
	k, err := a.keep(&Record{State: reboot.State{UUID: t.uuid, Name: t.name, Enabled: true}, Boot: a.Boot, Policy: p})
	if err != nil {
		return api.DomainStatus{}, err
	}
	err = k.do(ctx, func() error {
		k.rec.Enabled, k.rec.Policy = true, p
		if err := k.write(); err != nil {
			return api.Errorf(api.Failed, "domain %s: that it is enabled cannot be written down: %v; make room in the state directory and enable it again", t.name, err)
		}
		return nil
	})
	if err == nil {
		err = k.look(ctx) // so that its disks are watched from now on
	}
	if err != nil {
		return api.DomainStatus{}, err
	}
	s := a.describe(t)
	if !s.Attached && s.State == "running" {
		s.Message = "the running guest kernel does not track its page cache (it can only start to while booting): it is tracked from its next boot on"
	}
	return s, nil
}

// Disable implements api.Service.
func (a *Agent) Disable(ctx context.Context, domain string) (api.DomainStatus, error) {
	t, err := a.find(ctx, domain)
	if err != nil {
		return api.DomainStatus{}, err
	}
	if k := a.keeper(t.uuid); k != nil {
		if err := k.do(ctx, func() error {
			k.rec.Enabled, k.rec.Intent, k.rec.Reboot = false, nil, nil
			k.gone = true
			return a.Journal.Remove(t.uuid)
		}); err != nil {
			return api.DomainStatus{}, err
		}
		select {
		case <-k.ended:
		case <-ctx.Done():
		}
	}
	if t.info != nil {
		if err := a.Xen.WarmcacheDisable(t.info.Domid); err != nil &&
			!errors.Is(err, xenctl.ErrNotEnabled) && !errors.Is(err, xenctl.ErrNotSupported) {
			return api.DomainStatus{}, t.failed("Xen cannot disable its warm cache", err)
		}
	}
	if _, err := a.Xen.DropImage(t.uuid); err != nil && !errors.Is(err, xenctl.ErrNoImage) && !errors.Is(err, xenctl.ErrNotSupported) {
		return api.DomainStatus{}, t.failed("Xen cannot free what it keeps", err)
	}
	return a.describe(t), nil
}

// Drop implements api.Service.
func (a *Agent) Drop(ctx context.Context, domain string) (api.DropResult, error) {
	t, err := a.find(ctx, domain)
	if err != nil {
		return api.DropResult{}, err
	}
	r := api.DropResult{Domain: t.name}
	if err := t.clones(); err != nil {
		return r, err
	}
	if t.info != nil {
		n, err := a.Xen.WarmcacheDrop(t.info.Domid)
		switch {
		case errors.Is(err, xenctl.ErrNotSupported):
			return r, a.usable(t)
		case errors.Is(err, xenctl.ErrNotEnabled):
			return r, api.Errorf(api.NotTracked, "the warm cache of domain %s is not enabled; warmreboot enable %s", t.name, ident.Word(t.name, t.uuid))
		case err != nil:
			return r, t.failed("Xen cannot forget its pages", err)
		}
		r.Pages = n
	}
	n, err := a.Xen.DropImage(t.uuid)
	if err != nil && !errors.Is(err, xenctl.ErrNoImage) {
		return r, t.failed("Xen cannot free what it keeps", err)
	}
	r.ImagePages = n
	return r, nil
}

// warmable returns why a domain would come back cold, or nil.
func (a *Agent) warmable(t target) error {
	if err := a.usable(t); err != nil {
		return err
	}
	st, err := a.Xen.WarmcacheStatus(t.info.Domid)
	if err != nil && !errors.Is(err, xenctl.ErrNotEnabled) {
		return t.failed("Xen does not say how it is", err)
	}
	k := a.keeper(t.uuid)
	switch {
	case err != nil || !st.Enabled || k == nil || !k.status().Managed:
		return api.Errorf(api.NotTracked, "the warm cache of domain %s is not enabled: warmreboot enable %s", t.name, ident.Word(t.name, t.uuid)).Try(api.TryCold)
	case k.status().Resumed && st.Committed == 0:
		return api.Errorf(api.NotTracked, "domain %s is not tracked: %s", t.name, resumed).Try(api.TryCold)
	case !st.Attached:
		return api.Errorf(api.NotTracked, "the guest kernel of domain %s does not track its page cache: boot a kernel with CONFIG_XEN_WARMCACHE, after warmreboot enable", t.name).Try(api.TryCold)
	}
	if err := a.owner(t).Releases(); err != nil {
		return api.Errorf(api.Failed, "domain %s would come back cold: %v", t.name, err).Try(api.TryCold)
	}
	return nil
}

// Plan implements api.Service. It changes nothing.
func (a *Agent) Plan(ctx context.Context, domain string, mode api.Trigger) (api.Plan, error) {
	t, err := a.find(ctx, domain)
	if err != nil {
		return api.Plan{}, err
	}
	p := api.Plan{Domain: t.name, UUID: t.uuid, Mode: mode, VBDs: []api.PlanVBD{}}
	if err := t.clones(); err != nil {
		return p, err
	}
	if t.info != nil {
		p.Domid = t.info.Domid
	}
	switch joined, err := a.keeper(t.uuid).inTheWay(ctx, t, mode); {
	case err != nil:
		return p, err
	case joined != nil:
		p.Domid, p.Joins = joined.DomidBefore, joined.Trigger
		return p, nil
	}
	if err := a.owner(t).Recreates(); err != nil {
		p.NotWarm = err.Error()
		return p, api.Errorf(api.Failed, "domain %s would not be rebooted: %v", t.name, err)
	}
	if mode == api.Cold {
		p.NotWarm = "a normal reboot was asked for"
		return p, nil
	}
	if err := a.warmable(t); err != nil {
		p.NotWarm = err.Error()
		return p, err
	}
	s := a.keeper(t.uuid).status()
	p.Policy = s.Policy
	v, closeView, err := validate.MapView(a.Xen, t.info.Domid, false)
	if err != nil {
		return p, t.failed("its table cannot be read", err)
	}
	stats := v.ByVBD()
	closeView()
	for _, st := range stats {
		pv := api.PlanVBD{VBD: st.VBD, Name: st.VBD.Name(), Pages: st.Pages, Check: s.Policy.Content}
		p.Pages += st.Pages
		be, err := disk.FindBackend(ctx, a.Store, t.info.Domid, st.VBD)
		if err == nil {
			var b disk.Backing
			if b, err = a.Disks.Resolve(be); err == nil {
				pv.Backing = b.Name
			}
		}
		if err != nil {
			pv.Check = "cold: " + err.Error()
		}
		for _, c := range s.Custody {
			if c.VBD == st.VBD && c.State != "certain" {
				pv.Check = c.State + ": " + c.Reason
			}
		}
		p.VBDs = append(p.VBDs, pv)
	}
	return p, nil
}
