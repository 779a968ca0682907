package api

import (
	"context"
	"net/url"
	"time"

	"github.com/warmreboot/warmreboot/ident"
)

// Sample is what a domain did in an interval, as dom0 sees it from outside.
type Sample struct {
	// At is the end of the interval, Seconds its length.
	At      time.Time   `json:"at"`
	Seconds float64     `json:"seconds"`
	Domid   ident.Domid `json:"domid"` // 0 while it is down
	// DiskRead and DiskWritten are the bytes that passed through the blkbacks of
	// its vbds, NetSent and NetReceived those that it sent and received through
	// its vifs.
	DiskRead    uint64 `json:"disk_read"`
	DiskWritten uint64 `json:"disk_written"`
	NetSent     uint64 `json:"net_sent"`
	NetReceived uint64 `json:"net_received"`
	// Reusable and Restored are pages at the end of the interval.
	Reusable uint64 `json:"reusable"`
	Restored uint64 `json:"restored"`
}

// Samples are what the daemon has seen of domains over time.
type Samples interface {
	// Samples returns those around the reboot in which the domain went down at
	// that time, in order; with the zero time, the latest. None are kept for
	// long; that there are none is no error.
	Samples(ctx context.Context, uuid ident.UUID, down time.Time) ([]Sample, error)
}

// Samples implements Samples.
func (c *Client) Samples(ctx context.Context, uuid ident.UUID, down time.Time) ([]Sample, error) {
	q := url.Values{}
	if !down.IsZero() {
		q.Set("down", down.Format(time.RFC3339Nano))
	}
	return call[[]Sample](ctx, c, "GET", "/v1/samples/"+uuid.String(), q, nil)
}

// Host is what the daemon says of itself and of Xen.
type Host struct {
	Version   string `json:"version"`   // of warmrebootd
	Warmcache string `json:"warmcache"` // whether Xen has it: "yes", "no" or "cannot tell"
	Error     string `json:"error,omitempty"`
}

// Host returns what the daemon says of itself.
func (c *Client) Host(ctx context.Context) (Host, error) {
	return call[Host](ctx, c, "GET", "/v1/host", nil, nil)
}
