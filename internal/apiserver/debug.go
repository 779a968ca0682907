package apiserver

import (
	"net/http"
	"net/http/pprof"
)

// ServeDebug serves what Go says of the process (net/http/pprof): where its goroutines
// are, what they cost. It is for the socket that only root can open.
func ServeDebug() func(*Router) {
	return func(mux *Router) {
		mux.Handle("GET /debug/pprof/", pprof.Index)
		mux.Handle("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.Handle("GET /debug/pprof/profile", pprof.Profile)
		mux.Handle("GET /debug/pprof/symbol", pprof.Symbol)
		mux.Handle("GET /debug/pprof/trace", pprof.Trace)
		mux.Handle("GET /debug/pprof/{profile}", func(w http.ResponseWriter, r *http.Request) {
			pprof.Handler(r.PathValue("profile")).ServeHTTP(w, r)
		})
	}
}
