package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func (c *Collector) collectScrubbing(_ context.Context, s *sender) error {
	if c.Scrubber == nil {
		return nil
	}
	for _, n := range c.Scrubber.Counts() {
		labels := []string{n.UUID.String(), n.Name, n.VBD.Name()}
		s.send(scrubCompared, prometheus.CounterValue, float64(n.Compared), labels...)
		s.send(scrubDiffer, prometheus.CounterValue, float64(n.Differed), labels...)
		s.send(scrubUnreadable, prometheus.CounterValue, float64(n.NotReadable), labels...)
		s.gauge(scrubOldest, n.Uncompared(time.Now()).Seconds(), labels...)
	}
	return nil
}
