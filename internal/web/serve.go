package web

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/warmreboot/warmreboot/api"
)

// Source is what the pages show.
type Source interface {
	List(context.Context) ([]api.DomainStatus, error)
	Status(ctx context.Context, domain string, wait bool) (api.DomainStatus, error)
	api.History
	api.Samples
}

// table is a list of reboots as the template wants it.
type table struct {
	Entries []api.HistoryEntry
	Names   bool // of the domains
}

// Table is the domain's history.
func (d Domain) Table() table { return table{Entries: d.History} }

// Table is the history of all domains.
func (h Host) Table() table { return table{h.History, true} }

// How many reboots a page lists.
const (
	domainReboots = 50
	hostReboots   = 20
)

// Collect asks for all that a page about a domain shows. The reboot with the
// given ID is shown at length, 0: the latest.
func Collect(ctx context.Context, s Source, domain string, id uint64) (Domain, error) {
	st, err := s.Status(ctx, domain, false)
	if err != nil {
		return Domain{}, err
	}
	d := Domain{Status: st}
	if d.History, err = s.History(ctx, api.HistoryQuery{Domain: st.UUID.String(), Limit: domainReboots}); err != nil {
		return Domain{}, err
	}
	for i := range d.History {
		if e := &d.History[i]; id == 0 && !e.Started.IsZero() || id != 0 && e.ID == id {
			d.Reboot = e
			break
		}
	}
	var down time.Time
	switch {
	case d.Reboot != nil:
		down = d.Reboot.Started
	case id != 0:
		return Domain{}, api.Errorf(api.NotFound, "domain %s: there is no reboot %d among its last %d; warmreboot history %s lists them", st.Domain, id, domainReboots, st.Domain)
	}
	d.Samples, err = s.Samples(ctx, st.UUID, down)
	return d, err
}

// Options are what Handler needs.
type Options struct {
	Source  Source
	Host    func() api.Host
	Metrics http.Handler
	Log     *slog.Logger
}

// Handler serves the pages and the metrics, to be read only. Who asks by another
// name than this host's own is refused: a web page of somebody else's that a
// browser on this host shows must not read them (DNS rebinding).
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", o.Metrics)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		h := Host{Host: o.Host()}
		var err error
		if h.Domains, err = o.Source.List(r.Context()); err == nil {
			h.History, err = o.Source.History(r.Context(), api.HistoryQuery{Limit: hostReboots})
		}
		h.frame = o.frame()
		o.answer(w, "host.html", h, err)
	})
	mux.HandleFunc("GET /domains/{domain}", func(w http.ResponseWriter, r *http.Request) {
		d, err := Collect(r.Context(), o.Source, r.PathValue("domain"), 0)
		d.frame = o.frame()
		o.answer(w, "domain.html", d, err)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !localName(r.Host) {
			http.Error(w, "ask for localhost", http.StatusMisdirectedRequest)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

func (o Options) frame() frame {
	return frame{Generated: time.Now(), Live: true, Version: o.Host().Version}
}

// localName reports whether a Host header names this host itself.
func localName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(trimBrackets(host))
	return ip != nil && ip.IsLoopback()
}

func trimBrackets(s string) string {
	if len(s) > 2 && s[0] == '[' && s[len(s)-1] == ']' {
		return s[1 : len(s)-1]
	}
	return s
}

func (o Options) answer(w http.ResponseWriter, name string, data any, err error) {
	var b bytes.Buffer
	if err == nil {
		err = templates.ExecuteTemplate(&b, name, data)
	}
	if err != nil {
		status := http.StatusInternalServerError
		var e *api.Error
		if errors.As(err, &e) && e.Code == api.NotFound {
			status = http.StatusNotFound
		}
		o.Log.Warn("page", "op", name, "err", err)
		http.Error(w, err.Error(), status)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = b.WriteTo(w)
}
