package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

// echo answers with what it was asked.
type echo struct {
	wait     bool
	override bool
	mode     api.Trigger
	policy   api.Policy
	timeout  time.Duration
	err      error
}

func (e *echo) List(context.Context) ([]api.DomainStatus, error) {
	return []api.DomainStatus{{Domain: "a"}, {Domain: "b", Counters: api.Counters{WriteFaults: 3}}}, e.err
}
func (e *echo) Status(ctx context.Context, d string, wait bool) (api.DomainStatus, error) {
	e.wait = wait
	e.deadline(ctx)
	return api.DomainStatus{Domain: d, UUID: ident.UUID{1}}, e.err
}
func (e *echo) Enable(_ context.Context, d string, p api.Policy) (api.DomainStatus, error) {
	e.policy = p
	return api.DomainStatus{Domain: d}, e.err
}
func (e *echo) Disable(_ context.Context, d string) (api.DomainStatus, error) {
	return api.DomainStatus{Domain: d}, e.err
}
func (e *echo) Drop(_ context.Context, d string) (api.DropResult, error) {
	return api.DropResult{Domain: d, Pages: 7}, e.err
}
func (e *echo) Plan(_ context.Context, r api.OperationRequest) (api.Plan, error) {
	e.override = r.Override
	return api.Plan{Domain: r.Domain, Mode: r.Mode, VBDs: []api.PlanVBD{}}, e.err
}
func (e *echo) Reboot(ctx context.Context, r api.OperationRequest) (api.Summary, error) {
	e.mode, e.override = r.Mode, r.Override
	e.deadline(ctx)
	return api.Summary{Domain: r.Domain, Trigger: r.Mode, Refused: map[string]uint64{"x": 1}}, e.err
}
func (e *echo) deadline(ctx context.Context) {
	e.timeout = 0
	if d, ok := ctx.Deadline(); ok {
		e.timeout = time.Until(d).Round(time.Second)
	}
}

func serve(t *testing.T, h http.Handler) *api.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return api.NewClient(socket)
}

// serveAll serves a Service and its operations.
func serveAll(t *testing.T, s interface {
	api.Service
	doer
}) *api.Client {
	t.Helper()
	return serve(t, Handler(s, ServeOperations(&instant{doer: s})))
}

func TestRoundTrip(t *testing.T) {
	e := &echo{}
	c := serveAll(t, e)
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
	p := api.Policy{Content: "full", Uncertain: "refuse", TTLSeconds: 5}
	if s, err := c.Enable(ctx, name, p); err != nil || s.Domain != name || e.policy != p {
		t.Errorf("%+v, %v, %+v", s, err, e)
	}
	if s, err := c.Disable(ctx, name); err != nil || s.Domain != name {
		t.Errorf("%+v, %v", s, err)
	}
	if r, err := c.Drop(ctx, name); err != nil || r.Pages != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	if p, err := c.Plan(ctx, api.OperationRequest{Kind: api.KindReboot, Domain: name, Mode: api.Force}); err != nil || p.Mode != api.Force || p.Domain != name {
		t.Errorf("%+v, %v", p, err)
	}
	if s, err := c.Reboot(ctx, name, api.Cold); err != nil || s.Trigger != api.Cold || e.timeout != 90*time.Second {
		t.Errorf("%+v, %v, %+v", s, err, e)
	}
	if _, err := c.Reboot(context.Background(), name, api.Cold); err != nil || e.timeout != 0 {
		t.Errorf("%v, %+v", err, e)
	}
}

// TestErrors: an error keeps its code, and what came with it.
func TestErrors(t *testing.T) {
	e := &echo{}
	c := serveAll(t, e)
	ctx := context.Background()
	for _, code := range []api.Code{api.Failed, api.BadRequest, api.NotFound, api.NoWarmcache, api.NotTracked, api.CameBackCold, api.TimedOut, api.Locked, api.VersionSkew} {
		e.err = api.Errorf(code, "about %s", code)
		s, err := c.Reboot(ctx, "web", api.Graceful)
		if !reflect.DeepEqual(err, e.err) || s.Domain != "web" {
			t.Errorf("%s: %+v, %v", code, s, err)
		}
	}
	var a *api.Error
	e.err = errors.New("plain")
	if _, err := c.List(ctx); !errors.As(err, &a) || a.Code != api.Failed || a.Message != "plain" {
		t.Error(err)
	}
	if _, err := api.NewClient(filepath.Join(t.TempDir(), "none")).List(ctx); !errors.As(err, &a) || a.Code != api.AgentDown {
		t.Error(err)
	}
	broken := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", api.ContentType)
		w.Write([]byte("{"))
	}))
	if _, err := broken.List(ctx); err == nil || errors.As(err, &a) && a.Code == api.VersionSkew {
		t.Errorf("broken answer: %v", err)
	}
	// A daemon that does not know the request is of another version.
	if _, err := serve(t, http.NewServeMux()).List(ctx); !errors.As(err, &a) || a.Code != api.VersionSkew {
		t.Errorf("unknown path: %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	for _, body := range []string{`{"unknown":1}`, `"x"`, `x`, "", `{"content":"` + strings.Repeat("x", maxRequest) + `"}`} {
		w := httptest.NewRecorder()
		Handler(&echo{}).ServeHTTP(w, httptest.NewRequest("POST", "/v1/domains/web/enable", strings.NewReader(body)))
		var got api.Answer[api.DomainStatus]
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Error == nil || got.Error.Code != api.BadRequest || w.Code != http.StatusBadRequest {
			t.Errorf("%.20q: %d %s, %v", body, w.Code, w.Body, err)
		}
	}
}

// TestStatusQuery: who waits says so as others do, and what cannot be meant is refused.
func TestStatusQuery(t *testing.T) {
	for query, want := range map[string]bool{"": false, "wait=1": true, "wait=true": true, "wait=0": false, "wait=true&timeout=1.5": true} {
		e := &echo{}
		w := httptest.NewRecorder()
		Handler(e).ServeHTTP(w, httptest.NewRequest("GET", "/v1/domains/web?"+query, nil))
		if w.Code != http.StatusOK || e.wait != want {
			t.Errorf("%s: %d, waits %v", query, w.Code, e.wait)
		}
	}
	for _, query := range []string{"wait=yes", "wait=", "timeout=5m", "timeout=0", "timeout=-1", "timeout=NaN", "timeout=1e300", "timeout="} {
		w := httptest.NewRecorder()
		Handler(&echo{}).ServeHTTP(w, httptest.NewRequest("GET", "/v1/domains/web?"+query, nil))
		if w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", query, w.Code)
		}
	}
}

// TestStops: who waits when the daemon stops is not told that his own time is over, nor
// that nothing was changed, where that is not known.
func TestStops(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	w := httptest.NewRecorder()
	Handler(&echo{err: api.Errorf(api.TimedOut, "it is still down")}).ServeHTTP(w, httptest.NewRequest("GET", "/v1/domains/web?wait=1", nil).WithContext(ctx))
	if !strings.Contains(w.Body.String(), string(api.AgentDown)) || strings.Contains(w.Body.String(), string(api.TimedOut)) {
		t.Errorf("%s", w.Body)
	}
	w = httptest.NewRecorder()
	Handler(&echo{err: context.Canceled}).ServeHTTP(w, httptest.NewRequest("POST", "/v1/domains/web/drop", nil).WithContext(ctx))
	if !strings.Contains(w.Body.String(), "may have") || strings.Contains(w.Body.String(), string(api.AgentDown)) {
		t.Errorf("%s", w.Body)
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
