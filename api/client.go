package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Client is a Service that asks a daemon.
type Client struct {
	http   *http.Client
	socket string
}

var _ Service = (*Client)(nil)

// DefaultSocket is where the daemon listens, unless told otherwise.
const DefaultSocket = "/run/warmreboot/agent.sock"

// NewClient returns a client of the daemon at a socket. It connects when it is
// used.
func NewClient(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// maxResponse bounds an answer, in bytes.
const maxResponse = 16 << 20

func call[T any](ctx context.Context, c *Client, method, path string, query url.Values, req any) (T, error) {
	var none T
	var b io.Reader
	if req != nil {
		raw, err := json.Marshal(req)
		if err != nil {
			return none, err
		}
		b = bytes.NewReader(raw)
	}
	u := url.URL{Scheme: "http", Host: "warmrebootd", Path: path, RawQuery: query.Encode()}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), b)
	if err != nil {
		return none, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return none, Errorf(AgentDown, "the agent does not answer on %s (%v); is warmrebootd running?", c.socket, op.Err)
		}
		if ctx.Err() != nil {
			return none, ctx.Err()
		}
		return none, Errorf(AgentDown, "the agent ended while it was being asked (%v); see its log", err)
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); kind != contentType {
		// What a daemon answers to a path that it does not know is not JSON.
		return none, Errorf(VersionSkew, "the agent on %s does not know this request (%s): it is of another version; restart warmrebootd after an upgrade", c.socket, resp.Status)
	}
	return decode[T](io.LimitReader(resp.Body, maxResponse))
}

// decode reads an answer. With an error, the result holds what came with it.
func decode[T any](r io.Reader) (T, error) {
	var v response[T]
	if err := json.NewDecoder(r).Decode(&v); err != nil {
		var none T
		return none, fmt.Errorf("answer of the agent: %w", err)
	}
	if v.Error != nil {
		return v.Result, v.Error
	}
	return v.Result, nil
}

// domainPath escapes a domain's name into a path below /v1/domains.
func domainPath(domain, verb string) string {
	p := "/v1/domains/" + domain
	if verb != "" {
		p += "/" + verb
	}
	return p
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

// Plan implements Service.
func (c *Client) Plan(ctx context.Context, domain string, mode Trigger) (Plan, error) {
	q := url.Values{"mode": {string(mode)}}
	if Overrides(ctx) {
		q.Set("override", "1")
	}
	return call[Plan](ctx, c, "GET", domainPath(domain, "plan"), q, nil)
}

// Reboot implements Service. The deadline of ctx is the daemon's, too.
func (c *Client) Reboot(ctx context.Context, domain string, mode Trigger) (Summary, error) {
	req := RebootRequest{Mode: mode, TimeoutSeconds: secondsLeft(ctx), Override: Overrides(ctx)}
	ctx, cancel := patience(ctx)
	defer cancel()
	return call[Summary](ctx, c, "POST", domainPath(domain, "reboot"), nil, req)
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
