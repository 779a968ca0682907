// Package agent is the dom0 daemon's mind: it keeps the warm cache of the
// domains it was told to keep, watches them go down and come back, and vouches
// for their pages, or does not.
//
// It only ever takes away: without its approval a guest gets nothing back. So
// whatever goes wrong here ends in a cold reboot.
package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/internal/inventory"
	"github.com/warmreboot/warmreboot/internal/toolstack"
	"github.com/warmreboot/warmreboot/xenctl"
)

// Store is the agent's use of xenstore.
type Store interface {
	disk.Store
	Write(ctx context.Context, path, value string) error
	// Swap sets a node if its value is old, at one go, and returns whether it was.
	Swap(ctx context.Context, path, old, value string) (bool, error)
	Introduced(ctx context.Context, domid uint16) (bool, error)
}

// Owners finds out who would create a domain again after a reboot.
type Owners interface {
	Owner(domid ident.Domid, uuid ident.UUID, name string) (toolstack.Owner, error)
	// Ends returns what is to become of a domain when it ends; nothing if nobody says.
	Ends(domid ident.Domid, uuid ident.UUID) (toolstack.Ends, error)
}

// Options are what an agent needs.
type Options struct {
	Xen       hypervisor.Xen
	Store     Store
	Lifecycle toolstack.Lifecycle
	Disks     Disks
	// Owners knows who would create a domain again; may be nil.
	Owners  Owners
	Journal Records
	History History
	Log     *slog.Logger
	// Boot identifies this boot of dom0.
	Boot string
	// DiskWait is how long after a new domain has started its disks may take
	// to be attached before pages of a disk that is not there are refused.
	// Until it is started, the toolstack is at work and there is no hurry.
	DiskWait time.Duration
}

// DefaultDiskWait is DiskWait unless told otherwise.
const DefaultDiskWait = 30 * time.Second

// Agent serves api.Service.
type Agent struct {
	Options
	ctx    context.Context // ends with Run
	cancel context.CancelFunc
	made   time.Time

	mu      sync.Mutex
	stopped bool // there are to be no more keepers
	keepers map[ident.UUID]*keeper
	wg      sync.WaitGroup
}

var _ api.Service = (*Agent)(nil)

// New makes an agent. Nothing happens before Start.
func New(o Options) *Agent {
	if o.DiskWait == 0 {
		o.DiskWait = DefaultDiskWait
	}
	a := &Agent{Options: o, made: time.Now(), keepers: map[ident.UUID]*keeper{}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// Start takes up every domain of the journal where it was left.
func (a *Agent) Start() error {
	records, err := a.Journal.Load()
	if err != nil {
		if records == nil {
			return err
		}
		a.Log.Error("part of the journal cannot be read: those domains are not kept", "op", "journal", "err", err, "next", "warmreboot enable them again")
	}
	known := map[uint32]bool{}
	for _, r := range records {
		if r.Boot == a.Boot {
			known[uint32(r.Domid)] = true
		}
	}
	if err := a.Disks.CloseTraces(func(domid, _ uint32) bool { return known[domid] }); err != nil {
		a.Log.Warn("traces of an earlier run cannot be ended: they cost dom0 a little until it reboots", "op", "trace", "err", err)
	}
	for _, r := range records {
		if r.Boot != a.Boot {
			// Xen has been restarted with dom0: nothing of it is left.
			r.Boot, r.Domid, r.Accounts, r.Intent, r.Reboot, r.Fuse = a.Boot, 0, nil, nil, nil, nil
		}
		if _, err := a.keep(r); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends the agent; Xen goes on keeping what it was told to.
func (a *Agent) Stop() {
	a.mu.Lock()
	a.stopped = true
	a.mu.Unlock()
	a.cancel()
	a.wg.Wait()
}

// Alive returns nil if every keeper has got on with its work in the last limit,
// which is to be well above idleTick. Should the agent's own lock be held for
// ever, it does not return.
func (a *Agent) Alive(limit time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Since(a.made)
	for uuid, k := range a.keepers {
		if idle := now - time.Duration(k.beat.Load()); idle > limit {
			return fmt.Errorf("domain %s (%s): its keeper has been stuck for %v", k.status().Domain, uuid, idle.Round(time.Second))
		}
	}
	return nil
}

// Wake has every domain looked at soon: something has changed.
func (a *Agent) Wake() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.keepers {
		k.wakeUp()
	}
}

// WakeOf has the domains that have one of the domids looked at soon, and those that may
// be about to have it: which are down, or coming back.
func (a *Agent) WakeOf(all []ident.Domid) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.keepers {
		if s := k.status(); s.Domid == 0 || s.Current != nil || slices.Contains(all, s.Domid) {
			k.wakeUp()
		}
	}
}

// keep returns the keeper of a domain: the one that there is, or a new one, which
// begins with r.
func (a *Agent) keep(r *Record) (*keeper, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return nil, api.Errorf(api.Failed, "domain %s: warmrebootd is stopping; ask again when it runs: systemctl status warmrebootd", r.Name)
	}
	if k := a.keepers[r.UUID]; k != nil {
		return k, nil
	}
	k := newKeeper(a, r)
	a.keepers[r.UUID] = k
	a.wg.Add(1)
	go func() {
		defer a.wg.Done()
		defer func() {
			a.mu.Lock()
			delete(a.keepers, r.UUID)
			a.mu.Unlock()
			close(k.ended) // not before: whoever waits for that finds no keeper, or a new one
		}()
		k.run(a.ctx)
	}()
	return k, nil
}

func (a *Agent) keeper(uuid ident.UUID) *keeper {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.keepers[uuid]
}

// target is a domain that an operator has named. From then on it is dealt with by its
// UUID, and by its domid while it lives.
type target struct {
	name string
	uuid ident.UUID
	info *xenctl.DomainInfo // nil while it is down
	twin ident.Domid        // another one that runs under the UUID, 0 if there is none
	// gone: it is down because it was suspended; taken: because it was taken away, or
	// nobody knows why.
	gone, taken bool
}

func present(d inventory.Domain) target {
	return target{name: d.Name, uuid: d.UUID, info: &d.DomainInfo, twin: d.Twin}
}

func absent(s api.DomainStatus) target {
	return target{name: s.Domain, uuid: s.UUID, gone: s.State == "gone", taken: s.Current == nil || s.Current.Trigger == api.Unknown}
}

// find finds a domain among those that are there and those that the agent keeps.
func (a *Agent) find(ctx context.Context, domain string) (target, error) {
	all, err := inventory.List(ctx, a.Xen, a.Store)
	if err != nil {
		return target{}, err
	}
	ref := ident.ParseRef(domain)
	if u, ok := ref.UUID(); ok { // of two that have it, the one that is kept
		if k := a.keeper(u); k != nil {
			if i := slices.IndexFunc(all, func(d inventory.Domain) bool { return d.UUID == u && d.Domid == k.status().Domid }); i >= 0 {
				return present(all[i]), nil
			}
		}
	}
	d, err := inventory.Find(all, domain)
	if err != nil {
		return target{}, err
	}
	if d != nil {
		return present(*d), nil
	}
	for _, s := range a.down(all) {
		if ref.Matches(s.Domain, s.UUID, 0) {
			return absent(s), nil
		}
	}
	// One that is down, and that its toolstack has kept under another name.
	for _, k := range a.all() {
		if s := k.status(); s.Domid == 0 && ref.Matches(s.Domain, s.UUID, 0) {
			return absent(s), nil
		}
	}
	return target{}, inventory.NotFound(domain)
}

// down returns the kept domains that are not among all.
func (a *Agent) down(all []inventory.Domain) []api.DomainStatus {
	up := map[ident.UUID]bool{}
	for _, d := range all {
		up[d.UUID] = true
	}
	var down []api.DomainStatus
	for _, k := range a.all() {
		if s := k.status(); !up[s.UUID] {
			down = append(down, s)
		}
	}
	return down
}

func (a *Agent) all() []*keeper {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Values(a.keepers))
}

// name returns a domain's name, "" if the toolstack has not given it one, or if it
// cannot be read.
func (a *Agent) name(ctx context.Context, domid ident.Domid) string {
	name, err := inventory.Name(ctx, a.Store, domid)
	if err != nil && ctx.Err() == nil {
		a.Log.Warn("the name of a domain cannot be read", "op", "name", "domid", domid, "err", err)
	}
	return name
}

// service says what a domain is there for, if it is no guest of an operator's; "" if
// it is one. That of xenstore is named by the toolstack that made it.
func (a *Agent) service(ctx context.Context, domid ident.Domid, uuid ident.UUID) string {
	if uuid.Trial() {
		return "trial"
	}
	if own, err := a.Store.Read(ctx, "/tool/xenstored/domid"); err == nil && own == fmt.Sprint(domid) {
		return "xenstore"
	}
	return ""
}

// List implements api.Service: dom0's guests and the kept domains that are
// down.
func (a *Agent) List(ctx context.Context) ([]api.DomainStatus, error) {
	there, err := inventory.List(ctx, a.Xen, a.Store)
	if err != nil {
		return nil, err
	}
	all := []api.DomainStatus{}
	for _, d := range there {
		// One that has shut down is shown unless the next one is there.
		if d.Shutdown && slices.ContainsFunc(there, func(o inventory.Domain) bool { return o.UUID == d.UUID && o.Domid > d.Domid }) {
			continue
		}
		s := a.describe(present(d))
		s.Service = a.service(ctx, d.Domid, d.UUID)
		all = append(all, s)
	}
	for _, s := range a.down(there) {
		all = append(all, a.describe(absent(s)))
	}
	slices.SortFunc(all, func(a, b api.DomainStatus) int {
		return cmp.Or(strings.Compare(a.Domain, b.Domain), cmp.Compare(a.Domid, b.Domid))
	})
	return all, nil
}

// Kept returns the kept domains, without what only an operator wants to know: it
// is cheap enough to be asked all the time.
func (a *Agent) Kept(context.Context) ([]api.DomainStatus, error) {
	infos, err := a.Xen.Domains()
	if err != nil {
		return nil, err
	}
	all := []api.DomainStatus{}
	for _, k := range a.all() {
		s := k.status()
		var now *xenctl.DomainInfo
		for i := range infos {
			if d := &infos[i]; d.UUID == s.UUID && !d.Dying && (now == nil || now.Domid != s.Domid) {
				now = d // the one that is known, or the one created last
			}
		}
		inventory.Describe(a.Xen, now, &s)
		notTracked(&s)
		all = append(all, s)
	}
	return all, nil
}

// describe puts together what Xen and the keeper know of a domain.
func (a *Agent) describe(t target) api.DomainStatus {
	s := api.DomainStatus{Domain: t.name, UUID: t.uuid, State: "down"}
	k := a.keeper(t.uuid)
	switch {
	case k == nil:
	case t.twin != 0 && k.status().Domid != t.info.Domid:
		s.Message = fmt.Sprintf("it runs under the UUID of domid %d, and is left alone: give it one of its own (uuid= in its configuration)", t.twin)
	default:
		s = k.status()
		if t.name != "" {
			s.Domain = t.name
		}
	}
	s.Twin = t.twin
	inventory.Describe(a.Xen, t.info, &s)
	notTracked(&s)
	if s.Resumed && s.Enabled && !s.Attached && s.Message == "" {
		s.Message = resumed
	}
	return s
}

// resumed says why a domain that was suspended, and not booted since, is not tracked.
const resumed = "it was suspended since its boot (saved, migrated or copied): its kernel tracks its page cache again from its next boot on"

// notTracked enters what Xen does not know: a kernel that has been suspended has let go
// of all that it had registered, and registers no more.
func notTracked(s *api.DomainStatus) {
	if s.Resumed && s.Committed == 0 {
		s.Attached = false
	}
}

// describeOne also says who has created the domain, which takes a look at all
// processes: too much for what is asked of all domains every second.
func (a *Agent) describeOne(t target) api.DomainStatus {
	s := a.describe(t)
	s.Toolstack = a.owner(t).Toolstack
	return s
}

// owner returns who would create a domain again, as far as that is known.
func (a *Agent) owner(t target) toolstack.Owner {
	if a.Owners == nil || t.info == nil {
		return toolstack.Owner{}
	}
	o, err := a.Owners.Owner(t.info.Domid, t.uuid, t.name)
	if err != nil {
		a.Log.Warn("who has created it cannot be told: whether it would come back is not known", "op", "toolstack", "domain", t.name, "uuid", t.uuid.String(), "domid", t.info.Domid, "err", err)
	}
	return o
}
