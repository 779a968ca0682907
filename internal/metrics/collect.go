package metrics

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("warmreboot_"+name, help, labels, nil)
}

// ofDomain are figures of a domain, with more labels where said.
func ofDomain(name, help string, labels ...string) *prometheus.Desc {
	return desc(name, help, append([]string{"uuid", "name"}, labels...)...)
}

var (
	buildInfo    = desc("build_info", "1, with the version of warmrebootd.", "version")
	xenWarmcache = desc("xen_warmcache", "Whether this Xen has the warm cache: 1 yes, 0 no or it cannot be told.")
	listSuccess  = desc("domains_success", "Whether Xen could be asked for its domains.")
	success      = desc("collector_success", "Whether all figures of a kind could be collected; the journal says why not.", "collector")
	seconds      = desc("collector_duration_seconds", "Time that collecting the figures of a kind took.", "collector")

	up        = ofDomain("domain_up", "Whether the domain is there and has not shut down.")
	enabled   = ofDomain("domain_enabled", "Whether Xen tracks the domain's pages.")
	attached  = ofDomain("domain_tracked", "Whether the guest's kernel tracks its page cache.")
	underWay  = ofDomain("reboot_under_way", "Whether the domain is in a reboot.")
	tracked   = ofDomain("pages_tracked", "Pages of 4 KiB that Xen knows a disk block of, those with I/O under way included.")
	reusable  = ofDomain("pages_reusable", "Pages of 4 KiB that would come back after a reboot now.")
	held      = ofDomain("pages_held", "Pages of 4 KiB from before the last reboot that the guest has not given up or written to.")
	preserved = ofDomain("pages_preserved", "Pages of 4 KiB that Xen has preserved of the domain, while it is down.")
	memory    = ofDomain("memory_pages", "Pages of 4 KiB that the domain has.")
	coverage  = ofDomain("coverage_ratio", "Reusable pages as a share of the domain's memory.")
	tableLow  = ofDomain("table_memory_bytes", "Least memory that Xen uses for the cache-mapping table: that of the entries in use.")
	tableHigh = ofDomain("table_memory_limit_bytes", "Most memory that Xen would use for the cache-mapping table, its index and the bitmaps.")

	writeFaults   = ofDomain("write_faults_total", "Writes of the guest to protected pages, since the domain was created.")
	foreignWrites = ofDomain("foreign_writes_total", "Pages forgotten as somebody else had write access, since the domain was created.")
	p2mChanges    = ofDomain("p2m_changes_total", "Pages forgotten as they were removed or replaced, since the domain was created.")
	replaced      = ofDomain("replaced_total", "Pages forgotten as their block was read or written elsewhere, since the domain was created.")
	hypercalls    = ofDomain("hypercalls_total", "Hypercalls of the guest about its page cache, since the domain was created.")
	registered    = ofDomain("registered_total", "Pages announced by the guest, since the domain was created.")
	commits       = ofDomain("commits_total", "Pages whose I/O has ended, since the domain was created.")
	untrackable   = ofDomain("untrackable_total", "Pages that could not be tracked, since the domain was created.")

	custody = ofDomain("disk_custody_certain", "Whether it is certain that only the guest has written to the disk.", "vbd")
	refused = ofDomain("refused_pages_total", "Pages that the agent did not let come back, since the domain was enabled.", "vbd", "reason")

	scrubCompared   = ofDomain("scrub_pages_total", "Reusable pages that were compared with their disk in the background, since the agent was started.", "vbd")
	scrubDiffer     = ofDomain("scrub_differences_total", "Pages that were found to differ thereby: nobody knows why.", "vbd")
	scrubUnreadable = ofDomain("scrub_unreadable_total", "Pages that could not be compared, as they or their block could not be read.", "vbd")
	scrubOldest     = ofDomain("scrub_oldest_seconds", "For how long at most a page may have been reusable without having been compared.", "vbd")

	reboots      = ofDomain("reboots_total", "Reboots that have ended, since the agent was started.", "kind", "result")
	updates      = ofDomain("updates_total", "Updates to another kernel that have ended, since the agent was started.", "result")
	guestRefused = ofDomain("guest_refused_pages_total", "Approved or held pages that the guest did not take back, since the agent was started.", "reason")
	downTime     = ofDomain("reboot_down_seconds", "Time from a shutdown until the new domain ran, since the agent was started.")
	restoreTime  = ofDomain("reboot_restore_seconds", "Time from a shutdown until the last page was restored, of warm reboots since the agent was started.")

	configSuccess = desc("config_success", "Whether the files in the directory of the configuration are right, and in force.")
	configLoaded  = desc("config_loaded_timestamp_seconds", "When the configuration in force was read.")
	stopped       = desc("schedule_stopped", "Whether the schedule is stopped, until somebody resumes it.", "schedule")
	locked        = ofDomain("domain_locked", "Whether somebody, or a run of a schedule, has locked the domain.")
	nextRun       = ofDomain("schedule_next_run_timestamp_seconds", "When the schedule reboots the domain if nothing changes, if that can be told.", "schedule")
	dueFor        = ofDomain("schedule_due_seconds", "For how long the domain has been due without a reboot having begun; 0 if it is not due.", "schedule")
	running       = ofDomain("schedule_running", "Whether the schedule reboots the domain now.", "schedule")
	runs          = ofDomain("schedule_runs_total", "Runs of the schedule that have ended or were missed, since the agent was started.", "schedule", "result")

	lastTime      = ofDomain("last_reboot_timestamp_seconds", "When the domain last went down to reboot.")
	lastWarm      = ofDomain("last_reboot_warm", "Whether the last reboot was warm.", "kind")
	lastDown      = ofDomain("last_reboot_down_seconds", "Time from the last shutdown until the new domain ran.")
	lastRestore   = ofDomain("last_reboot_restore_seconds", "Time from the last shutdown until no held page was left.")
	lastBefore    = ofDomain("last_reboot_pages_before", "Pages that were reusable when the domain last went down.")
	lastPreserved = ofDomain("last_reboot_pages_preserved", "Pages that Xen preserved in the last reboot.")
	lastRestored  = ofDomain("last_reboot_pages_restored", "Pages that the guest says to have taken back in the last reboot.")
)

var descs = []*prometheus.Desc{buildInfo, xenWarmcache, listSuccess, success, seconds, up, enabled, attached, underWay, tracked, reusable, held, preserved,
	memory, coverage, tableLow, tableHigh, writeFaults, foreignWrites, p2mChanges, replaced, hypercalls, registered, commits,
	untrackable, custody, refused, scrubCompared, scrubDiffer, scrubUnreadable, scrubOldest, reboots, updates, guestRefused, downTime, restoreTime,
	configSuccess, configLoaded, stopped, locked, nextRun, dueFor, running, runs, lastTime, lastWarm, lastDown, lastRestore,
	lastBefore, lastPreserved, lastRestored}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range descs {
		to <- d
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// collectors are the kinds of figures. Each fails by itself.
var collectors = []struct {
	name    string
	collect func(*Collector, context.Context, *sender) error
}{
	{"host", (*Collector).collectHost},
	{"schedules", (*Collector).collectSchedules},
	{"scrubbing", (*Collector).collectScrubbing},
	{"domains", (*Collector).collectDomains},
}

// Collect implements prometheus.Collector. Whatever fails, be it by a panic, loses
// its own figures only, and says so; it never ends the daemon.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTime)
	defer cancel()
	s := &sender{to: to, sent: map[string]bool{}}
	for _, k := range collectors {
		start := time.Now()
		err := s.guard(func() error { return k.collect(c, ctx, s) })
		c.report(k.name, err)
		s.gauge(success, number(err == nil), k.name)
		s.gauge(seconds, time.Since(start).Seconds(), k.name)
	}
}

// report logs why a collector failed, once for each reason.
func (c *Collector) report(name string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	c.mu.Lock()
	known := c.reported[name] == text
	c.reported[name] = text
	c.mu.Unlock()
	switch {
	case known:
	case err != nil:
		c.Log.Warn("figures cannot be collected", "op", name, "err", err, "next", "warmreboot_collector_success is 0 until they can")
	default:
		c.Log.Info("figures are collected again", "op", name)
	}
}

// sender sends metrics. Two of one name and labels are none for Prometheus, which
// would refuse all there is: the first counts.
type sender struct {
	to   chan<- prometheus.Metric
	sent map[string]bool
	errs []error // of the collector that runs
}

// guard runs a collector and returns what went wrong in it.
func (s *sender) guard(collect func() error) (err error) {
	s.errs = nil
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a fault of warmrebootd's: %v at %s", p, panicked())
		}
	}()
	err = collect()
	return errors.Join(append(s.errs, err)...)
}

// panicked returns the place of the panic that is being recovered from.
func panicked() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	for seen := false; ; {
		f, more := frames.Next()
		if seen && !strings.HasPrefix(f.Function, "runtime.") {
			return fmt.Sprintf("%s:%d", f.File, f.Line)
		}
		seen = seen || f.Function == "runtime.gopanic"
		if !more {
			return "a place that cannot be told"
		}
	}
}

// labels makes label values of what may be of any bytes, and reports whether the
// series is a new one.
func (s *sender) labels(d *prometheus.Desc, labels []string) ([]string, bool) {
	valid := make([]string, len(labels))
	for i, l := range labels {
		valid[i] = ident.UTF8(l)
	}
	key := fmt.Sprintf("%p %q", d, valid)
	if s.sent[key] {
		s.errs = append(s.errs, fmt.Errorf("two series have the labels %q", valid))
		return nil, false
	}
	s.sent[key] = true
	return valid, true
}

func (s *sender) keep(m prometheus.Metric, err error) {
	if err != nil {
		s.errs = append(s.errs, err)
		return
	}
	s.to <- m
}

func (s *sender) send(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
	if valid, ok := s.labels(d, labels); ok {
		s.keep(prometheus.NewConstMetric(d, t, v, valid...))
	}
}

func (s *sender) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.send(d, prometheus.GaugeValue, v, labels...)
}

func (s *sender) histogram(d *prometheus.Desc, h *histogram, labels ...string) {
	if valid, ok := s.labels(d, labels); ok {
		s.keep(prometheus.NewConstHistogram(d, h.count, h.sum, h.buckets(), valid...))
	}
}

func (c *Collector) collectHost(_ context.Context, s *sender) error {
	s.gauge(buildInfo, 1, c.Version)
	feature, _ := c.Warmcache() // why it cannot be told, doctor says
	s.gauge(xenWarmcache, number(feature == xenctl.Yes))
	return nil
}

// collectDomains leaves out domains that are neither managed nor known to Xen's warm
// cache.
func (c *Collector) collectDomains(ctx context.Context, to *sender) error {
	all, err := c.Source.List(ctx)
	to.gauge(listSuccess, number(err == nil))
	if err != nil {
		return err
	}
	for i := range all {
		if s := &all[i]; s.Managed || s.Enabled {
			c.collectDomain(to, s)
		}
	}
	return nil
}

// Memory of Xen's tables, in bytes; see docs/ARCHITECTURE.md and Xen's
// arch/x86/mm/warmcache.c.
const (
	frame      = 4096
	entrySize  = 32
	metaSize   = 8
	headSize   = 4 // by hash of the sector, one for each 8 PFNs or more
	wordSize   = 8
	pfnsOfWord = 64
)

// tableLimit returns the most that the tables of a domain can take: all of their
// frames, and the pointers to those.
func tableLimit(maxPFN uint64) uint64 {
	if maxPFN == 0 {
		return 0
	}
	buckets := uint64(1)
	for n := (maxPFN - 1) >> 3; n > 0; n >>= 1 {
		buckets <<= 1
	}
	words := (maxPFN + pfnsOfWord - 1) / pfnsOfWord
	var frames uint64
	for _, bytes := range []uint64{maxPFN * entrySize, maxPFN * metaSize, buckets * headSize, words * wordSize, words * wordSize} {
		frames += (bytes + frame - 1) / frame
	}
	return frames * (frame + 8)
}

func (c *Collector) collectDomain(to *sender, s *api.DomainStatus) {
	id := []string{s.UUID.String(), s.Domain}
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		to.send(d, t, v, append(slices.Clone(id), labels...)...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) { send(d, prometheus.GaugeValue, v, labels...) }
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		send(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(up, number(s.State == "running" || s.State == "paused"))
	gauge(enabled, number(s.Enabled))
	gauge(attached, number(s.Attached))
	gauge(underWay, number(s.Current != nil))
	gauge(tracked, float64(s.Committed+s.Pending))
	gauge(reusable, float64(s.Committed))
	gauge(held, float64(s.Held))
	gauge(preserved, float64(s.ImagePages))
	gauge(memory, float64(s.MemoryPages))
	if s.MemoryPages > 0 {
		gauge(coverage, float64(s.Committed)/float64(s.MemoryPages))
	}
	gauge(tableLow, float64((s.Committed+s.Pending)*(entrySize+metaSize)))
	gauge(tableHigh, float64(tableLimit(s.MaxPFN)))
	if s.Enabled { // else there are no counters, which is not 0
		counter(writeFaults, s.WriteFaults)
		counter(foreignWrites, s.ForeignWrites)
		counter(p2mChanges, s.P2MChanges)
		counter(replaced, s.Replaced)
		counter(hypercalls, s.Hypercalls)
		counter(registered, s.Registered)
		counter(commits, s.Commits)
		counter(untrackable, s.Untrackable)
	}
	for _, v := range s.Custody {
		gauge(custody, number(v.State == "certain"), v.Name)
	}
	for _, v := range s.Refusals {
		for _, r := range v.Refusals {
			counter(refused, r.Pages, v.Name, string(r.Reason))
		}
	}
	c.collectReboots(to, s, id)
	if l := s.Last; l != nil {
		gauge(lastTime, float64(l.Started.UnixMilli())/1e3)
		gauge(lastWarm, number(l.Outcome == api.OutcomeWarm), string(l.Trigger))
		gauge(lastDown, l.DownSeconds)
		gauge(lastRestore, l.RestoredSeconds)
		gauge(lastBefore, float64(l.PagesBefore))
		gauge(lastPreserved, float64(l.PagesPreserved))
		gauge(lastRestored, float64(l.PagesRestored))
	}
}

// Every kind and result is there from the start: the first increment of a series
// that was not there is one that Prometheus does not see.
var (
	kinds   = []api.Trigger{api.Graceful, api.Force, api.Cold, api.Guest, api.Crash, api.Off, api.Unknown}
	results = api.Outcomes
)

func (c *Collector) collectReboots(to *sender, s *api.DomainStatus, id []string) {
	f := c.snapshot(s.UUID)
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		to.send(d, prometheus.CounterValue, float64(n), append(slices.Clone(id), labels...)...)
	}
	for _, k := range kinds {
		for _, r := range results {
			count(reboots, f.reboots[kind{k, r}], string(k), string(r))
		}
	}
	for reason, n := range f.refused {
		count(guestRefused, n, reason)
	}
	for _, o := range api.UpdateOutcomes {
		count(updates, f.updates[o], string(o))
	}
	to.histogram(downTime, &f.down, id...)
	to.histogram(restoreTime, &f.restored, id...)
}
