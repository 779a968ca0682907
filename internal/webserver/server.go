// Package webserver serves the read-only status pages of package web, and the
// metrics.
package webserver

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/web"
)

// Options are what Handler needs.
type Options struct {
	Source  web.Source
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
		h, err := web.CollectHost(r.Context(), o.Source, o.Host())
		o.answer(w, "host", err, func(b io.Writer) error { return web.RenderHost(b, h, o.Host().Version, time.Now()) })
	})
	mux.HandleFunc("GET /domains/{domain}", func(w http.ResponseWriter, r *http.Request) {
		d, err := web.Collect(r.Context(), o.Source, r.PathValue("domain"), 0)
		o.answer(w, "domain", err, func(b io.Writer) error { return web.RenderDomain(b, d, o.Host().Version, time.Now()) })
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

func (o Options) answer(w http.ResponseWriter, page string, err error, render func(io.Writer) error) {
	var b bytes.Buffer
	if err == nil {
		err = render(&b)
	}
	if err != nil {
		status := http.StatusInternalServerError
		var e *api.Error
		if errors.As(err, &e) && e.Code == api.NotFound {
			status = http.StatusNotFound
		}
		o.Log.Warn("page", "op", page, "err", err)
		http.Error(w, err.Error(), status)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = b.WriteTo(w)
}
