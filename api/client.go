package api

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Client is a Service that asks a daemon.
type Client struct{ socket string }

var (
	_ Service   = (*Client)(nil)
	_ Schedules = (*Client)(nil)
	_ Samples   = (*Client)(nil)
)

// DefaultSocket is where the daemon listens, unless told otherwise.
const DefaultSocket = "/run/warmreboot/agent.sock"

// NewClient returns a client of the daemon at a socket. It connects when it is
// used, once for each request.
func NewClient(socket string) *Client { return &Client{socket} }

// domainPath returns an escaped path below /v1/domains. Whatever bytes a name has,
// it is one segment: neither a slash nor ".." in it leads anywhere.
func domainPath(domain, verb string) string {
	p := "/v1/domains/" + segment(domain)
	if verb != "" {
		p += "/" + verb
	}
	return p
}

func segment(name string) string {
	if strings.Trim(name, ".") == "" {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}

// List implements Service.
func (c *Client) List(ctx context.Context) ([]DomainStatus, error) {
	return call[[]DomainStatus](ctx, c, "GET", "/v1/domains", nil, nil)
}

// Status implements Service.
func (c *Client) Status(ctx context.Context, domain string, wait bool) (DomainStatus, error) {
	q := url.Values{}
	if wait {
		q.Set("wait", "1")
		if s := secondsLeft(ctx); s > 0 {
			q.Set("timeout", fmt.Sprint(s))
		}
		var cancel context.CancelFunc
		ctx, cancel = patience(ctx)
		defer cancel()
	}
	return call[DomainStatus](ctx, c, "GET", domainPath(domain, ""), q, nil)
}

// Enable implements Service.
func (c *Client) Enable(ctx context.Context, domain string, p Policy) (DomainStatus, error) {
	return call[DomainStatus](ctx, c, "POST", domainPath(domain, "enable"), nil, EnableRequest{p})
}

// Disable implements Service.
func (c *Client) Disable(ctx context.Context, domain string) (DomainStatus, error) {
	return call[DomainStatus](ctx, c, "POST", domainPath(domain, "disable"), nil, nil)
}

// Drop implements Service.
func (c *Client) Drop(ctx context.Context, domain string) (DropResult, error) {
	return call[DropResult](ctx, c, "POST", domainPath(domain, "drop"), nil, nil)
}

// secondsLeft returns the time until ctx's deadline, 0 if it has none.
func secondsLeft(ctx context.Context) float64 {
	d, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(time.Until(d).Seconds(), 0.001)
}

// patience returns a context that lasts a little longer than ctx, so that the
// daemon's own account of a timeout arrives.
func patience(ctx context.Context) (context.Context, context.CancelFunc) {
	d, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	longer, cancel := context.WithDeadline(context.WithoutCancel(ctx), d.Add(5*time.Second))
	// A cancellation that is not the deadline is passed on.
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			cancel()
		}
	})
	return longer, func() { stop(); cancel() }
}
