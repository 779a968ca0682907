package metrics

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

// pair is a schedule and a domain that it reboots.
type pair struct {
	schedule, domain string
	uuid             ident.UUID
}

// collectSchedules is about what schedules did and will do.
func (c *Collector) collectSchedules(ctx context.Context, to *sender) error {
	f, err := c.Schedules.Forecast(ctx, "")
	if err != nil {
		return err
	}
	gauge := to.gauge
	gauge(configSuccess, number(f.Config.Error == ""))
	if !f.Config.Loaded.IsZero() {
		gauge(configLoaded, float64(f.Config.Loaded.UnixMilli())/1e3)
	}
	// Those that are not stopped and not locked are there, too, with 0.
	halted, names, isLocked := map[string]bool{}, map[ident.UUID]string{}, map[ident.UUID]bool{}
	for _, r := range f.Runs {
		halted[r.Schedule], names[r.UUID] = false, r.Domain
	}
	for _, h := range f.Halted {
		halted[h.Schedule] = true
	}
	for _, l := range f.Locks {
		names[l.UUID], isLocked[l.UUID] = l.Domain, true
	}
	counts := map[pair]map[api.RunResult]uint64{}
	for _, r := range f.Runs {
		counts[pair{r.Schedule, r.Domain, r.UUID}] = map[api.RunResult]uint64{}
		id := []string{r.UUID.String(), r.Domain, r.Schedule}
		if !r.Next.IsZero() {
			gauge(nextRun, float64(r.Next.UnixMilli())/1e3, id...)
		}
		due := 0.0
		if !r.Due.IsZero() && !r.Running {
			due = max(0, f.Now.Sub(r.Due).Seconds())
		}
		gauge(dueFor, due, id...)
		gauge(running, number(r.Running), id...)
	}
	for schedule, v := range halted {
		gauge(stopped, number(v), schedule)
	}
	for uuid, domain := range names {
		gauge(locked, number(isLocked[uuid]), uuid.String(), domain)
	}
	// Also of schedules that are no more.
	for _, n := range c.Schedules.RunCounts() {
		p := pair{n.Schedule, n.Domain, n.UUID}
		if counts[p] == nil {
			counts[p] = map[api.RunResult]uint64{}
		}
		counts[p][n.Result] = n.Times
	}
	for p, times := range counts {
		for _, result := range api.RunResults { // all from the start, as with reboots
			to.send(runs, prometheus.CounterValue, float64(times[result]), p.uuid.String(), p.domain, p.schedule, string(result))
		}
	}
	return nil
}
