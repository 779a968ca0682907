// Package webtest has a domain with a history, for tests of what shows it.
package webtest

import (
	"context"
	"iter"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

// Name is the domain's: one that would do harm where it is not escaped.
const Name = `web<script>alert("x")</script>`

// UUID is the domain's.
var UUID = ident.UUID{0x5c, 0x0f}

// Down is when its last reboot began.
var Down = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Source is a web.Source.
type Source struct {
	Domain  api.DomainStatus
	Entries []api.HistoryEntry
	Seen    []api.Sample
	Err     error
}

// New makes a Source: a domain that crashed, came back warm but for one disk, and
// was sampled around that.
func New() *Source {
	last := api.Summary{Domain: Name, UUID: UUID, DomidBefore: 3, DomidAfter: 4, Sequence: 7, Trigger: api.Crash, By: api.ByGuest,
		Outcome: "warm", PagesBefore: 67711, PagesPreserved: 67700, PagesAdopted: 67600, PagesApproved: 64806, PagesRestored: 64592,
		Refused: map[string]uint64{"sector": 200, "cached": 14}, Started: Down, DownSeconds: 6, RestoredSeconds: 21, Done: true,
		VBDs: []api.VBDSummary{
			{VBD: 51712, Name: "xvda", Backing: "/dev/vg0/web", Verdict: "approved", Custody: "certain", Held: 64806, Checked: 256, Refusals: api.Refusals{}},
			{VBD: 51728, Name: "xvdb", Backing: "/srv/web data.raw", Verdict: "refused", Custody: "broken", Held: 2794, Reason: "8 sectors were written while the guest was down",
				Refusals: api.Refusals{{Reason: api.Written, Times: 1, Pages: 2794, Example: "8 sectors were written while the guest was down", First: Down}}}}}
	cold := last
	cold.Sequence, cold.Started, cold.Outcome, cold.Reason, cold.PagesRestored = 6, Down.Add(-30*time.Hour), "cold", "Xen preserved none of the pages", 0
	s := &Source{
		Domain: api.DomainStatus{Domain: Name, UUID: UUID, Domid: 4, State: "running", Type: "hvm", Managed: true, Enabled: true, Armed: true, Attached: true,
			Committed: 64592, Held: 64000, MemoryPages: 131072, Counters: api.Counters{MaxPFN: 131072, WriteFaults: 1234, Hypercalls: 5678},
			Custody:  []api.VBDCustody{{VBD: 51712, Name: "xvda", Backing: "/dev/vg0/web", State: "certain"}, {VBD: 51728, Name: "xvdb", Backing: "/srv/web data.raw", State: "uncertain", Reason: "it was opened by less"}},
			Refusals: []api.VBDRefusals{{VBD: 51728, Name: "xvdb", Refusals: last.VBDs[1].Refusals}}, Last: &last},
		Entries: []api.HistoryEntry{{ID: 12, At: Down.Add(21 * time.Second), Summary: last}, {ID: 9, At: Down.Add(-29 * time.Hour), Summary: cold}},
	}
	for i := range 180 {
		v := api.Sample{At: Down.Add(time.Duration(i-60) * time.Second), Seconds: 1, Domid: 3, NetSent: 40 << 20, DiskRead: 1 << 20, Reusable: 67711}
		switch {
		case i >= 66:
			v.Domid, v.NetSent, v.DiskRead, v.Reusable = 4, uint64(i)<<18, 4<<20, 64592
		case i >= 60:
			v.Domid, v.NetSent, v.DiskRead, v.Reusable = 0, 0, 0, 0
		}
		s.Seen = append(s.Seen, v)
	}
	return s
}

// List implements web.Source.
func (s *Source) List(context.Context) ([]api.DomainStatus, error) {
	return []api.DomainStatus{s.Domain}, s.Err
}

// Status implements web.Source.
func (s *Source) Status(_ context.Context, domain string, _ bool) (api.DomainStatus, error) {
	if domain != Name && domain != UUID.String() {
		return api.DomainStatus{}, api.Errorf(api.NotFound, "there is no domain %q", domain)
	}
	return s.Domain, s.Err
}

// History implements web.Source.
func (s *Source) History(context.Context, api.HistoryQuery) iter.Seq2[api.HistoryEntry, error] {
	return func(yield func(api.HistoryEntry, error) bool) {
		for _, e := range s.Entries {
			if !yield(e, nil) {
				return
			}
		}
		if s.Err != nil {
			yield(api.HistoryEntry{}, s.Err)
		}
	}
}

// Samples implements web.Source.
func (s *Source) Samples(context.Context, ident.UUID, time.Time) ([]api.Sample, error) {
	return s.Seen, s.Err
}
