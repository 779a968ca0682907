package web

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/web/webtest"
)

func report(t *testing.T, s *webtest.Source, id uint64) string {
	t.Helper()
	d, err := Collect(context.Background(), s, webtest.Name, id)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := RenderReport(&b, d, "1.2", webtest.Down.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// external are ways to make a browser ask for something else.
var external = regexp.MustCompile(`(?i)<script|<link|<img|<iframe|\bsrc\s*=|@import|url\(|https?:`)

func TestReport(t *testing.T) {
	text := report(t, webtest.New(), 0)
	if found := external.FindString(text); found != "" {
		t.Errorf("not self-contained: %q", found)
	}
	for _, want := range []string{"web&lt;script&gt;", `class="warm">warm`, "crash, domid 3 → 4, down 6.0 s, restored after 21.0 s",
		"preserved by Xen", "64\u202f592 (252.3 MiB)", "8 sectors were written while the guest was down", "sector</td>", "it was opened by less",
		"Xen preserved none of the pages", "Throughput: what the domain sent, MiB/s", "Reads from its disks", "restored</text>", "49.3 %"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(text, "refresh") {
		t.Error("a file loads itself again")
	}
	// Every curve and table is well-formed.
	svg := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(text, -1)
	if len(svg) != 3 {
		t.Errorf("%d curves", len(svg))
	}
	for _, s := range svg {
		if err := wellFormed(s); err != nil {
			t.Errorf("%v in\n%s", err, s)
		}
	}
}

func wellFormed(s string) error {
	d := xml.NewDecoder(strings.NewReader(s))
	for {
		if _, err := d.Token(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// TestReportOfAnother: an older reboot can be shown, one that is not there is an
// error, and what was not seen is said so.
func TestReportOfAnother(t *testing.T) {
	s := webtest.New()
	s.Seen = nil
	if text := report(t, s, 9); !strings.Contains(text, `class="cold">cold`) || !strings.Contains(text, "was not seen") || strings.Contains(text, "<svg") {
		t.Error(text)
	}
	var e *api.Error
	if _, err := Collect(context.Background(), s, webtest.Name, 77); !errors.As(err, &e) || e.Code != api.NotFound {
		t.Error(err)
	}
	s.Entries = nil
	if text := report(t, s, 0); !strings.Contains(text, "No reboot has been seen") {
		t.Error(text)
	}
}

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

// TestCurves: the axes hold the curve, and a gap in what was seen is one in it.
func TestCurves(t *testing.T) {
	s := webtest.New()
	d := Domain{Samples: s.Seen, Reboot: &s.Entries[0]}
	for _, c := range charts(d) {
		if len(c.Paths) != 1 || len(c.Marks) != 3 || c.Y[0].Label != "0" || len(c.X) < 3 {
			t.Errorf("%+v", c)
		}
		for _, m := range c.Marks {
			if m.At < c.Left || m.At > c.Right {
				t.Errorf("%s: %+v", c.Title, m)
			}
		}
	}
	d.Samples = append(append([]api.Sample(nil), s.Seen[:50]...), s.Seen[100:]...)
	for _, c := range charts(d) {
		if len(c.Paths) != 2 {
			t.Errorf("%s: %d pieces", c.Title, len(c.Paths))
		}
	}
	for span, want := range map[float64]float64{0: 1, 3: 1, 40: 10, 170: 50, 0.9: 0.5} {
		if got := niceStep(span, 4); got != want {
			t.Errorf("%g: %g, want %g", span, got, want)
		}
	}
}
