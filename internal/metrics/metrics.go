// Package metrics is what the daemon tells Prometheus. Everything of a domain is
// labelled by UUID and name, never by domid: those change with each reboot.
package metrics

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	runtime "github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/scrub"
	"github.com/warmreboot/warmreboot/xenctl"
)

// Source is where the state of the domains comes from.
type Source interface {
	List(context.Context) ([]api.DomainStatus, error)
}

// Schedules is where the state of the schedules comes from.
type Schedules interface {
	Forecast(ctx context.Context, domain string) (api.Forecast, error)
	RunCounts() []api.RunCount
}

// Scrubber is where the figures of what is compared in the background come from.
type Scrubber interface {
	Counts() []scrub.Count
}

// Options are what a Collector needs.
type Options struct {
	Source    Source
	Schedules Schedules
	Scrubber  Scrubber // may be nil
	Version   string
	// Warmcache asks Xen whether it has the feature.
	Warmcache func() (xenctl.Feature, error)
	Log       *slog.Logger
}

// Collector collects from the agent when it is asked, and counts the reboots that
// Finished tells it of. Reboots from before it was made are not counted: to
// Prometheus that is a counter which began anew.
type Collector struct {
	Options

	mu   sync.Mutex
	done map[ident.UUID]*finished
	// reported is why each collector failed last, "" if it did not.
	reported map[string]string
}

var _ prometheus.Collector = (*Collector)(nil)

// New makes a Collector.
func New(o Options) *Collector {
	return &Collector{Options: o, done: map[ident.UUID]*finished{}, reported: map[string]string{}}
}

// Handler serves the collector's figures, and those of the process. What is wrong
// with one figure keeps none of the others back.
func (c *Collector) Handler() http.Handler {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c, runtime.NewGoCollector(), runtime.NewProcessCollector(runtime.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorLog: slogPrinter{c.Log}, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: collectTime})
}

// slogPrinter is promhttp's logger.
type slogPrinter struct{ log *slog.Logger }

func (s slogPrinter) Println(v ...any) { s.log.Warn("metrics", "err", v) }

// collectTime is how long asking for the domains may take.
const collectTime = 10 * time.Second

// finished counts the reboots of a domain that have ended.
type finished struct {
	reboots  map[kind]uint64
	refused  map[string]uint64 // by the guest
	updates  map[api.UpdateOutcome]uint64
	down     histogram
	restored histogram
}

type kind struct {
	trigger api.Trigger
	outcome api.Outcome
}

// bounds are those of both histograms, in seconds.
var bounds = []float64{1, 2, 5, 10, 20, 30, 60, 120, 300}

// histogram has cumulative counts by bounds.
type histogram struct {
	count  uint64
	sum    float64
	counts [9]uint64
}

func (h *histogram) observe(v float64) {
	h.count++
	h.sum += v
	for i, b := range bounds {
		if v <= b {
			h.counts[i]++
		}
	}
}

func (h *histogram) buckets() map[float64]uint64 {
	m := map[float64]uint64{}
	for i, b := range bounds {
		m[b] = h.counts[i]
	}
	return m
}

func newFinished() *finished {
	return &finished{reboots: map[kind]uint64{}, refused: map[string]uint64{}, updates: map[api.UpdateOutcome]uint64{}}
}

// of returns what is counted of a domain. c.mu is held.
func (c *Collector) of(uuid ident.UUID) *finished {
	f := c.done[uuid]
	if f == nil {
		f = newFinished()
		c.done[uuid] = f
	}
	return f
}

// Updated counts an update that has ended.
func (c *Collector) Updated(uuid ident.UUID, outcome api.UpdateOutcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of(uuid).updates[outcome]++
}

// Finished counts a reboot that has ended.
func (c *Collector) Finished(s api.Summary) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.of(s.UUID)
	f.reboots[kind{s.Trigger, s.Outcome}]++
	for reason, n := range s.Refused {
		f.refused[reason] += n
	}
	if s.Trigger == api.Off {
		return // how long it was away is up to whoever switched it off
	}
	if s.DownSeconds > 0 {
		f.down.observe(s.DownSeconds)
	}
	if s.RestoredSeconds > 0 && s.Outcome == api.OutcomeWarm {
		f.restored.observe(s.RestoredSeconds)
	}
}

// Forget forgets a domain that will not come back: else a host on which domains come
// and go would count for each of them for ever.
func (c *Collector) Forget(uuid ident.UUID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.done, uuid)
}

// snapshot copies what is counted of a domain.
func (c *Collector) snapshot(uuid ident.UUID) *finished {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.done[uuid]
	if f == nil {
		return newFinished()
	}
	s := newFinished()
	for k, n := range f.reboots {
		s.reboots[k] = n
	}
	for r, n := range f.refused {
		s.refused[r] = n
	}
	for o, n := range f.updates {
		s.updates[o] = n
	}
	s.down, s.restored = f.down, f.restored
	return s
}
