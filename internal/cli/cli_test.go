package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/text"
	"github.com/warmreboot/warmreboot/internal/web"
	"github.com/warmreboot/warmreboot/xenctl"
)

// fakeService answers what it is told to, and notes what it was asked.
type fakeService struct {
	mu       sync.Mutex // what a server's goroutines use
	asked    []string
	policy   api.Policy
	request  api.OperationRequest
	deadline time.Duration

	status   api.DomainStatus
	list     []api.DomainStatus
	plan     api.Plan
	summary  api.Summary
	drop     api.DropResult
	entries  []api.HistoryEntry
	query    api.HistoryQuery
	forecast api.Forecast
	lock     api.LockRequest
	wait     time.Duration // that a reboot takes
	samples  []api.Sample
	host     api.Host
	err      error

	operations []api.Operation
	update     *api.Update
}

func (f *fakeService) note(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, s)
}

func (f *fakeService) takes(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wait = d
}

func (f *fakeService) time() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wait
}

func (f *fakeService) List(context.Context) ([]api.DomainStatus, error) {
	f.note("list")
	return f.list, f.err
}

func (f *fakeService) Status(_ context.Context, d string, wait bool) (api.DomainStatus, error) {
	if wait {
		d += " wait"
	}
	f.note("status " + d)
	return f.status, f.err
}

func (f *fakeService) Enable(_ context.Context, d string, p api.Policy) (api.DomainStatus, error) {
	f.note("enable " + d)
	f.policy = p
	return f.status, f.err
}

func (f *fakeService) Disable(_ context.Context, d string) (api.DomainStatus, error) {
	f.note("disable " + d)
	return f.status, f.err
}

func (f *fakeService) Drop(_ context.Context, d string) (api.DropResult, error) {
	f.note("drop " + d)
	return f.drop, f.err
}

func (f *fakeService) Plan(_ context.Context, r api.OperationRequest) (api.Plan, error) {
	f.note("plan " + r.Domain + " " + string(r.Mode))
	f.request = r
	return f.plan, f.err
}

func (f *fakeService) Begin(_ context.Context, r api.OperationRequest) (api.Operation, error) {
	f.note("reboot " + r.Domain + " " + string(r.Mode))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.request = r
	f.deadline = time.Duration(r.TimeoutSeconds * float64(time.Second)).Round(time.Second)
	return api.Operation{ID: "1", Request: &r, State: api.OperationRunning}, nil
}

func (f *fakeService) Follow(ctx context.Context, id string) iter.Seq2[api.Operation, error] {
	return func(yield func(api.Operation, error) bool) {
		o := api.Operation{ID: id, State: api.OperationRunning}
		if !yield(o, nil) {
			return
		}
		select {
		case <-time.After(f.time()):
		case <-ctx.Done():
			yield(o, ctx.Err())
			return
		}
		o.State, o.Update = api.OperationDone, f.update
		if f.summary.Trigger != "" {
			o.Summary = &f.summary
		}
		if f.err != nil {
			var e *api.Error
			if !errors.As(f.err, &e) { // it cannot be sent
				yield(o, f.err)
				return
			}
			o.State, o.Error = api.OperationFailed, e
		}
		yield(o, nil)
	}
}

func (f *fakeService) Cancel(_ context.Context, id, by string) (api.Operation, error) {
	f.note("cancel " + id)
	i := slices.IndexFunc(f.operations, func(o api.Operation) bool { return o.ID == id })
	if i < 0 || f.err != nil {
		return api.Operation{}, cmp.Or[error](f.err, api.Errorf(api.NotFound, "there is no operation %q", id))
	}
	return f.operations[i], nil
}

func (f *fakeService) Operation(context.Context, string) (api.Operation, error) {
	return api.Operation{}, f.err
}

func (f *fakeService) Operations(context.Context) ([]api.Operation, error) {
	return f.operations, f.err
}

func (f *fakeService) History(_ context.Context, q api.HistoryQuery) iter.Seq2[api.HistoryEntry, error] {
	f.note("history")
	f.query = q
	return func(yield func(api.HistoryEntry, error) bool) {
		for _, e := range f.entries {
			if !yield(e, nil) {
				return
			}
		}
		if f.err != nil {
			yield(api.HistoryEntry{}, f.err)
		}
	}
}

func (f *fakeService) Config(context.Context) (api.ConfigStatus, error) {
	return f.forecast.Config, f.err
}

func (f *fakeService) Forecast(_ context.Context, d string) (api.Forecast, error) {
	f.note("forecast " + d)
	return f.forecast, f.err
}

func (f *fakeService) Lock(_ context.Context, d string, r api.LockRequest) (api.LockStatus, error) {
	f.note("lock " + d)
	f.lock = r
	return api.LockStatus{Domain: d, Owner: r.Owner, Reason: r.Reason}, f.err
}

func (f *fakeService) Unlock(_ context.Context, d string) (api.LockStatus, error) {
	f.note("unlock " + d)
	return api.LockStatus{Domain: d, Owner: "ann"}, f.err
}

func (f *fakeService) Resume(_ context.Context, s string) (api.HaltedRules, error) {
	f.note("resume " + s)
	return api.HaltedRules{Schedule: s, Why: "not well"}, f.err
}

func (f *fakeService) Samples(context.Context, ident.UUID, time.Time) ([]api.Sample, error) {
	f.note("samples")
	return f.samples, f.err
}

// result is what one call of the command line did.
type result struct {
	code        int
	out, stderr string
}

// runCLI calls the command line in this process.
func runCLI(s *fakeService, l *local, args ...string) result {
	var out, stderr bytes.Buffer
	e := &env{stdout: text.Writer(&out), stderr: text.Writer(&stderr), rawOut: &out, rawErr: &stderr,
		service:    func(string) api.Service { return s },
		history:    func(string) api.History { return s },
		operations: func(string) api.Operations { return s },
		runs:       func(string) api.Schedules { return s },
		pages:      func(string) web.Source { return s },
		host:       func(context.Context, string) (api.Host, error) { return s.host, s.err },
		local: func() (local, error) {
			if l == nil {
				return local{}, xenctl.ErrNotXen
			}
			return *l, nil
		}}
	code := e.run(context.Background(), append([]string{"warmreboot"}, args...))
	return result{code, out.String(), stderr.String()}
}

func (r result) json(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.out), v); err != nil {
		t.Fatalf("%v: %q", err, r.out)
	}
}

// TestExitCodes: every kind of error has its own code, which the documentation
// names, and its message goes to stderr.
func TestExitCodes(t *testing.T) {
	for code, want := range map[api.Code]int{
		api.Failed: 1, api.BadRequest: 2, api.CameBackCold: 3, api.NoWarmcache: 4, api.NotTracked: 5,
		api.AgentDown: 6, api.TimedOut: 8, api.MismatchFound: 9, api.NotFound: 10, api.Locked: 11,
		api.VersionSkew: 12, api.Cancelled: 1, "other": 1,
	} {
		r := runCLI(&fakeService{err: api.Errorf(code, "so it is")}, nil, "drop", "web")
		if r.code != want || r.out != "" || r.stderr != "warmreboot: so it is\n" {
			t.Errorf("%s: %+v, want %d", code, r, want)
		}
	}
	for err, want := range map[error]int{errors.New("x"): 1, context.DeadlineExceeded: 8, context.Canceled: 130, nil: 0} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"a", "b"}, {"--bogus", "a"}, {"a", "--bogus"}, {"a", "--force", "--cold"}, {"--timeout", "0s", "a"},
		{"a", "--timeout"}, {"-o", "xml", "a"}, {"status", "a", "b"}, {"status", "--wait"}, {"enable"},
		{"report"}, {"report", "a", "b"}, {"report", "a", "--id", "x"},
		{"top", "a"}, {"top", "--interval", "1ms"}, {"top", "--count", "-1"}, {"doctor", "a", "b"},
		{"enable", "a", "--ttl", "1.5s"}, {"enable", "--ttl", "-1s", "a"}, {"check"}, {"drop"}, {"disable", "a", "b"},
		{"a", "--timeout", "soon"}, {"history", "a", "b"}, {"history", "--limit", "-1"}, {"history", "--since", "soon"},
		{"history", "--by", "nobody"}, {"plan", "a", "b"}, {"config"}, {"config", "bake"}, {"lock"}, {"lock", "a", "--ttl", "soon"}, {"cancel"}, {"cancel", "a", "b"}, {"resume"},
	} {
		s := &fakeService{}
		r := runCLI(s, nil, args...)
		if r.code != ExitUsage || !strings.Contains(r.stderr, "Try 'warmreboot --help'") {
			t.Errorf("%q: %+v", args, r)
		}
		if len(s.asked) != 0 {
			t.Errorf("%q: asked %q", args, s.asked)
		}
	}
	if r := runCLI(&fakeService{}, nil, "--help"); r.code != 0 || !strings.Contains(r.out, "Exit codes") {
		t.Errorf("%+v", r)
	}
}
