package apiserver

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
)

// doer does what operations are about.
type doer interface {
	Plan(ctx context.Context, r api.OperationRequest) (api.Plan, error)
	Reboot(ctx context.Context, r api.OperationRequest) (api.Summary, error)
}

// instant is api.Operations that are done when they are begun. What they really are is
// tested where they are done.
type instant struct {
	doer
	all []api.Operation
}

func (i *instant) Begin(ctx context.Context, r api.OperationRequest) (api.Operation, error) {
	if r.TimeoutSeconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), time.Duration(r.TimeoutSeconds*float64(time.Second)))
		defer cancel()
	}
	s, err := i.Reboot(ctx, r)
	op := api.Operation{ID: fmt.Sprint(len(i.all)), Kind: r.Kind, Domain: r.Domain, Request: &r, State: api.OperationDone, Steps: []api.OperationStep{}, Summary: &s}
	if err != nil {
		op.State, op.Error = api.OperationFailed, api.AsError(err)
	}
	i.all = append(i.all, op)
	return op, nil
}

func (i *instant) Cancel(ctx context.Context, id, by string) (api.Operation, error) {
	op, err := i.Operation(ctx, id)
	op.Cancelled = &api.Cancellation{By: by}
	return op, err
}

func (i *instant) Operations(context.Context) ([]api.Operation, error) { return i.all, nil }

func (i *instant) Operation(_ context.Context, id string) (api.Operation, error) {
	for _, op := range i.all {
		if op.ID == id {
			return op, nil
		}
	}
	return api.Operation{}, api.Errorf(api.NotFound, "there is no operation %q", id)
}

func (i *instant) Follow(ctx context.Context, id string) iter.Seq2[api.Operation, error] {
	return func(yield func(api.Operation, error) bool) { yield(i.Operation(ctx, id)) }
}

// TestBegun: what was begun is accepted, and where it is found is said; what is no
// request is not.
func TestBegun(t *testing.T) {
	e := &echo{}
	h := Handler(e, ServeOperations(&instant{doer: e}))
	ask := func(method, path, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		return w
	}
	for _, body := range []string{"", "x", `{"kind":"reboot","domain":"web","mode":"cold","unknown":1}`} {
		if w := ask("POST", "/v1/operations", body); w.Code != http.StatusBadRequest || e.mode != "" {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	w := ask("POST", "/v1/operations", `{"kind":"reboot","domain":"web","mode":"cold"}`)
	at := w.Header().Get("Location")
	if w.Code != http.StatusAccepted || at != "/v1/operations/0" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := ask("GET", at, ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"mode":"cold"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/v1/operations/none", "/v1/operations/none/events"} {
		if w := ask("GET", path, ""); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), `"not_found"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if w := ask("DELETE", at+"?by=ann", ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"by":"ann"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask("DELETE", "/v1/operations/none", ""); w.Code != http.StatusNotFound {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask("GET", "/v1/plan?kind=reboot&domain=web&mode=cold&override=perhaps", ""); w.Code != http.StatusBadRequest {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
