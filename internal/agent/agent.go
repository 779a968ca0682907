// Package agent is the dom0 daemon's mind: it keeps the warm cache of the
// domains it was told to keep, watches them go down and come back, and vouches
// for their pages, or does not.
//
// It only ever takes away: without its approval a guest gets nothing back. So
// whatever goes wrong here ends in a cold reboot.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sort"
	"strconv"
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
	"github.com/warmreboot/warmreboot/xenctl/libxl"
)

// Store is the agent's use of xenstore.
type Store interface {
	disk.Store
	Write(ctx context.Context, path, value string) error
	Introduced(ctx context.Context, domid uint16) (bool, error)
}

// Owners finds out who would create a domain again after a reboot.
type Owners interface {
	Owner(domid ident.Domid, uuid ident.UUID, name string) (toolstack.Owner, error)
}

// Options are what an agent needs.
type Options struct {
	Xen       hypervisor.Xen
	Store     Store
	Lifecycle libxl.Lifecycle
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
		a.Log.Warn("traces of an earlier run cannot be ended", "op", "trace", "err", err)
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

// target is a domain that an operator has named.
type target struct {
	name string
	uuid ident.UUID
	info *xenctl.DomainInfo // nil while it is down
}

// find finds a domain by name, domid or UUID, among those that are up and
// those that the agent keeps.
func (a *Agent) find(ctx context.Context, domain string) (target, error) {
	infos, err := a.Xen.Domains()
	if err != nil {
		return target{}, err
	}
	uuid, uuidErr := ident.ParseUUID(domain)
	id, idErr := strconv.ParseUint(domain, 10, 16)
	for i := len(infos) - 1; i >= 0; i-- {
		info := infos[i]
		if info.Dying || info.Domid == 0 {
			continue
		}
		name := a.name(ctx, info.Domid)
		if name == domain || uuidErr == nil && info.UUID == uuid || idErr == nil && info.Domid == ident.Domid(id) {
			return target{name, info.UUID, &info}, nil
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for u, k := range a.keepers {
		if name := k.status().Domain; name == domain || uuidErr == nil && u == uuid {
			return target{name, u, nil}, nil
		}
	}
	return target{}, api.Errorf(api.NotFound, "there is no domain %q; xl list shows what is there", domain)
}

// name returns a domain's name, "" if the toolstack has not given it one.
func (a *Agent) name(ctx context.Context, domid ident.Domid) string {
	name, err := a.Store.Read(ctx, fmt.Sprintf("/local/domain/%d/name", domid))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.Log.Warn("the name of a domain cannot be read", "op", "name", "domid", domid, "err", err)
	}
	return name
}

// List implements api.Service: dom0's guests and the kept domains that are
// down.
func (a *Agent) List(ctx context.Context) ([]api.DomainStatus, error) {
	infos, err := a.Xen.Domains()
	if err != nil {
		return nil, err
	}
	seen := map[ident.UUID]bool{}
	all := []api.DomainStatus{}
	for i := len(infos) - 1; i >= 0; i-- {
		info := infos[i]
		if info.Domid == 0 || info.Dying || seen[info.UUID] {
			continue
		}
		seen[info.UUID] = true
		all = append(all, a.describe(target{a.name(ctx, info.Domid), info.UUID, &info}))
	}
	a.mu.Lock()
	var down []ident.UUID
	for u := range a.keepers {
		if !seen[u] {
			down = append(down, u)
		}
	}
	a.mu.Unlock()
	for _, u := range down {
		if k := a.keeper(u); k != nil {
			all = append(all, a.describe(target{k.status().Domain, u, nil}))
		}
	}
	sort.Slice(all, func(i, j int) bool { return strings.Compare(all[i].Domain, all[j].Domain) < 0 })
	return all, nil
}

// Kept returns the kept domains, without what only an operator wants to know: it
// is cheap enough to be asked all the time.
func (a *Agent) Kept(context.Context) ([]api.DomainStatus, error) {
	infos, err := a.Xen.Domains()
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	keepers := slices.Collect(maps.Values(a.keepers))
	a.mu.Unlock()
	all := []api.DomainStatus{}
	for _, k := range keepers {
		s := k.status()
		var now *xenctl.DomainInfo
		for i := range infos {
			if d := &infos[i]; d.UUID == s.UUID && !d.Dying {
				now = d // the one created last, should there be two
			}
		}
		inventory.Describe(a.Xen, now, &s)
		all = append(all, s)
	}
	return all, nil
}

// describe puts together what Xen and the keeper know of a domain.
func (a *Agent) describe(t target) api.DomainStatus {
	s := api.DomainStatus{Domain: t.name, UUID: t.uuid, State: "down"}
	if k := a.keeper(t.uuid); k != nil {
		s = k.status()
		s.UUID = t.uuid
		if t.name != "" {
			s.Domain = t.name
		}
	}
	inventory.Describe(a.Xen, t.info, &s)
	return s
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
		a.Log.Warn("who has created it cannot be told", "domain", t.name, "uuid", t.uuid.String(), "domid", t.info.Domid, "err", err)
	}
	return o
}
