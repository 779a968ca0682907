package inventory

import (
	"errors"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/xenctl"
)

// Describe enters what Xen itself says of a domain; info is nil if there is none. One
// that is gone is not down.
func Describe(x hypervisor.Xen, info *xenctl.DomainInfo, s *api.DomainStatus) {
	if s.Domid, s.MemoryPages = 0, 0; s.State != "gone" {
		s.State = "down"
	}
	if img, err := x.Image(s.UUID); err == nil {
		s.ImagePages = img.Pages
	}
	if info == nil {
		return
	}
	s.Domid, s.MemoryPages = info.Domid, info.Pages
	s.Type = "pv"
	if info.HVM {
		s.Type = "hvm"
	}
	switch {
	case info.Shutdown:
		s.State = "shutdown"
	case info.Paused:
		s.State = "paused"
	default:
		s.State = "running"
	}
	st, err := x.WarmcacheStatus(info.Domid)
	if err != nil {
		if !errors.Is(err, xenctl.ErrNotEnabled) && !errors.Is(err, xenctl.ErrNotSupported) && s.Message == "" {
			s.Message = err.Error()
		}
		return
	}
	s.Enabled, s.Armed, s.Attached = st.Enabled, st.Armed, st.Attached
	s.Committed, s.Held = st.Committed, st.Held
	s.Counters = api.Counters{MaxPFN: st.MaxPFN, Pending: st.Pending, Preserved: st.Preserved,
		Adopted: st.Adopted, LostBusy: st.LostBusy, Registered: st.Registered, Commits: st.Commits,
		CommitsIgnored: st.CommitsIgnored, Unregistered: st.Unregistered, WriteFaults: st.WriteFaults,
		ForeignWrites: st.ForeignWrites, P2MChanges: st.P2MChanges, Replaced: st.Replaced,
		Untrackable: st.Untrackable, Hypercalls: st.Hypercalls}
	s.Report = &api.Report{Held: st.Report.Held, Restored: st.Report.Restored,
		Refused: st.Report.Refused, Done: st.Report.Done}
}
