// Package apiserver answers what package api asks: it serves a daemon's services as
// HTTP.
package apiserver

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/text"
)

// maxRequest bounds the body of a request, in bytes.
const maxRequest = 64 << 10

// question serves what is answered at once.
func question[T any](mux *Router, pattern string, answers func(*http.Request) (T, error)) {
	mux.Handle(pattern, func(w http.ResponseWriter, r *http.Request) {
		v, err := answers(r)
		answer(w, v, stopped(r, err))
	})
}

// request serves a question with a body.
func request[Q, T any](mux *Router, pattern string, answers func(*http.Request, Q) (T, error)) {
	mux.Handle(pattern, func(w http.ResponseWriter, r *http.Request) {
		var v T
		q, err := body[Q](w, r)
		if err == nil {
			v, err = answers(r, q)
		}
		answer(w, v, stopped(r, err))
	})
}

// Handler serves s, and what else is given.
func Handler(s api.Service, more ...func(*Router)) http.Handler {
	mux := &Router{}
	for _, m := range more {
		m(mux)
	}
	question(mux, "GET /v1/domains", func(r *http.Request) ([]api.DomainStatus, error) { return s.List(r.Context()) })
	question(mux, "GET /v1/domains/{domain}", func(r *http.Request) (api.DomainStatus, error) {
		wait, err := boolean(r.URL.Query(), "wait")
		if err != nil {
			return api.DomainStatus{}, err
		}
		ctx, cancel, err := withTimeout(r)
		if err != nil {
			return api.DomainStatus{}, err
		}
		defer cancel()
		return s.Status(ctx, r.PathValue("domain"), wait)
	})
	request(mux, "POST /v1/domains/{domain}/enable", func(r *http.Request, q api.EnableRequest) (api.DomainStatus, error) {
		return s.Enable(r.Context(), r.PathValue("domain"), q.Policy)
	})
	question(mux, "POST /v1/domains/{domain}/disable", func(r *http.Request) (api.DomainStatus, error) {
		return s.Disable(r.Context(), r.PathValue("domain"))
	})
	question(mux, "POST /v1/domains/{domain}/drop", func(r *http.Request) (api.DropResult, error) {
		return s.Drop(r.Context(), r.PathValue("domain"))
	})
	return mux
}

// boolean returns a parameter that is false if it is not there.
func boolean(q url.Values, name string) (bool, error) {
	v, err := strconv.ParseBool(q.Get(name))
	if err != nil && q.Has(name) {
		return false, api.Errorf(api.BadRequest, "%s is %q, must be true or false", name, q.Get(name))
	}
	return v, nil
}

// withTimeout bounds a request by its parameter, a number of seconds; without, there is
// no bound but the client's patience.
func withTimeout(r *http.Request) (context.Context, context.CancelFunc, error) {
	q := r.URL.Query()
	if !q.Has("timeout") {
		ctx, cancel := context.WithCancel(r.Context())
		return ctx, cancel, nil
	}
	v, err := strconv.ParseFloat(q.Get("timeout"), 64)
	if err != nil || !(v > 0 && v <= 1e6) {
		return nil, nil, api.Errorf(api.BadRequest, "timeout is %q, must be a number of seconds, up to 1000000", q.Get("timeout"))
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(v*float64(time.Second)))
	return ctx, cancel, nil
}

func body[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	var v T
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, api.Errorf(api.BadRequest, "request: %v", err)
	}
	return v, nil
}

var httpStatus = map[api.Code]int{
	api.BadRequest: http.StatusBadRequest, api.NotFound: http.StatusNotFound,
	api.NoWarmcache: http.StatusNotImplemented, api.NotTracked: http.StatusConflict,
	api.TimedOut: http.StatusGatewayTimeout, api.CameBackCold: http.StatusOK,
	api.Locked: http.StatusLocked, api.VersionSkew: http.StatusNotImplemented,
}

func answer[T any](w http.ResponseWriter, v T, err error) { answerWith(w, http.StatusOK, v, err) }

// answerWith answers with that status, unless there is an error.
func answerWith[T any](w http.ResponseWriter, status int, v T, err error) {
	r := api.Answer[T]{Result: v}
	if err != nil {
		r.Error = api.AsError(err)
		if status = httpStatus[r.Error.Code]; status == 0 {
			status = http.StatusInternalServerError
		}
	}
	w.Header().Set("Content-Type", api.ContentType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(text.UTF8(r))
}

// stopped is what is said if a request has ended before its answer was there: the
// asker has hung up, and hears nothing, or the daemon stops.
func stopped(r *http.Request, err error) error {
	switch {
	case err == nil || r.Context().Err() == nil:
		return err
	case r.Method != http.MethodGet:
		return api.Errorf(api.Failed, "warmrebootd stops, and may have done it: warmreboot status shows how it is")
	}
	return api.Errorf(api.AgentDown, "warmrebootd stops")
}

// stream answers with all items. An error before the first is an ordinary answer.
func stream[T any](w http.ResponseWriter, r *http.Request, items iter.Seq2[T, error]) {
	began := false
	flush := http.NewResponseController(w) // what comes later may be minutes away
	enc := json.NewEncoder(w)
	begin := func() {
		if !began {
			w.Header().Set("Content-Type", api.StreamType)
			began = true
		}
	}
	for item, err := range items {
		if err = stopped(r, err); err != nil {
			if !began {
				answer(w, struct{}{}, err)
				return
			}
			_ = enc.Encode(text.UTF8(api.Line[T]{Error: api.AsError(err)}))
			return
		}
		begin()
		if enc.Encode(text.UTF8(api.Line[T]{Item: &item})) != nil || flush.Flush() != nil {
			return // nobody reads it any more
		}
	}
	begin()
	_ = enc.Encode(api.Line[T]{End: true})
}

// ServeHistory serves h beside a Service.
func ServeHistory(h api.History) func(*Router) {
	return func(mux *Router) {
		mux.Handle("GET /v1/history", func(w http.ResponseWriter, r *http.Request) {
			q, err := parseHistoryQuery(r.URL.Query())
			if err != nil {
				answer(w, []api.HistoryEntry{}, err)
				return
			}
			stream(w, r, h.History(r.Context(), q))
		})
	}
}

func parseHistoryQuery(v url.Values) (q api.HistoryQuery, err error) {
	q.Domain, q.By = v.Get("domain"), api.Origin(v.Get("by"))
	if s := v.Get("since"); s != "" {
		if q.Since, err = time.Parse(time.RFC3339Nano, s); err != nil {
			return q, api.Errorf(api.BadRequest, "since: %v", err)
		}
	}
	if s := v.Get("before"); s != "" {
		if q.Before, err = strconv.ParseUint(s, 10, 64); err != nil {
			return q, api.Errorf(api.BadRequest, "before is %q, must be the number of an entry", s)
		}
	}
	if s := v.Get("limit"); s != "" {
		if q.Limit, err = strconv.Atoi(s); err != nil || q.Limit < 0 {
			return q, api.Errorf(api.BadRequest, "limit is %q, must be a number", s)
		}
	}
	return q, nil
}

// ServeSamples serves s beside a Service.
func ServeSamples(s api.Samples) func(*Router) {
	return func(mux *Router) {
		question(mux, "GET /v1/samples/{uuid}", func(r *http.Request) ([]api.Sample, error) {
			none := []api.Sample{}
			uuid, err := ident.ParseUUID(r.PathValue("uuid"))
			if err != nil {
				return none, api.Errorf(api.BadRequest, "%v", err)
			}
			var down time.Time
			if v := r.URL.Query().Get("down"); v != "" {
				if down, err = time.Parse(time.RFC3339Nano, v); err != nil {
					return none, api.Errorf(api.BadRequest, "down: %v", err)
				}
			}
			return s.Samples(r.Context(), uuid, down)
		})
	}
}

// ServeHost serves what f returns.
func ServeHost(f func() api.Host) func(*Router) {
	return func(mux *Router) {
		question(mux, "GET /v1/host", func(*http.Request) (api.Host, error) { return f(), nil })
	}
}

// ServeSchedules serves s beside a Service.
func ServeSchedules(s api.Schedules) func(*Router) {
	return func(mux *Router) {
		ServeHistory(s)(mux)
		question(mux, "GET /v1/config", func(r *http.Request) (api.ConfigStatus, error) { return s.Config(r.Context()) })
		question(mux, "GET /v1/forecast", func(r *http.Request) (api.Forecast, error) {
			return s.Forecast(r.Context(), r.URL.Query().Get("domain"))
		})
		request(mux, "POST /v1/domains/{domain}/lock", func(r *http.Request, q api.LockRequest) (api.LockStatus, error) {
			return s.Lock(r.Context(), r.PathValue("domain"), q)
		})
		question(mux, "POST /v1/domains/{domain}/unlock", func(r *http.Request) (api.LockStatus, error) {
			return s.Unlock(r.Context(), r.PathValue("domain"))
		})
		question(mux, "POST /v1/schedules/{schedule}/resume", func(r *http.Request) (api.HaltedRules, error) {
			return s.Resume(r.Context(), r.PathValue("schedule"))
		})
	}
}
