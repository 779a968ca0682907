package api

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"
)

// askedHistory notes what it was asked.
type askedHistory struct {
	q   HistoryQuery
	err error
}

func (a *askedHistory) History(_ context.Context, q HistoryQuery) ([]HistoryEntry, error) {
	a.q = q
	return []HistoryEntry{{ID: 7, Summary: Summary{Domain: "a", By: BySchedule, Outcome: "warm"},
		Health: &StepResult{Name: "health", OK: true}}}, a.err
}

func TestHistoryOverSocket(t *testing.T) {
	a := &askedHistory{}
	c := serve(t, Handler(&echo{}, ServeHistory(a)))
	for _, q := range []HistoryQuery{{}, {Domain: "a b/c", By: ByGuest, Limit: 3, Since: time.Unix(1, 5).UTC()}} {
		got, err := c.History(context.Background(), q)
		if err != nil || !reflect.DeepEqual(a.q, q) {
			t.Errorf("asked %+v (%v), want %+v", a.q, err, q)
		}
		if len(got) != 1 || got[0].ID != 7 || got[0].Domain != "a" || got[0].By != BySchedule || !got[0].Health.OK {
			t.Errorf("%+v", got)
		}
	}
	a.err = Errorf(Failed, "broken")
	var e *Error
	if _, err := c.History(context.Background(), HistoryQuery{}); !errors.As(err, &e) || e.Message != "broken" {
		t.Errorf("%v", err)
	}
}
