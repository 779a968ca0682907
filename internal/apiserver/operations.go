package apiserver

import (
	"encoding/json"
	"net/http"

	"github.com/warmreboot/warmreboot/api"
)

// ServeOperations serves o beside a Service.
func ServeOperations(o api.Operations) func(*Router) {
	return func(mux *Router) {
		question(mux, "GET /v1/plan", func(r *http.Request) (api.Plan, error) {
			q := r.URL.Query()
			override, err := boolean(q, "override")
			if err != nil {
				return api.Plan{}, err
			}
			var update *api.UpdateRequest
			if raw := q.Get("update"); raw != "" {
				if err := json.Unmarshal([]byte(raw), &update); err != nil {
					return api.Plan{}, api.Errorf(api.BadRequest, "update: %v", err)
				}
			}
			return o.Plan(r.Context(), api.OperationRequest{Update: update, Kind: api.OperationKind(q.Get("kind")), Domain: q.Get("domain"), Mode: api.Trigger(q.Get("mode")), Override: override})
		})
		question(mux, "GET /v1/operations", func(r *http.Request) ([]api.Operation, error) { return o.Operations(r.Context()) })
		mux.Handle("POST /v1/operations", func(w http.ResponseWriter, r *http.Request) {
			var v api.Operation
			req, err := body[api.OperationRequest](w, r)
			if err == nil {
				v, err = o.Begin(r.Context(), req)
			}
			if err == nil {
				w.Header().Set("Location", "/v1/operations/"+v.ID)
			}
			answerWith(w, http.StatusAccepted, v, err)
		})
		question(mux, "GET /v1/operations/{id}", func(r *http.Request) (api.Operation, error) {
			return o.Operation(r.Context(), r.PathValue("id"))
		})
		question(mux, "DELETE /v1/operations/{id}", func(r *http.Request) (api.Operation, error) {
			return o.Cancel(r.Context(), r.PathValue("id"), r.URL.Query().Get("by"))
		})
		mux.Handle("GET /v1/operations/{id}/events", func(w http.ResponseWriter, r *http.Request) {
			stream(w, r, o.Follow(r.Context(), r.PathValue("id")))
		})
	}
}
