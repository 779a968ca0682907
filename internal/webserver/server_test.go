package webserver

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/web/webtest"
)

// external are ways to make a browser ask for something else.
var external = regexp.MustCompile(`(?i)<script|<link|<img|<iframe|\bsrc\s*=|@import|url\(|https?:`)

func handler(s *webtest.Source) http.Handler {
	return Handler(Options{Source: s, Host: func() api.Host { return api.Host{Version: "1.2", Warmcache: "yes"} },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("figures")) }),
		Log:     slog.New(slog.NewTextHandler(io.Discard, nil))})
}

func TestHandler(t *testing.T) {
	s := webtest.New()
	h := handler(s)
	ask := func(method, url string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, url, nil))
		return w
	}
	for path, want := range map[string]string{"/": `<a href="/domains/` + webtest.UUID.String(), "/metrics": "figures",
		"/domains/" + webtest.UUID.String(): "preserved by Xen"} {
		w := ask("GET", "http://localhost:9"+path)
		text := w.Body.String()
		if w.Code != http.StatusOK || !strings.Contains(text, want) || w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %d %v\n%s", path, w.Code, w.Header(), text)
		}
		if path != "/metrics" && (external.MatchString(text) || !strings.Contains(text, `http-equiv="refresh"`) || strings.Contains(text, "<script>alert")) {
			t.Errorf("%s:\n%s", path, text)
		}
	}
	for url, want := range map[string]int{"http://localhost/domains/nobody": 404, "http://localhost/v1/domains": 404, "http://localhost/x": 404,
		"http://evil.example/": 421, "http://evil.example:80/metrics": 421, "http://10.0.0.1/": 421, "http://127.0.0.1:80/": 200, "http://[::1]:80/": 200, "http://[::1]/": 200} {
		if w := ask("GET", url); w.Code != want {
			t.Errorf("%s: %d, want %d", url, w.Code, want)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		for _, path := range []string{"/", "/metrics", "/domains/" + webtest.UUID.String()} {
			if w := ask(method, "http://localhost"+path); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	s.Err = errors.New("no hypercalls")
	if w := ask("GET", "http://localhost/"); w.Code != 500 || !strings.Contains(w.Body.String(), "no hypercalls") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
