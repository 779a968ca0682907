package apiserver

import (
	"net/http"
	"net/url"
	"strings"
)

// Router serves requests by method and path. Unlike http.ServeMux it takes a path
// as it is: it cleans nothing, sends nobody elsewhere, and a segment is a name of
// any bytes, be it "/" or "..".
type Router struct{ routes []route }

type route struct {
	method   string
	segments []string // a wildcard is {name}
	serve    http.HandlerFunc
}

// Handle serves a pattern as "GET /v1/domains/{domain}". Its wildcards are the
// request's path values.
func (r *Router) Handle(pattern string, h http.HandlerFunc) {
	method, path, _ := strings.Cut(pattern, " ")
	r.routes = append(r.routes, route{method, strings.Split(path, "/"), h})
}

// ServeHTTP implements http.Handler.
func (r *Router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	segments := strings.Split(req.URL.EscapedPath(), "/")
	var methods []string
	for _, route := range r.routes {
		values, ok := route.match(segments)
		if !ok {
			continue
		}
		if route.method != req.Method {
			methods = append(methods, route.method)
			continue
		}
		for name, v := range values {
			req.SetPathValue(name, v)
		}
		route.serve(w, req)
		return
	}
	if methods != nil {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	http.NotFound(w, req)
}

func (r route) match(segments []string) (values map[string]string, ok bool) {
	if len(segments) != len(r.segments) {
		return nil, false
	}
	values = map[string]string{}
	for i, want := range r.segments {
		name, isName := strings.CutPrefix(want, "{")
		if !isName {
			if segments[i] != want {
				return nil, false
			}
			continue
		}
		v, err := url.PathUnescape(segments[i])
		if err != nil || v == "" {
			return nil, false
		}
		values[strings.TrimSuffix(name, "}")] = v
	}
	return values, true
}
