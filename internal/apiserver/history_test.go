package apiserver

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
)

// askedHistory notes what it was asked.
type askedHistory struct {
	q   api.HistoryQuery
	err error
}

func (a *askedHistory) History(_ context.Context, q api.HistoryQuery) ([]api.HistoryEntry, error) {
	a.q = q
	return []api.HistoryEntry{{ID: 7, Summary: api.Summary{Domain: "a", By: api.BySchedule, Outcome: "warm"},
		Health: &api.StepResult{Name: "health", OK: true}}}, a.err
}

func TestHistoryOverSocket(t *testing.T) {
	a := &askedHistory{}
	c := serve(t, Handler(&echo{}, ServeHistory(a)))
	for _, q := range []api.HistoryQuery{{}, {Domain: "a b/c", By: api.ByGuest, Limit: 3, Since: time.Unix(1, 5).UTC()}} {
		got, err := c.History(context.Background(), q)
		if err != nil || !reflect.DeepEqual(a.q, q) {
			t.Errorf("asked %+v (%v), want %+v", a.q, err, q)
		}
		if len(got) != 1 || got[0].ID != 7 || got[0].Domain != "a" || got[0].By != api.BySchedule || !got[0].Health.OK {
			t.Errorf("%+v", got)
		}
	}
	a.err = api.Errorf(api.Failed, "broken")
	var e *api.Error
	if _, err := c.History(context.Background(), api.HistoryQuery{}); !errors.As(err, &e) || e.Message != "broken" {
		t.Errorf("%v", err)
	}
}
