// Package page looks at the status pages and at a report in a real browser,
// without a screen. It needs chromium, and runs with the flag -browser only:
// `make test-page` installs the one and gives the other.
package page

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/web"
	"github.com/warmreboot/warmreboot/internal/web/webtest"
	"github.com/warmreboot/warmreboot/internal/webserver"
)

var browser = flag.Bool("browser", false, "run the tests that need chromium")

func TestMain(m *testing.M) {
	flag.Parse()
	if !*browser {
		fmt.Println("the browser is off: no test of this package was run; `make test-page` runs them")
		return
	}
	os.Exit(m.Run())
}

// network is all that the browser can reach: it asks this proxy for everything, this
// host included.
type network struct {
	handler http.Handler
	mu      sync.Mutex
	asked   []string
}

func (n *network) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	n.asked = append(n.asked, r.Method+" "+r.URL.String())
	n.mu.Unlock()
	if r.Method == http.MethodConnect || r.URL.Host != "" && r.URL.Hostname() != "127.0.0.1" {
		http.Error(w, "there is no other net", http.StatusBadGateway)
		return
	}
	n.handler.ServeHTTP(w, r)
}

// pages are those of the example.
func pages(t *testing.T) *network {
	t.Helper()
	return &network{handler: webserver.Handler(webserver.Options{Source: webtest.New(), Metrics: promhttp.Handler(),
		Host: func() api.Host { return api.Host{Version: "1.2", Warmcache: "yes"} },
		Log:  slog.New(slog.NewTextHandler(io.Discard, nil))})}
}

// shown is what a browser makes of a page.
type shown struct {
	dom    string
	image  image.Image
	stderr string
}

// open has the browser open a page twice, for its document and for its image.
func open(t *testing.T, n *network, where string, size string, more ...string) shown {
	t.Helper()
	proxy := httptest.NewServer(n)
	t.Cleanup(proxy.Close)
	var s shown
	run := func(args ...string) []byte {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, "chromium", slices.Concat([]string{"--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
			"--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr",
			"--user-data-dir=" + t.TempDir(), "--proxy-server=" + proxy.URL, "--proxy-bypass-list=<-loopback>", "--window-size=" + size}, more, args, []string{where})...)
		var stdout, stderr bytes.Buffer
		c.Stdout, c.Stderr = &stdout, &stderr
		if err := c.Run(); err != nil {
			t.Fatalf("chromium: %v\n%s", err, stderr.String())
		}
		s.stderr += stderr.String()
		return stdout.Bytes()
	}
	s.dom = string(run("--dump-dom"))
	file := filepath.Join(t.TempDir(), "page.png")
	run("--screenshot=" + file)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if s.image, err = png.Decode(f); err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(s.stderr, "\n") {
		if strings.Contains(line, "CONSOLE") || strings.Contains(line, "Content Security Policy") {
			t.Errorf("the browser complains: %s", line)
		}
	}
	return s
}

// pixels counts those of a colour, about.
func pixels(m image.Image, want color.RGBA) (n int) {
	near := func(a uint32, b uint8) bool { d := int(a>>8) - int(b); return d < 12 && d > -12 }
	b := m.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, g, bl, _ := m.At(x, y).RGBA()
			if near(r, want.R) && near(g, want.G) && near(bl, want.B) {
				n++
			}
		}
	}
	return n
}

var (
	warm = color.RGBA{0xc2, 0x41, 0x0c, 0xff} // of bars and curves
	cold = color.RGBA{0x25, 0x63, 0xa8, 0xff} // of marks
)

func (s shown) has(t *testing.T, texts ...string) {
	t.Helper()
	for _, x := range texts {
		if !strings.Contains(s.dom, x) {
			t.Errorf("no %q in\n%s", x, s.dom)
		}
	}
}

func TestHostPage(t *testing.T) {
	n := pages(t)
	s := open(t, n, "http://127.0.0.1:9816/", "1000,800")
	s.has(t, "<h1>Domains</h1>", `<a href="/domains/`+webtest.UUID.String()+`">web&lt;script&gt;`, "49.3 %", "Latest reboots")
	n.onlyAsked(t, "/")
}

func TestDomainPage(t *testing.T) {
	n := pages(t)
	s := open(t, n, "http://127.0.0.1:9816/domains/"+webtest.UUID.String(), "1000,1600")
	s.has(t, "preserved by Xen", "<polyline", "8 sectors were written while the guest was down", `id="refused"`)
	s.drawn(t)
	n.onlyAsked(t, "/domains/"+webtest.UUID.String())
	// On a telephone nothing is wider than the screen but tables, which scroll.
	if m := open(t, pages(t), "http://127.0.0.1:9816/domains/"+webtest.UUID.String(), "500,1600").image; m.Bounds().Dx() != 500 || pixels(m, warm) < 200 {
		t.Errorf("narrow: %v, %d pixels", m.Bounds(), pixels(m, warm))
	}
}

// TestReportFile: a report is opened as a file, and asks for nothing.
func TestReportFile(t *testing.T) {
	d, err := web.Collect(t.Context(), webtest.New(), webtest.Name, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := web.RenderReport(&b, d, "1.2", time.Now()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	n := &network{handler: http.NotFoundHandler()}
	s := open(t, n, (&url.URL{Scheme: "file", Path: path}).String(), "1000,1600")
	s.has(t, "preserved by Xen", "<polyline", "64\u202f592")
	s.drawn(t)
	n.onlyAsked(t)
	// A script in a name is text.
	if strings.Contains(s.dom, "<script") {
		t.Error("a script got in")
	}
}

// drawn asserts that bars, curves and marks can be seen.
func (s shown) drawn(t *testing.T) {
	t.Helper()
	if n := pixels(s.image, warm); n < 5000 {
		t.Errorf("bars and curves have %d pixels", n)
	}
	if n := pixels(s.image, cold); n < 100 {
		t.Errorf("marks have %d pixels", n)
	}
}

// makers are whom chromium asks by itself when it starts.
var makers = []string{"google.com", "googleapis.com", "gvt1.com"}

// onlyAsked asserts that the page made the browser ask for nothing but the paths,
// on this host.
func (n *network) onlyAsked(t *testing.T, paths ...string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range n.asked {
		_, where, _ := strings.Cut(a, " ")
		u, err := url.Parse(where)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(makers, func(m string) bool { return strings.HasSuffix(u.Hostname(), "."+m) }) {
			continue
		}
		if u.Hostname() != "127.0.0.1" || !slices.Contains(append(paths, "/favicon.ico"), u.Path) {
			t.Errorf("asked for %s", a)
		}
	}
	for _, p := range paths {
		if !slices.ContainsFunc(n.asked, func(a string) bool { return strings.HasSuffix(a, p) }) {
			t.Errorf("%s was not asked for: %v", p, n.asked)
		}
	}
}
