// Package schedule decides which domains are to be rebooted now, and says why,
// or why not yet. It knows what it is given and does nothing: no clock, no
// files, no domains.
//
// The clock is not trusted. Nothing is begun, missed or remembered while it may be
// wrong (see Clock); a remembered time that lies in the future is taken for now, as
// what was to be after it must not wait for a clock that was set back, unless a run
// was begun at that time: that is not begun again.
package schedule

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/ident"
)

// Rule is when the domains that it matches are to be rebooted. They are if any
// of Cron, Every and Triggers says so.
type Rule struct {
	Name     string
	Match    Match
	Cron     []Cron
	Every    time.Duration // since the domain's boot; 0: never
	Triggers []Trigger

	Location *time.Location
	Windows  []Window
	// CatchUp: a run that was missed comes as soon as it can; else it is left
	// out. MissedAfter is how late a run may be without being missed. Runs that
	// wait for their turn are not.
	CatchUp     bool
	MissedAfter time.Duration
	// Distance is the least time that the domain has been up, whoever wanted its
	// last reboot.
	Distance time.Duration
	// Retry is how long after a failure it is tried again.
	Retry time.Duration
	// Order: lower ones first. AtOnce: how many domains of this rule (0: any
	// number), and Stagger how long after one the next may begin.
	Order   int
	AtOnce  int
	Stagger time.Duration
	// Updates: its runs give a domain another kernel, for which a boot since is no
	// substitute: that was of the one before.
	Updates bool
	// DryRun: it reboots nothing, and so takes no other rule's turn.
	DryRun bool
}

// Match selects domains, by name, pattern (as in path.Match) or UUID.
type Match struct{ Domains, Exclude []string }

// Of reports whether a domain is selected.
func (m Match) Of(name string, uuid ident.UUID) bool {
	return matches(m.Domains, name, uuid) && !matches(m.Exclude, name, uuid)
}

func matches(patterns []string, name string, uuid ident.UUID) bool {
	for _, p := range patterns {
		if ok, _ := path.Match(p, name); ok || strings.EqualFold(p, uuid.String()) {
			return true
		}
	}
	return false
}

// Group is domains of which one at most is down or being rebooted at any time.
type Group struct {
	Name  string
	Match Match
	// Distance is how long a member has to be up before another is rebooted.
	Distance time.Duration
}

// Limits are those of the host.
type Limits struct {
	AtOnce  int // how many domains; 0: any number
	Stagger time.Duration
}

// Domain is what is known of a domain now.
type Domain struct {
	Name string
	UUID ident.UUID
	Up   bool
	// Busy is why it must be left alone, as it is being rebooted by somebody.
	Busy string
	// Locked is by whom it is locked.
	Locked string
	// Age is for how long it has been up, by a clock that does not jump.
	Age time.Duration
}

// Key names what is remembered of a rule and a domain.
type Key struct {
	Rule string
	UUID ident.UUID
}

// Memory is what is remembered of a rule and a domain from one decision to the
// next, and over restarts.
type Memory struct {
	// Handled: cron's times up to here are done with.
	Handled time.Time `json:"handled"`
	// Begun is when a run was last begun. If the clock is set back by less than
	// setBack, cron's times up to here come a second time, and are done with.
	Begun time.Time `json:"begun,omitzero"`
	// Cron and Lasting are what the rule says of times, and of what makes a domain
	// due until it is done. What was written anew counts from when it was read: a file
	// that is saved has nothing rebooted.
	Cron    string `json:"cron,omitempty"`
	Lasting string `json:"lasting,omitempty"`
	// Read is when the latter was first seen.
	Read time.Time `json:"read,omitzero"`
	// Waiting is cron's time of a run that was not too late, and waits for its
	// turn.
	Waiting time.Time `json:"waiting,omitzero"`
	// NotBefore is when it may be tried again after a failure.
	NotBefore time.Time `json:"not_before,omitzero"`
}

// Input is all that a decision depends on.
type Input struct {
	Now time.Time
	// Unsteady is for how long the clock is not to be trusted yet; see Clock.
	Unsteady time.Duration
	Rules    []*Rule
	Groups   []Group
	Limits   Limits
	Domains  []Domain
	Memory   map[Key]Memory
	// Trends are those of a rule's triggers, in their order.
	Trends map[Key][]Trend
	// Stopped rules, and why.
	Stopped map[string]string
	// Started is how long ago a rule last began a reboot, by a clock that does not
	// jump; that of "" is of any rule.
	Started map[string]time.Duration
	// Running is which rule reboots a domain now.
	Running map[ident.UUID]string
	// Forecast: say when those will be rebooted that are not due. It takes far
	// longer than to decide.
	Forecast bool
}

// Item is what was decided about a domain under a rule.
type Item struct {
	Rule   *Rule
	Domain string
	UUID   ident.UUID
	// Start: it is to be rebooted now. Memory has to be kept before that.
	Start bool
	// Due is since when it is; zero if it is not.
	Due time.Time
	Why string // it is due, or will be
	// Blocked is why it is not rebooted though it is due.
	Blocked string
	// Skipped is the time of a run that was missed and left out just now.
	Skipped time.Time
	// Next is when it will be rebooted if nothing changes: for a trigger an
	// estimate, zero if there is nothing to tell it by, or no forecast was wanted.
	Next   time.Time
	Memory Memory
}

// Decide decides about each domain under each rule that matches it, in the
// order in which they come.
func Decide(in Input) []Item {
	in.Now = Shown(in.Now)
	var items []Item
	for _, r := range in.Rules {
		for _, d := range in.Domains {
			if r.Match.Of(d.Name, d.UUID) {
				items = append(items, consider(in, r, d))
			}
		}
	}
	slices.SortStableFunc(items, func(a, b Item) int {
		return cmp.Or(later(a.Due.IsZero(), b.Due.IsZero()), cmp.Compare(a.Rule.Order, b.Rule.Order), a.Due.Compare(b.Due),
			later(a.Next.IsZero(), b.Next.IsZero()), a.Next.Compare(b.Next), cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Rule.Name, b.Rule.Name))
	})
	return queue(in, items)
}

// later orders false before true.
func later(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// setBack is by how much a clock is set back at most if what it showed before
// counts. A clock that was further ahead was wrong, and nothing waits for the time
// that it showed.
const setBack = 24 * time.Hour

// settling is how long after what makes a domain due was written it is not yet
// rebooted for it: whoever wrote it can look at the plan.
const settling = time.Hour

// cronText and lastingText are what of a rule makes a domain due.
func (r *Rule) cronText() string {
	return fmt.Sprint(r.Cron, " ", r.Location, " ", r.CatchUp, " ", r.MissedAfter)
}

func (r *Rule) lastingText() string { return fmt.Sprint(r.Every, " ", r.Triggers) }

// recall is what is remembered of a domain under a rule, as the rule and the clock
// are now.
func (r *Rule) recall(in Input, key Key) Memory {
	m, known := in.Memory[key]
	cron, lasting := r.cronText(), r.lastingText()
	if !known || m.Cron != "" && m.Cron != cron {
		m.Handled, m.Waiting = in.Now, time.Time{}
	}
	if !known || m.Lasting != "" && m.Lasting != lasting {
		m.Read = in.Now
	}
	m.Cron, m.Lasting = cron, lasting
	if m.Begun.After(in.Now.Add(setBack)) {
		m.Begun = time.Time{}
	}
	if m.Handled.After(in.Now) {
		m.Handled = in.Now
	}
	if m.Begun.After(m.Handled) {
		m.Handled = m.Begun
	}
	if m.Waiting.After(in.Now) { // it comes again
		m.Waiting = time.Time{}
	}
	if m.Read.After(in.Now) {
		m.Read = in.Now
	}
	if latest := in.Now.Add(r.Retry); m.NotBefore.After(latest) {
		m.NotBefore = latest
	}
	return m
}

// consider looks at one domain under one rule, whatever the others do.
func consider(in Input, r *Rule, d Domain) Item {
	key := Key{r.Name, d.UUID}
	m := r.recall(in, key)
	it := Item{Rule: r, Domain: d.Name, UUID: d.UUID, Memory: m}

	if r.Every > 0 && d.Up && d.Age >= r.Every {
		it.due(in.Now.Add(r.Every-d.Age), fmt.Sprintf("up for %s, every %s", FormatDuration(d.Age), FormatDuration(r.Every)))
	}
	for i, g := range r.Triggers {
		if trends := in.Trends[key]; i < len(trends) {
			if fires, why := g.Fires(trends[i]); fires {
				it.due(in.Now, why)
			}
		}
	}
	lasting := !it.Due.IsZero() // it stays due until it is done
	// A boot since is as good as the run would have been.
	since := m
	if booted := in.Now.Add(-d.Age); d.Up && !r.Updates && booted.After(since.Handled) {
		since.Handled = booted
	}
	at, cron, missed := r.lastRun(since, in.Now)
	if !at.IsZero() {
		switch why := "cron " + cron; {
		case !missed:
			it.due(at, why)
		case r.CatchUp:
			it.due(at, why+", to be caught up")
		case in.Unsteady == 0:
			it.Skipped = at
			it.Memory.Handled, it.Memory.Waiting = in.Now, time.Time{}
		}
	}
	if it.Due.IsZero() {
		if in.Forecast {
			if it.Memory.Handled.After(since.Handled) {
				since = it.Memory
			}
			it.Next, it.Why = r.forecast(in, d, since)
		}
		return it.unless(in, key)
	}
	it.Blocked, it.Next = blocked(in, r, d, it.Memory)
	counts := it.Memory.Read.Add(settling)
	if lasting && at.IsZero() && it.Blocked == "" && counts.After(in.Now) {
		it.Blocked = "what makes it due was written at " + r.show(it.Memory.Read) + ", and counts from " + r.show(counts)
		it.Next, _ = Open(r.Windows, counts, r.Location)
	}
	if it.Blocked != "" && !lasting {
		it.Memory.Waiting = time.Time{} // it is late for another reason than its turn
	}
	return it.unless(in, key)
}

// unless has nothing remembered that was found out with a clock that may be wrong.
func (it Item) unless(in Input, key Key) Item {
	if in.Unsteady > 0 {
		it.Memory = in.Memory[key]
	}
	return it
}

func (it *Item) due(since time.Time, why string) {
	if it.Due.IsZero() || since.Before(it.Due) {
		it.Due = since
	}
	if it.Why != "" {
		it.Why += "; "
	}
	it.Why += why
}

// lastRun returns the time of a run of cron that is not done with yet: if there
// is one that is not missed, that; else the first that was.
func (r *Rule) lastRun(m Memory, now time.Time) (at time.Time, expr string, missed bool) {
	if len(r.Cron) > 0 && m.Waiting.After(m.Handled) {
		return m.Waiting, r.Cron[0].String(), false
	}
	fresh := now.Add(-r.MissedAfter)
	if m.Handled.After(fresh) {
		fresh = m.Handled
	}
	for _, from := range []time.Time{fresh, m.Handled} {
		for _, c := range r.Cron {
			if t, ok := c.Next(from, r.Location); ok && !t.After(now) && (at.IsZero() || t.Before(at)) {
				at, expr, missed = t, c.String(), !from.Equal(fresh)
			}
		}
		if !at.IsZero() || fresh.Equal(m.Handled) {
			break
		}
	}
	return at, expr, missed
}

// blocked returns why a domain that is due cannot be rebooted now, apart from
// what others do, and when it can.
func blocked(in Input, r *Rule, d Domain, m Memory) (why string, next time.Time) {
	next, _ = Open(r.Windows, r.notBefore(in, d, m), r.Location)
	if reason, ok := in.Stopped[r.Name]; ok {
		return "the schedule is stopped: " + reason, time.Time{}
	}
	switch {
	case !d.Up:
		return "the domain does not run", time.Time{}
	case d.Busy != "":
		return d.Busy, time.Time{}
	case d.Locked != "":
		return d.Locked, time.Time{}
	case in.Unsteady > 0:
		return "the clock was set, and is trusted in " + FormatDuration(in.Unsteady), next
	case m.NotBefore.After(in.Now):
		return "the last attempt failed, or was a dry run; it is tried again from " + r.show(m.NotBefore), next
	case d.Age < r.Distance:
		return fmt.Sprintf("up for %s, less than %s", FormatDuration(d.Age), FormatDuration(r.Distance)), next
	}
	if opens, _ := Open(r.Windows, in.Now, r.Location); opens.After(in.Now) {
		return "outside its windows; the next opens at " + r.show(opens), next
	}
	return "", in.Now
}

// notBefore is the first time at which the domain may be rebooted, windows
// aside.
func (r *Rule) notBefore(in Input, d Domain, m Memory) time.Time {
	t := in.Now.Add(in.Unsteady)
	for _, o := range []time.Time{m.NotBefore, in.Now.Add(r.Distance - d.Age)} {
		if o.After(t) {
			t = o
		}
	}
	return t
}

func (r *Rule) show(t time.Time) string { return t.In(r.Location).Format("2006-01-02 15:04 MST") }

// forecast returns when a domain that is not due will be rebooted, and why.
func (r *Rule) forecast(in Input, d Domain, m Memory) (next time.Time, why string) {
	if reason, ok := in.Stopped[r.Name]; ok {
		return time.Time{}, "the schedule is stopped: " + reason
	}
	earliest := r.notBefore(in, d, m)
	sooner := func(t time.Time, reason string) {
		if next.IsZero() || t.Before(next) {
			next, why = t, reason
		}
	}
	for _, c := range r.Cron {
		if run, start, ok := r.firstRun(c, m.Handled, earliest); ok {
			reason := "cron " + c.String()
			if start.After(run) {
				reason += " at " + r.show(run) + ", then windows and distance"
			}
			sooner(start, reason)
		} else if why == "" {
			why = "cron " + c.String() + " never comes in its windows"
		}
	}
	if r.Every > 0 && d.Up {
		at := in.Now.Add(r.Every - d.Age)
		if earliest.After(at) {
			at = earliest
		}
		opens, _ := Open(r.Windows, at, r.Location)
		sooner(opens, fmt.Sprintf("every %s since boot; up for %s", FormatDuration(r.Every), FormatDuration(d.Age)))
	}
	for i, g := range r.Triggers {
		t := Trend{}
		if trends := in.Trends[Key{r.Name, d.UUID}]; i < len(trends) {
			t = trends[i]
		}
		_, reason := g.Fires(t)
		if left, ok := g.Reaches(t); ok {
			at := in.Now.Add(left)
			if earliest.After(at) {
				at = earliest
			}
			opens, _ := Open(r.Windows, at, r.Location)
			sooner(opens, reason+", if it goes on like this")
		} else if why == "" {
			why = reason
		}
	}
	return next, why
}

// searched is how many times of cron firstRun looks at, at most. Each is followed
// by the next that is not too early for a window, so that they are a day apart if
// all hours of the windows are past or to come, and a year or four if it is the
// day that does not fit. What fits at all does so within three years for the
// former (a change of the clock may be what makes it fit), and within forty, the
// longest that a 29 February takes to fall on a given weekday, for the latter.
const searched = 1200

// firstRun returns the first time of cron after the given one that leads to a
// reboot not before earliest, and when that is.
func (r *Rule) firstRun(c Cron, after, earliest time.Time) (run, start time.Time, ok bool) {
	for range searched {
		if run, ok = c.Next(after, r.Location); !ok {
			return run, start, false
		}
		start = run
		if earliest.After(start) {
			start = earliest
		}
		start, _ = Open(r.Windows, start, r.Location)
		if start.IsZero() {
			return run, start, false
		}
		if r.CatchUp || start.Sub(run) <= r.MissedAfter {
			return run, start, true
		}
		// Whatever comes before start cannot begin before it, either: the next to
		// try is the first that would not be too late then.
		after = start.Add(-r.MissedAfter - 1)
	}
	return run, start, false
}

// anyDay is where NeverRuns begins to search: what is written in a file must not
// be right on one day and wrong on another.
var anyDay = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// NeverRuns reports whether no time of an expression leads to a reboot: none
// falls into the rule's windows.
func (r *Rule) NeverRuns(c Cron) bool {
	_, _, ok := r.firstRun(c, anyDay, anyDay)
	return !ok
}

// queue decides which of those that are due, and may, begin now.
func queue(in Input, items []Item) []Item {
	busy, ofRule := 0, map[string]int{}
	for _, d := range in.Domains {
		if d.Busy != "" {
			busy++
		}
	}
	for _, r := range in.Running {
		ofRule[r]++
	}
	started := maps.Clone(in.Started)
	if started == nil {
		started = map[string]time.Duration{}
	}
	begun := map[ident.UUID]string{}
	for i := range items {
		it := &items[i]
		if it.Due.IsZero() || it.Blocked != "" {
			continue
		}
		r := it.Rule
		wait := func(format string, args ...any) { it.Blocked = "waits for its turn: " + fmt.Sprintf(format, args...) }
		early := func(rule string, gap time.Duration) bool {
			ago, ok := started[rule]
			return ok && ago < gap
		}
		switch {
		case begun[it.UUID] != "":
			wait("schedule %s reboots it now", begun[it.UUID])
		case in.Limits.Full(busy) != "":
			wait("%s", in.Limits.Full(busy))
		case r.AtOnce > 0 && ofRule[r.Name] >= r.AtOnce:
			wait("%d of this schedule being rebooted, at most %d at once", ofRule[r.Name], r.AtOnce)
		case early("", in.Limits.Stagger):
			wait("%s after the last one", FormatDuration(in.Limits.Stagger))
		case early(r.Name, r.Stagger):
			wait("%s after the schedule's last one", FormatDuration(r.Stagger))
		default:
			if why := Companion(in.Groups, in.Domains, it.Domain, it.UUID, begun); why != "" {
				wait("%s", why)
			}
		}
		if it.Blocked != "" {
			if it.Memory.Waiting.IsZero() && it.Due.After(it.Memory.Handled) {
				it.Memory.Waiting = it.Due
			}
			continue
		}
		it.Start = true
		it.Memory.Handled, it.Memory.Begun, it.Memory.Waiting = in.Now, in.Now, time.Time{}
		ofRule[r.Name]++
		started[r.Name] = 0
		if !r.DryRun {
			begun[it.UUID] = r.Name
			busy++
			started[""] = 0
		}
	}
	return items
}

// Full returns why no other domain may be rebooted while so many are, or "".
func (l Limits) Full(busy int) string {
	if l.AtOnce > 0 && busy >= l.AtOnce {
		return fmt.Sprintf("%d being rebooted, at most %d at once", busy, l.AtOnce)
	}
	return ""
}

// Companion returns why a domain has to wait for another of its groups, or "". begun
// has those that a reboot was just begun of, if they are not yet busy.
func Companion(groups []Group, domains []Domain, name string, uuid ident.UUID, begun map[ident.UUID]string) string {
	for _, g := range groups {
		if !g.Match.Of(name, uuid) {
			continue
		}
		for _, o := range domains {
			if o.UUID == uuid || !g.Match.Of(o.Name, o.UUID) {
				continue
			}
			switch {
			case o.Busy != "" || begun[o.UUID] != "":
				return fmt.Sprintf("%s of group %s is being rebooted", o.Name, g.Name)
			case !o.Up:
				return fmt.Sprintf("%s of group %s does not run", o.Name, g.Name)
			case o.Age < g.Distance:
				return fmt.Sprintf("%s of group %s has been up for %s, less than %s", o.Name, g.Name, FormatDuration(o.Age), FormatDuration(g.Distance))
			}
		}
	}
	return ""
}
