package web

import (
	"context"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

// Source is what the pages show.
type Source interface {
	List(context.Context) ([]api.DomainStatus, error)
	Status(ctx context.Context, domain string, wait bool) (api.DomainStatus, error)
	api.History
	api.Samples
}

// table is a list of reboots as the template wants it.
type table struct {
	Entries []api.HistoryEntry
	Names   bool // of the domains
}

// Table is the domain's history.
func (d Domain) Table() table { return table{Entries: d.History} }

// Table is the history of all domains.
func (h Host) Table() table { return table{h.History, true} }

// How many reboots a page lists.
const (
	domainReboots = 50
	hostReboots   = 20
)

// CollectHost asks for all that the page about all domains shows.
func CollectHost(ctx context.Context, s Source, host api.Host) (Host, error) {
	h := Host{Host: host}
	var err error
	if h.Domains, err = s.List(ctx); err == nil {
		h.History, err = api.All(s.History(ctx, api.HistoryQuery{Limit: hostReboots}))
	}
	return h, err
}

// Collect asks for all that a page about a domain shows. The reboot with the
// given ID is shown at length, 0: the latest.
func Collect(ctx context.Context, s Source, domain string, id uint64) (Domain, error) {
	st, err := s.Status(ctx, domain, false)
	if err != nil {
		return Domain{}, err
	}
	d := Domain{Status: st}
	if d.History, err = api.All(s.History(ctx, api.HistoryQuery{Domain: st.UUID.String(), Limit: domainReboots})); err != nil {
		return Domain{}, err
	}
	for i := range d.History {
		if e := &d.History[i]; id == 0 && !e.Started.IsZero() || id != 0 && e.ID == id {
			d.Reboot = e
			break
		}
	}
	var down time.Time
	switch {
	case d.Reboot != nil:
		down = d.Reboot.Started
	case id != 0:
		return Domain{}, api.Errorf(api.NotFound, "domain %s: there is no reboot %d among its last %d; warmreboot history %s lists them", st.Domain, id, domainReboots, ident.Word(st.Domain, st.UUID))
	}
	d.Samples, err = s.Samples(ctx, st.UUID, down)
	return d, err
}
