package reboot

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl/facts"
)

// Domain is one that was seen under the UUID.
type Domain struct {
	facts.DomainInfo
	Name string
	// Built: it has its memory. Before, it must be left alone.
	Built bool
	// End is what its toolstack does now that it has shut down, as xl.cfg(5) names it;
	// "" if that is not known.
	End string
	// Status is what Xen says of its warm cache, or Err why it does not.
	Status facts.WarmcacheStatus
	Err    error
}

// stays reports whether a domain that has shut down is not created again. If nobody
// says, one that was switched off is not.
func (d *Domain) stays() bool {
	if d.End == "" {
		return d.Reason == facts.ShutdownPoweroff
	}
	return !strings.Contains(d.End, "restart")
}

// Observation is what is seen at one look.
type Observation struct {
	// Domains are those of the UUID, in order of domid, without those that are going away.
	Domains []Domain
	// Image is what Xen keeps for the UUID while there is no domain, or ImageErr why
	// that is not known: facts.ErrNoImage if there is nothing.
	Image    facts.Image
	ImageErr error
	// Preserved: the domain that went down is still there, under another name.
	Preserved bool
	// Judged: what Judge asked for is done.
	Judged bool
}

// Kind is what is to be done.
type Kind string

// Kinds of effects.
const (
	Close  Kind = "close"  // the domain has died: close the accounts of its disks, at once
	Watch  Kind = "watch"  // there is no domain: go on watching the disks of the last one
	Begin  Kind = "begin"  // Domain is new: have Xen track it, if it is enabled, and take up its disks
	Judge  Kind = "judge"  // vouch for what Domain holds, or don't; then look again, Judged
	Read   Kind = "read"   // enter readings of Domain's disks into their accounts
	Forget Kind = "forget" // the domain has left: nothing is known of its disks any more
	Undo   Kind = "undo"   // the new domain never ran: take up the accounts of the last one again
	Enter  Kind = "enter"  // enter Summary into the history
	Save   Kind = "save"   // journal what is known
	Retire Kind = "retire" // the domain need not be looked after any longer
	Log    Kind = "log"
)

// Effect is something to be done, in order. Each may be done again: whoever is killed
// between two starts over from what was saved.
type Effect struct {
	Kind    Kind
	Domain  *Domain
	Summary *api.Summary
	// Fresh, of Begin: no reboot has led to it, so that of its disks nothing is known.
	Fresh bool
	// Level, Message and Args are of Log.
	Level   slog.Level
	Message string
	Args    []any
}

// machine is one call of Next.
type machine struct {
	State
	o       Observation
	now     time.Time
	effects []Effect
	log     logger
	dirty   bool // to be saved
}

// logger makes effects of what is to be logged.
type logger struct{ m *machine }

func (l logger) Info(message string, args ...any) { l.add(slog.LevelInfo, message, args) }
func (l logger) Warn(message string, args ...any) { l.add(slog.LevelWarn, message, args) }
func (l logger) add(level slog.Level, message string, args []any) {
	l.m.do(Effect{Kind: Log, Level: level, Message: message, Args: args})
}

func (m *machine) do(e Effect) { m.effects = append(m.effects, e) }

// save has what is known journalled, when all else that this look leads to is known.
func (m *machine) save() { m.dirty = true }

// Next returns what is known after a look, and what is to be done. It changes nothing
// that s refers to.
func Next(s State, o Observation, now time.Time) (State, []Effect) {
	m := &machine{State: s.clone(), o: o, now: now}
	m.log = logger{m}
	m.look()
	if m.dirty {
		i := slices.IndexFunc(m.effects, func(e Effect) bool { return e.Kind == Judge || e.Kind == Read })
		if i < 0 {
			i = len(m.effects)
		}
		m.effects = slices.Insert(m.effects, i, Effect{Kind: Save})
	}
	return m.State, m.effects
}

func (m *machine) look() {
	cur := m.current()
	m.Witnessed = m.Witnessed || cur != nil
	if m.away(cur) {
		return
	}
	if m.Domid != 0 && (cur == nil || cur.Domid != m.Domid || cur.Shutdown) {
		m.down(cur)
	}
	if cur == nil || cur.Shutdown || cur.Domid != m.Domid && !cur.Built {
		m.absent(cur == nil)
		return
	}
	if cur.Domid != m.Domid {
		m.appeared(cur)
	} else if m.rename(cur.Name) {
		m.save()
	}
	if m.Reboot != nil {
		m.comingBack(cur)
	} else {
		m.running(cur)
	}
}

// current returns the domain that is to be looked at, nil if there is none: the one
// that is known, as long as it runs, else the one that was created last. Others that
// run under its UUID beside it are no reboots of it, and are left alone for good.
func (m *machine) current() *Domain {
	var own, last *Domain
	var others []ident.Domid // that run
	clones := m.Clones[:0:0]
	for i := range m.o.Domains {
		d := &m.o.Domains[i]
		switch {
		case slices.Contains(m.Clones, d.Domid):
			clones = append(clones, d.Domid)
		case d.Domid == m.Domid:
			own = d
		default:
			last = d
			if d.Alive() && d.Built {
				others = append(others, d.Domid)
			}
		}
	}
	switch {
	case own != nil && own.Alive():
		clones = append(clones, others...)
		last = own
	case own != nil && own.Reason == facts.ShutdownSuspend:
		last = own // until it has gone: the other may be what it is migrated to
	case len(others) > 1:
		clones, last = append(clones, others...), own // nobody knows which is meant
	case last == nil:
		last = own
	}
	if !slices.Equal(clones, m.Clones) {
		m.Clones = clones
		if len(clones) > 0 {
			m.log.Warn("another domain runs under the same UUID: it is left alone", "domid", clones[len(clones)-1], "next", "give it a UUID of its own (uuid= in its configuration)")
		}
		m.save()
	}
	return last
}

// away sees to a domain that was suspended, to be saved or migrated: that is no
// reboot. It reports whether there is nothing else to see to. It may go on here, as
// after a checkpoint or a failed migration. Once it has gone, it may be anywhere, and
// what is known of its disks ends.
func (m *machine) away(cur *Domain) bool {
	own := cur != nil && cur.Domid == m.Domid
	switch {
	case m.Domid == 0:
	case own && cur.Shutdown && cur.Reason == facts.ShutdownSuspend:
		if !m.Suspended {
			m.Suspended, m.Registered = true, cur.Status.Registered
			m.log.Info("domain was suspended", "domid", m.Domid)
			m.save()
		}
		return true
	case own && m.Suspended:
		m.Suspended, m.Woken = false, cur.Err == nil && cur.Status.Attached
		m.log.Info("domain goes on", "domid", m.Domid)
		m.save()
	case m.Suspended:
		m.left()
	}
	return false
}

// left is that a suspended domain has gone.
func (m *machine) left() {
	m.log.Info("domain has left: it was saved, or is elsewhere", "domid", m.Domid)
	if b := m.Reboot; b != nil {
		s := b.Summary
		s.Outcome, s.Reason = "cold", "the domain was suspended before its restore had ended"
		if s.PagesApproved > 0 && s.PagesRestored > 0 {
			s.Outcome, s.Reason = "warm", ""
		}
		if b.Attempted && !m.Before.Report.Done {
			m.blow("the domain was suspended before it had ended")
		}
		m.finish(s)
	}
	m.do(Effect{Kind: Forget})
	m.Domid, m.Intent, m.Resumed, m.Woken = 0, nil, false, false
	m.Suspended, m.Left = false, true
	m.save()
}

// rename enters the domain's name, and reports whether it is a new one.
func (m *machine) rename(name string) bool {
	if name == "" || name == m.Name {
		return false
	}
	known := m.Name
	m.Name = name
	if ident.SameName(name, known) { // it was read from the journal
		return false
	}
	m.log.Info("domain renamed", "was", known, "domain", name)
	if m.Reboot != nil {
		m.Reboot.Summary.Domain = name
	}
	return true
}

// down is that the domain has gone: it has shut down (then cur is it), or is no longer
// there. Close comes first: the toolstack is about to take the backends away, and
// their counters with them.
func (m *machine) down(cur *Domain) {
	own := cur != nil && cur.Domid == m.Domid
	if !own && m.Unrun && m.Reboot != nil && !m.Reboot.Attempted {
		m.neverRan()
		return
	}
	if own && cur.Err == nil {
		m.Before = cur.Status
	}
	m.do(Effect{Kind: Close})
	s := api.Summary{Domain: m.Name, UUID: m.UUID, DomidBefore: m.Domid, Started: m.now,
		PagesBefore: m.Before.Committed, Trigger: api.Unknown, By: api.ByGuest, Refused: map[string]uint64{}, VBDs: []api.VBDSummary{}}
	off := false
	if own {
		off = cur.stays()
		switch cur.Reason {
		case facts.ShutdownPoweroff:
			s.Trigger = api.Off
		case facts.ShutdownCrash, facts.ShutdownWatchdog:
			s.Trigger = api.Crash
		case facts.ShutdownReboot:
			s.Trigger = api.Guest
		}
	}
	if i := m.Intent; i != nil && i.Domid == m.Domid && !i.over(m.now) && s.Trigger != api.Crash {
		s.Trigger, s.By, s.Schedule = i.Mode, i.By, i.Schedule
	}
	m.log.Info("domain went down", "domid", m.Domid, "trigger", s.Trigger, "pages", s.PagesBefore)
	if m.Reboot != nil { // the end of its restore was not seen
		m.downAgain()
	}
	m.Sequence++
	s.Sequence = m.Sequence
	m.Reboot = &Reboot{Summary: s, Off: off, Untracked: m.Before.Enabled && !m.Before.Attached, Resumed: (m.Resumed || m.Woken) && m.Before.Committed == 0, Fuse: m.Fuse}
	if m.Fuse != nil {
		m.log.Warn("nothing will be restored when the domain is back", "sequence", s.Sequence, "why", m.Fuse.Why)
		m.Fuse = nil
	}
	m.Domid, m.Intent, m.Unrun = 0, nil, false
	m.save()
}

// neverRan is that the new domain of a reboot was taken away before it ran: its
// creation has failed, and may be tried again. The reboot goes on.
func (m *machine) neverRan() {
	m.log.Warn("the new domain was taken away before it ran", "domid", m.Domid)
	m.do(Effect{Kind: Undo})
	b := m.Reboot
	b.Decided, b.Summary.DomidAfter, b.Seen = false, 0, time.Time{}
	if b.Lost == "" {
		b.Lost = fmt.Sprintf("domain %d, which had taken the pages that Xen kept, was taken away before it ran: its creation has failed (/var/log/xen says why)", m.Domid)
	}
	m.Domid, m.Unrun = 0, false
	m.save()
}

// downAgain ends the reboot under way of a domain that has just gone down.
func (m *machine) downAgain() {
	b := m.Reboot
	s := b.Summary
	s.PagesRestored, s.Refused = m.Before.Report.Restored, m.Before.Report.Refused
	if s.Refused == nil {
		s.Refused = map[string]uint64{}
	}
	if b.Attempted && m.Before.Report.Done && s.PagesRestored > 0 { // between two looks
		s.Done, s.Outcome, s.Reason = true, "warm", ""
		m.finish(s)
		return
	}
	s.Outcome, s.Reason = "cold", "the domain went down again before its restore had ended"
	if b.Attempted && !m.Before.Report.Done {
		m.blow(s.Reason)
	}
	m.finish(s)
}

// blow notes that the restore under way did not end well: the next boot restores
// nothing. What it has kept until then it may restore after that.
func (m *machine) blow(why string) {
	m.Fuse = &Fuse{Sequence: m.Reboot.Summary.Sequence, Why: why}
}

// absent is that there is no domain that could be dealt with, or none at all.
func (m *machine) absent(none bool) {
	m.do(Effect{Kind: Watch})
	if m.Intent != nil && m.Domid == 0 && m.Reboot == nil {
		m.Intent = nil
		m.save()
	}
	if !m.Enabled && m.Reboot == nil {
		m.do(Effect{Kind: Retire})
	}
	switch b := m.Reboot; {
	case b == nil:
	case m.o.Preserved:
		m.preserved(b)
	case none && b.Lost == "":
		m.watchImage(b)
	}
}

// preserved is that the toolstack has kept the domain that went down: its pages are
// still in use. The next one may have been tried in vain.
func (m *machine) preserved(b *Reboot) {
	why := fmt.Sprintf("the toolstack has kept the old domain as domid %d (on_reboot or on_crash is rename-restart), with its memory and its disks: xl destroy %d when it is no longer needed", b.Summary.DomidBefore, b.Summary.DomidBefore)
	if b.Lost == why {
		return
	}
	b.Lost = why
	m.log.Warn("the old domain is preserved: nothing comes back of it", "domid", b.Summary.DomidBefore, "why", b.Lost)
	m.save()
}

// watchImage sees whether Xen still keeps the pages of a domain that is not there. A
// domain that has just been created may have taken them: then it holds them, and what
// is noted here is not used.
func (m *machine) watchImage(b *Reboot) {
	switch {
	case m.o.ImageErr == nil && b.ImagePages == 0 && m.o.Image.Pages > 0:
		b.ImagePages = m.o.Image.Pages
		m.save()
	case errors.Is(m.o.ImageErr, facts.ErrNoImage) && b.ImagePages > 0:
		b.Lost = fmt.Sprintf("Xen gave up the %d pages that it had kept: their time was over, or a new domain needed the memory, or somebody dropped them (xl dmesg says which)", b.ImagePages)
		m.log.Warn("image gone: the domain comes back cold", "pages", b.ImagePages, "why", b.Lost)
		m.save()
	}
}

// appeared is that a domain is seen for the first time: it has just been built, or
// whoever looks has just started.
func (m *machine) appeared(d *Domain) {
	m.rename(d.Name)
	m.log.Info("domain appeared", "domid", d.Domid, "paused", d.Paused)
	if m.Reboot == nil && d.Err == nil && d.Status.Held > 0 && !d.Status.Report.Done {
		// First sight. It holds pages of a boot whose end nobody saw: nobody can
		// vouch for them without looking at each.
		m.Sequence++
		m.Reboot = &Reboot{Summary: api.Summary{Domain: m.Name, UUID: m.UUID, Sequence: m.Sequence,
			Trigger: api.Unknown, By: api.ByGuest, Started: m.now, Refused: map[string]uint64{}, VBDs: []api.VBDSummary{}}}
	}
	if m.Reboot != nil {
		m.Reboot.Summary.Domain = m.Name
		m.Reboot.Summary.DomidAfter = d.Domid
		m.Reboot.Seen = m.now
	}
	m.do(Effect{Kind: Begin, Domain: d, Fresh: m.Reboot == nil})
	m.Domid, m.Resumed, m.Woken, m.Left = d.Domid, m.Left, false, false
	m.Before = facts.WarmcacheStatus{}
	m.save()
}

// running is that the domain lives and no reboot is under way.
func (m *machine) running(d *Domain) {
	if i := m.Intent; i != nil && i.over(m.now) {
		m.Intent = nil
		m.save()
	}
	if !m.Enabled {
		if m.Intent == nil {
			m.do(Effect{Kind: Retire})
		}
		return
	}
	if d.Err == nil {
		m.Before = d.Status
	}
	if m.Resumed && m.Before.Attached { // what was saved was not restored: it was booted anew
		m.Resumed = false
		m.save()
	}
	if m.Woken && m.Before.Registered > m.Registered {
		m.Woken = false
		m.save()
	}
	m.do(Effect{Kind: Read, Domain: d})
}

// comingBack is that the new domain of a reboot has not ended its restore.
func (m *machine) comingBack(d *Domain) {
	b := m.Reboot
	m.Unrun = d.Paused && b.Ran.IsZero()
	if b.Ran.IsZero() && !d.Paused {
		b.Ran = m.now
		if b.Summary.DomidBefore != 0 {
			b.Summary.DownSeconds = b.Ran.Sub(b.Summary.Started).Seconds()
		}
	}
	if !m.Enabled {
		// A normal reboot of a domain that is not looked after: done once it runs.
		if !b.Ran.IsZero() {
			m.end("the warm cache is not enabled for this domain")
		}
		return
	}
	if !b.Decided {
		if !m.o.Judged {
			m.do(Effect{Kind: Judge, Domain: d})
			return
		}
		b.Decided = true
		m.save()
	}
	switch {
	case errors.Is(d.Err, facts.ErrNoDomain):
		// Seen to be down at the next look.
	case d.Err != nil:
		b.Summary.Outcome, b.Summary.Reason = "cold", Plain(d.Err)
		if !b.Ran.IsZero() {
			m.end(Plain(d.Err))
		}
	default:
		m.Before = d.Status
		m.progress(d.Status)
	}
	m.do(Effect{Kind: Read, Domain: d})
}

// end ends a reboot that was none of the warm cache's.
func (m *machine) end(reason string) {
	s := m.Reboot.Summary
	s.Outcome, s.Reason, s.Done = "cold", reason, true
	m.finish(s)
}

// Plain says what an error of Xen's means to an operator.
func Plain(err error) string {
	if errors.Is(err, facts.ErrVersion) {
		return fmt.Sprintf("this Xen has another version of the warm cache than this warmrebootd: install those that belong together (%v)", err)
	}
	return err.Error()
}

// AttachWait is how long after its start a guest may take to say that it
// tracks before it is taken for one that does not; attachAgainWait, if the last one
// did not either, and there is nothing to restore. It may still: the warm cache may
// have been enabled while that ran, or another kernel been installed.
const (
	AttachWait      = 3 * time.Minute
	attachAgainWait = 30 * time.Second
)

// progress enters how far the guest says it is, and ends the reboot when it
// has finished.
func (m *machine) progress(st facts.WarmcacheStatus) {
	b := m.Reboot
	s := &b.Summary
	s.PagesPreserved, s.PagesAdopted = st.Preserved, st.Adopted
	s.PagesRestored = st.Report.Restored
	s.Refused = st.Report.Refused
	if b.Ran.IsZero() {
		return
	}
	wait := AttachWait
	if b.Untracked && st.Adopted == 0 {
		wait = attachAgainWait
	}
	switch {
	case st.Report.Done:
	case st.Attached && st.Adopted == 0:
		// Nothing was adopted: there is nothing to restore, nor to report.
	case !st.Attached && m.now.Sub(b.Ran) > wait:
		s.Reason = "the guest kernel does not track its page cache, or not with this version of the interface"
	default:
		return
	}
	s.Done = true
	s.Outcome = "cold"
	if s.PagesApproved > 0 && s.PagesRestored > 0 {
		s.Outcome, s.Reason = "warm", ""
	} else if s.Reason == "" {
		s.Reason = coldReason(s)
		switch {
		case s.Trigger == api.Cold:
		case s.PagesAdopted > 0 && b.Fuse != nil:
			s.Reason = b.Fuse.String()
		case s.PagesAdopted == 0 && b.Lost != "":
			s.Reason = b.Lost
		case s.PagesAdopted == 0 && b.Resumed:
			s.Reason = "the domain had been suspended since its boot (saved, migrated or copied): it is tracked from this boot on"
		}
	}
	if b.Attempted && !st.Report.Done && st.Adopted > 0 {
		m.blow("its pages were approved, and nothing was heard of it any more")
	}
	if s.DomidBefore != 0 {
		s.RestoredSeconds = m.now.Sub(s.Started).Seconds()
	}
	m.finish(*s)
}

// coldReason says why nothing came back.
func coldReason(s *api.Summary) string {
	switch {
	case s.Trigger == api.Cold:
		return "a normal reboot was asked for"
	case s.PagesBefore == 0 && s.PagesPreserved == 0:
		return "the domain had no reusable pages"
	case s.PagesPreserved == 0:
		return "Xen preserved none of the pages, or gave them up: for memory that was needed, or because the new domain gets its memory on demand (memory below maxmem)"
	case s.PagesAdopted == 0:
		return "no preserved page found its place in the new domain, which has other memory, or gets it on demand (memory below maxmem)"
	case s.PagesApproved == 0:
		for _, v := range s.VBDs {
			if v.Reason != "" {
				return v.Name + ": " + v.Reason
			}
		}
		return "no page was approved"
	}
	return "the guest took no page back"
}

// finish ends a reboot.
func (m *machine) finish(s api.Summary) {
	m.log.Info("reboot ended", "sequence", s.Sequence, "outcome", s.Outcome, "reason", s.Reason,
		"preserved", s.PagesPreserved, "approved", s.PagesApproved, "restored", s.PagesRestored)
	m.Last, m.Reboot = &s, nil
	m.do(Effect{Kind: Enter, Summary: &s})
	m.save()
}
