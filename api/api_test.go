package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/ident"
)

// echo answers with what it was asked.
type echo struct {
	wait    bool
	mode    Trigger
	policy  Policy
	timeout time.Duration
	err     error
}

func (e *echo) List(context.Context) ([]DomainStatus, error) {
	return []DomainStatus{{Domain: "a"}, {Domain: "b", Counters: Counters{WriteFaults: 3}}}, e.err
}
func (e *echo) Status(ctx context.Context, d string, wait bool) (DomainStatus, error) {
	e.wait = wait
	e.deadline(ctx)
	return DomainStatus{Domain: d, UUID: ident.UUID{1}}, e.err
}
func (e *echo) Enable(_ context.Context, d string, p Policy) (DomainStatus, error) {
	e.policy = p
	return DomainStatus{Domain: d}, e.err
}
func (e *echo) Disable(_ context.Context, d string) (DomainStatus, error) {
	return DomainStatus{Domain: d}, e.err
}
func (e *echo) Drop(_ context.Context, d string) (DropResult, error) {
	return DropResult{Domain: d, Pages: 7}, e.err
}
func (e *echo) Plan(_ context.Context, d string, m Trigger) (Plan, error) {
	return Plan{Domain: d, Mode: m, VBDs: []PlanVBD{}}, e.err
}
func (e *echo) Reboot(ctx context.Context, d string, m Trigger) (Summary, error) {
	e.mode = m
	e.deadline(ctx)
	return Summary{Domain: d, Trigger: m, Refused: map[string]uint64{"x": 1}}, e.err
}
func (e *echo) deadline(ctx context.Context) {
	e.timeout = 0
	if d, ok := ctx.Deadline(); ok {
		e.timeout = time.Until(d).Round(time.Second)
	}
}

func serve(t *testing.T, h http.Handler) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return NewClient(socket)
}

func TestRoundTrip(t *testing.T) {
	e := &echo{}
	c := serve(t, Handler(e))
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	const name = "dom U?x=1&%41"
	all, err := c.List(ctx)
	if err != nil || len(all) != 2 || all[1].WriteFaults != 3 {
		t.Errorf("%+v, %v", all, err)
	}
	if s, err := c.Status(ctx, name, true); err != nil || s.Domain != name || s.UUID != (ident.UUID{1}) || !e.wait || e.timeout != 90*time.Second {
		t.Errorf("%+v, %v, %+v", s, err, e)
	}
	if _, err := c.Status(ctx, name, false); err != nil || e.wait {
		t.Errorf("%v, %+v", err, e)
	}
	p := Policy{Content: "full", Uncertain: "refuse", TTLSeconds: 5}
	if s, err := c.Enable(ctx, name, p); err != nil || s.Domain != name || e.policy != p {
		t.Errorf("%+v, %v, %+v", s, err, e)
	}
	if s, err := c.Disable(ctx, name); err != nil || s.Domain != name {
		t.Errorf("%+v, %v", s, err)
	}
	if r, err := c.Drop(ctx, name); err != nil || r.Pages != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	if p, err := c.Plan(ctx, name, Force); err != nil || p.Mode != Force || p.Domain != name {
		t.Errorf("%+v, %v", p, err)
	}
	if s, err := c.Reboot(ctx, name, Cold); err != nil || s.Trigger != Cold || e.timeout != 90*time.Second {
		t.Errorf("%+v, %v, %+v", s, err, e)
	}
	if _, err := c.Reboot(context.Background(), name, Cold); err != nil || e.timeout != 0 {
		t.Errorf("%v, %+v", err, e)
	}
}

// TestErrors: an error keeps its code, and what came with it.
func TestErrors(t *testing.T) {
	e := &echo{}
	c := serve(t, Handler(e))
	ctx := context.Background()
	for _, code := range []Code{Failed, BadRequest, NotFound, NoWarmcache, NotTracked, CameBackCold, TimedOut, Locked, VersionSkew} {
		e.err = Errorf(code, "about %s", code)
		s, err := c.Reboot(ctx, "web", Graceful)
		if !reflect.DeepEqual(err, e.err) || s.Domain != "web" {
			t.Errorf("%s: %+v, %v", code, s, err)
		}
	}
	var a *Error
	e.err = errors.New("plain")
	if _, err := c.List(ctx); !errors.As(err, &a) || a.Code != Failed || a.Message != "plain" {
		t.Error(err)
	}
	if _, err := NewClient(filepath.Join(t.TempDir(), "none")).List(ctx); !errors.As(err, &a) || a.Code != AgentDown {
		t.Error(err)
	}
	broken := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Write([]byte("{"))
	}))
	if _, err := broken.List(ctx); err == nil || errors.As(err, &a) && a.Code == VersionSkew {
		t.Errorf("broken answer: %v", err)
	}
	// A daemon that does not know the request is of another version.
	if _, err := serve(t, http.NewServeMux()).List(ctx); !errors.As(err, &a) || a.Code != VersionSkew {
		t.Errorf("unknown path: %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	c := serve(t, Handler(&echo{}))
	for _, body := range []any{map[string]any{"unknown": 1}, "x", strings.Repeat("x", maxRequest)} {
		var a *Error
		_, err := call[DomainStatus](context.Background(), c, "POST", domainPath("web", "enable"), nil, body)
		if !errors.As(err, &a) || a.Code != BadRequest {
			t.Errorf("%v", err)
		}
	}
}

// TestCancelled: a client that gives up does not leave the daemon waiting.
func TestCancelled(t *testing.T) {
	ended := make(chan struct{})
	c := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); close(ended) }))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := c.Status(ctx, "web", true); err == nil {
		t.Error("no error")
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("the daemon still waits")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"result":{"domain":"a","uuid":"5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b01"}}`)
	f.Add(`{"error":{"code":"timeout","message":"x"}}`)
	f.Fuzz(func(t *testing.T, raw string) {
		_, _ = decode[DomainStatus](strings.NewReader(raw))
		_, _ = decode[Summary](strings.NewReader(raw))
	})
}
