package apiserver

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
)

// askedSchedules notes what it was asked.
type askedSchedules struct {
	askedHistory
	asked string
	err   error
}

func (a *askedSchedules) Config(context.Context) (api.ConfigStatus, error) {
	return api.ConfigStatus{Dir: "/d", Files: []string{"/d/a.toml"}, Error: "a.toml:1: no"}, a.err
}

func (a *askedSchedules) Forecast(_ context.Context, d string) (api.Forecast, error) {
	a.asked = "forecast " + d
	return api.Forecast{Runs: []api.PlannedRun{{Domain: d, Next: time.Unix(5, 0).UTC(), Why: "cron"}}}, a.err
}

func (a *askedSchedules) Lock(_ context.Context, d string, r api.LockRequest) (api.LockStatus, error) {
	a.asked = fmt.Sprintf("lock %s %+v", d, r)
	return api.LockStatus{Domain: d, Owner: r.Owner}, a.err
}

func (a *askedSchedules) Unlock(_ context.Context, d string) (api.LockStatus, error) {
	a.asked = "unlock " + d
	return api.LockStatus{Domain: d}, a.err
}

func (a *askedSchedules) Resume(_ context.Context, s string) (api.HaltedRules, error) {
	a.asked = "resume " + s
	return api.HaltedRules{Schedule: s, Why: "not well"}, a.err
}

func TestSchedulesOverSocket(t *testing.T) {
	ctx := context.Background()
	a := &askedSchedules{}
	c := serve(t, Handler(&echo{}, ServeSchedules(a)))
	const odd = "a/b c?d" // names are the toolstack's
	if v, err := c.Config(ctx); err != nil || v.Dir != "/d" || v.Error == "" {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err := c.Forecast(ctx, odd); err != nil || a.asked != "forecast "+odd || len(v.Runs) != 1 || v.Runs[0].Next.Unix() != 5 || !v.Runs[0].Due.IsZero() {
		t.Errorf("%+v, %v, asked %q", v, err, a.asked)
	}
	if v, err := c.Lock(ctx, "web", api.LockRequest{Owner: "ann", Reason: "backup", TTLSeconds: 60}); err != nil || v.Owner != "ann" || a.asked != "lock web {Owner:ann Reason:backup TTLSeconds:60}" {
		t.Errorf("%+v, %v, asked %q", v, err, a.asked)
	}
	if v, err := c.Unlock(ctx, "web"); err != nil || v.Domain != "web" || a.asked != "unlock web" {
		t.Errorf("%+v, %v, asked %q", v, err, a.asked)
	}
	if v, err := c.Resume(ctx, "weekly"); err != nil || v.Why != "not well" || a.asked != "resume weekly" {
		t.Errorf("%+v, %v, asked %q", v, err, a.asked)
	}
	if v, err := api.All(c.History(ctx, api.HistoryQuery{Limit: 1})); err != nil || len(v) != 1 || a.q.Limit != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	a.err = api.Errorf(api.Locked, "locked by bob")
	var e *api.Error
	if _, err := c.Lock(ctx, "web", api.LockRequest{Owner: "ann", TTLSeconds: 60}); !errors.As(err, &e) || e.Code != api.Locked {
		t.Errorf("%v", err)
	}
}

func TestOverrideOverSocket(t *testing.T) {
	o := &echo{}
	c := serveAll(t, o)
	for _, want := range []bool{true, false, true} {
		r := api.OperationRequest{Kind: api.KindReboot, Domain: "web", Mode: api.Graceful, Override: want}
		if _, err := api.Await(context.Background(), c, r); err != nil || o.override != want {
			t.Errorf("reboot: %v, %v, want %v", o.override, err, want)
		}
		if _, err := c.Plan(context.Background(), r); err != nil || o.override != want {
			t.Errorf("plan: %v, %v, want %v", o.override, err, want)
		}
	}
}
