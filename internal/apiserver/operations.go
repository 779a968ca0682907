package apiserver

import (
	"net/http"
	"strconv"

	"github.com/warmreboot/warmreboot/api"
)

// ServeOperations serves o beside a Service.
func ServeOperations(o api.Operations) func(*Router) {
	return func(mux *Router) {
		mux.Handle("GET /v1/plan", func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			override, err := strconv.ParseBool(q.Get("override"))
			if err != nil && q.Has("override") {
				answer(w, api.Plan{}, api.Errorf(api.BadRequest, "override is %q, must be true or false", q.Get("override")))
				return
			}
			v, err := o.Plan(r.Context(), api.OperationRequest{Kind: api.OperationKind(q.Get("kind")), Domain: q.Get("domain"), Mode: api.Trigger(q.Get("mode")), Override: override})
			answer(w, v, err)
		})
		mux.Handle("GET /v1/operations", func(w http.ResponseWriter, r *http.Request) {
			v, err := o.Operations(r.Context())
			answer(w, v, err)
		})
		mux.Handle("POST /v1/operations", func(w http.ResponseWriter, r *http.Request) {
			req, err := body[api.OperationRequest](w, r)
			if err != nil {
				answer(w, api.Operation{}, err)
				return
			}
			v, err := o.Begin(r.Context(), req)
			if err == nil {
				w.Header().Set("Location", "/v1/operations/"+v.ID)
			}
			answerWith(w, http.StatusAccepted, v, err)
		})
		mux.Handle("GET /v1/operations/{id}", func(w http.ResponseWriter, r *http.Request) {
			v, err := o.Operation(r.Context(), r.PathValue("id"))
			answer(w, v, err)
		})
		mux.Handle("GET /v1/operations/{id}/events", func(w http.ResponseWriter, r *http.Request) {
			stream(w, o.Follow(r.Context(), r.PathValue("id")))
		})
	}
}
