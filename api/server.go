package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/warmreboot/warmreboot/internal/text"
)

// Service is what the daemon can do. Domains are named by name, domid or UUID.
// Errors that are no *Error count as Failed.
type Service interface {
	List(ctx context.Context) ([]DomainStatus, error)
	// Status returns at once, or, with wait, when no reboot is under way.
	Status(ctx context.Context, domain string, wait bool) (DomainStatus, error)
	Enable(ctx context.Context, domain string, p Policy) (DomainStatus, error)
	Disable(ctx context.Context, domain string) (DomainStatus, error)
	Drop(ctx context.Context, domain string) (DropResult, error)
	Plan(ctx context.Context, domain string, mode Trigger) (Plan, error)
	// Reboot returns when the reboot has ended, or ctx has. In the latter case
	// the error is TimedOut and the summary says how far it got.
	Reboot(ctx context.Context, domain string, mode Trigger) (Summary, error)
}

// contentType is that of every answer.
const contentType = "application/json"

// maxRequest bounds the body of a request, in bytes.
const maxRequest = 64 << 10

// response is the body of every answer.
type response[T any] struct {
	Result T      `json:"result"`
	Error  *Error `json:"error,omitempty"`
}

// Handler serves s, and what else is given.
func Handler(s Service, more ...func(*Router)) http.Handler {
	mux := &Router{}
	for _, m := range more {
		m(mux)
	}
	mux.Handle("GET /v1/domains", func(w http.ResponseWriter, r *http.Request) {
		v, err := s.List(r.Context())
		answer(w, v, err)
	})
	mux.Handle("GET /v1/domains/{domain}", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := withTimeout(r, r.URL.Query().Get("timeout"))
		defer cancel()
		v, err := s.Status(ctx, r.PathValue("domain"), r.URL.Query().Get("wait") == "1")
		answer(w, v, err)
	})
	mux.Handle("GET /v1/domains/{domain}/plan", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if r.URL.Query().Get("override") == "1" {
			ctx = WithOverride(ctx)
		}
		v, err := s.Plan(ctx, r.PathValue("domain"), Trigger(r.URL.Query().Get("mode")))
		answer(w, v, err)
	})
	mux.Handle("POST /v1/domains/{domain}/enable", func(w http.ResponseWriter, r *http.Request) {
		req, err := body[EnableRequest](w, r)
		if err != nil {
			answer(w, DomainStatus{}, err)
			return
		}
		v, err := s.Enable(r.Context(), r.PathValue("domain"), req.Policy)
		answer(w, v, err)
	})
	mux.Handle("POST /v1/domains/{domain}/disable", func(w http.ResponseWriter, r *http.Request) {
		v, err := s.Disable(r.Context(), r.PathValue("domain"))
		answer(w, v, err)
	})
	mux.Handle("POST /v1/domains/{domain}/drop", func(w http.ResponseWriter, r *http.Request) {
		v, err := s.Drop(r.Context(), r.PathValue("domain"))
		answer(w, v, err)
	})
	mux.Handle("POST /v1/domains/{domain}/reboot", func(w http.ResponseWriter, r *http.Request) {
		req, err := body[RebootRequest](w, r)
		if err != nil {
			answer(w, Summary{}, err)
			return
		}
		ctx, cancel := withTimeout(r, strconv.FormatFloat(req.TimeoutSeconds, 'f', -1, 64))
		defer cancel()
		if req.Override {
			ctx = WithOverride(ctx)
		}
		v, err := s.Reboot(ctx, r.PathValue("domain"), req.Mode)
		answer(w, v, err)
	})
	return mux
}

// withTimeout bounds a request; no or a bad number of seconds is no bound but
// the client's patience.
func withTimeout(r *http.Request, seconds string) (context.Context, context.CancelFunc) {
	v, err := strconv.ParseFloat(seconds, 64)
	if err != nil || v <= 0 || v > 1e6 {
		return context.WithCancel(r.Context())
	}
	return context.WithTimeout(r.Context(), time.Duration(v*float64(time.Second)))
}

func body[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	var v T
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, Errorf(BadRequest, "request: %v", err)
	}
	return v, nil
}

var httpStatus = map[Code]int{
	BadRequest: http.StatusBadRequest, NotFound: http.StatusNotFound,
	NoWarmcache: http.StatusNotImplemented, NotTracked: http.StatusConflict,
	TimedOut: http.StatusGatewayTimeout, CameBackCold: http.StatusOK,
	Locked: http.StatusLocked, VersionSkew: http.StatusNotImplemented,
}

func answer[T any](w http.ResponseWriter, v T, err error) {
	r := response[T]{Result: v}
	status := http.StatusOK
	if err != nil {
		r.Error = asError(err)
		if status = httpStatus[r.Error.Code]; status == 0 {
			status = http.StatusInternalServerError
		}
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(text.UTF8(r))
}

// asError returns err as one that can be sent.
func asError(err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		e = Errorf(Failed, "%v", err)
	}
	return e
}
