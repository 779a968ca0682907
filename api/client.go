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
	"strings"
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
	},
		// A daemon that sends elsewhere has not understood what it was asked.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// maxResponse bounds an answer, or one line of a stream, in bytes.
const maxResponse = 16 << 20

// call asks and reads one answer. path is escaped.
func call[T any](ctx context.Context, c *Client, method, path string, query url.Values, req any) (T, error) {
	resp, err := c.do(ctx, method, path, query, req, contentType)
	if err != nil {
		var none T
		return none, err
	}
	defer resp.Body.Close()
	return decode[T](&bounded{resp.Body, maxResponse})
}

// do asks; the answer is of that type, and its body has to be closed.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, req any, kind string) (*http.Response, error) {
	var b io.Reader
	if req != nil {
		raw, err := json.Marshal(req)
		if err != nil {
			return nil, err
		}
		b = bytes.NewReader(raw)
	}
	if strings.Contains(path+"/", "//") { // an empty segment
		return nil, Errorf(BadRequest, "the name is empty; name a domain (by name, domid or UUID) or a schedule")
	}
	plain, err := url.PathUnescape(path)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "http", Host: "warmrebootd", Path: plain, RawPath: path, RawQuery: query.Encode()}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), b)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return nil, Errorf(AgentDown, "the agent does not answer on %s (%v); is warmrebootd running?", c.socket, op.Err)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, Errorf(AgentDown, "the agent ended while it was being asked (%v); see its log", err)
	}
	if got := resp.Header.Get("Content-Type"); got != kind {
		defer resp.Body.Close()
		if got == contentType { // an error, where a stream was asked for
			if _, err := decode[json.RawMessage](&bounded{resp.Body, maxResponse}); err != nil {
				return nil, err
			}
		}
		// What a daemon answers to a path that it does not know is not JSON.
		return nil, Errorf(VersionSkew, "the agent on %s does not know this request (%s): it is of another version; restart warmrebootd after an upgrade", c.socket, resp.Status)
	}
	return resp, nil
}

// bounded reads up to left bytes, and then says that there are more.
type bounded struct {
	r    io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errors.New("it is longer than an answer may be")
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// decode reads an answer. With an error, the result holds what came with it.
func decode[T any](r io.Reader) (T, error) {
	var v response[T]
	if err := json.NewDecoder(r).Decode(&v); err != nil {
		var none T
		return none, Errorf(Failed, "answer of the agent: %v; see its log", err)
	}
	if v.Error != nil {
		return v.Result, v.Error
	}
	return v.Result, nil
}

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
