package apiserver

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/http/httptest"
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

func (a *askedHistory) History(_ context.Context, q api.HistoryQuery) iter.Seq2[api.HistoryEntry, error] {
	a.q = q
	return func(yield func(api.HistoryEntry, error) bool) {
		more := yield(api.HistoryEntry{ID: 7, Summary: api.Summary{Domain: "a", By: api.BySchedule, Outcome: "warm"},
			Health: &api.StepResult{Name: "health", OK: true}}, nil)
		if more && a.err != nil {
			yield(api.HistoryEntry{}, a.err)
		}
	}
}

func TestHistoryOverSocket(t *testing.T) {
	a := &askedHistory{}
	c := serve(t, Handler(&echo{}, ServeHistory(a)))
	for _, q := range []api.HistoryQuery{{}, {Domain: "a b/c", By: api.ByGuest, Limit: 3, Before: 1 << 63, Since: time.Unix(1, 5).UTC()}} {
		got, err := api.All(c.History(context.Background(), q))
		if err != nil || !reflect.DeepEqual(a.q, q) {
			t.Errorf("asked %+v (%v), want %+v", a.q, err, q)
		}
		if len(got) != 1 || got[0].ID != 7 || got[0].Domain != "a" || got[0].By != api.BySchedule || !got[0].Health.OK {
			t.Errorf("%+v", got)
		}
	}
	a.err = api.Errorf(api.Failed, "broken")
	var e *api.Error
	if got, err := api.All(c.History(context.Background(), api.HistoryQuery{})); !errors.As(err, &e) || e.Message != "broken" || len(got) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, query := range []string{"before=-1", "before=x", "limit=-1", "since=yesterday"} {
		w := httptest.NewRecorder()
		Handler(&echo{}, ServeHistory(a)).ServeHTTP(w, httptest.NewRequest("GET", "/v1/history?"+query, nil))
		if w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", query, w.Code)
		}
	}
}
