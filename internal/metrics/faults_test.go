package metrics

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

// exposition is a line of Prometheus's text format.
var exposition = regexp.MustCompile(`^(# (HELP|TYPE) .*|[a-z_0-9:]+(\{([a-z]+="([^"\\\n]|\\[n"\\])*",?)*\})? [-+.0-9eInfNa]+)\n$`)

// scrape returns what Prometheus gets, as long as it can read that.
func scrape(t *testing.T, c *Collector) string {
	t.Helper()
	w := httptest.NewRecorder()
	c.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	text := w.Body.String()
	if !utf8.ValidString(text) {
		t.Fatalf("not UTF-8: %q", text)
	}
	for line := range strings.Lines(text) {
		if !exposition.MatchString(line) {
			t.Fatalf("no line of a scrape: %q", line)
		}
	}
	return text
}

// TestAnyLabel: Xen allows any bytes in a name; none ends the daemon, and none
// takes a figure away.
func TestAnyLabel(t *testing.T) {
	for name, label := range map[string]string{
		"caf\xe9": `caf\\xe9`, "a\"b": `a\"b`, "a\nb": `a\nb`, "{}": "{}", "": "", "a\x00b": "a\x00b", "ü": "ü",
		strings.Repeat("x", 4000): strings.Repeat("x", 4000),
	} {
		f, c := example()
		f.all[0].Domain = name
		f.all[0].Custody[0].Name, f.all[0].Refusals[0].Name = name, name
		s := c.Schedules.(*fakeSchedules)
		s.f.Locks[0].Domain, s.f.Runs[0].Domain, s.f.Runs[0].Schedule, s.counts[0].Domain = name, name, name, name
		c.Version = name
		c.Finished(api.Summary{UUID: webUUID, Trigger: api.Trigger(name), Refused: map[string]uint64{name: 3}})
		text := scrape(t, c)
		for _, want := range []string{`warmreboot_pages_reusable{name="` + label + `",uuid="` + webUUID.String() + `"} 600`,
			`warmreboot_guest_refused_pages_total{name="` + label + `",reason="` + label + `"`, `warmreboot_build_info{version="` + label + `"} 1`,
			`warmreboot_schedule_stopped{schedule="` + label + `"} 0`} {
			if !strings.Contains(text, want) {
				t.Errorf("%q: no %s", name, want)
			}
		}
		if strings.Contains(text, "collector_success{collector=\"domains\"} 0") {
			t.Errorf("%q: figures are missing", name)
		}
	}
}

// TestAlone: a collector that fails loses its own figures, says so once, and ends
// neither the others nor the daemon.
func TestAlone(t *testing.T) {
	for what, x := range map[string]struct {
		breaks func(*fakeSource, *Collector)
		failed string
		still  []string
	}{
		"Xen does not answer": {func(f *fakeSource, _ *Collector) { f.err = errors.New("no hypercalls") }, "domains",
			[]string{"warmreboot_domains_success 0", `warmreboot_config_success 0`}},
		"no forecast": {func(_ *fakeSource, c *Collector) { c.Schedules.(*fakeSchedules).err = errors.New("no hypercalls") }, "schedules",
			[]string{"warmreboot_pages_reusable{"}},
		"a panic": {func(_ *fakeSource, c *Collector) { c.Schedules = nil }, "schedules",
			[]string{"warmreboot_pages_reusable{", "warmreboot_build_info"}},
		// One UUID in two configurations: one series of the name and UUID counts.
		"two of one UUID": {func(f *fakeSource, _ *Collector) { f.all = append(f.all, f.all[0]) }, "domains",
			[]string{"warmreboot_pages_reusable{", "warmreboot_config_success", "go_goroutines"}},
	} {
		f, c := example()
		var log bytes.Buffer
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		x.breaks(f, c)
		scrape(t, c)
		text := scrape(t, c)
		for _, k := range []string{"host", "schedules", "domains"} {
			want := `warmreboot_collector_success{collector="` + k + `"} 1`
			if k == x.failed {
				want = want[:len(want)-1] + "0"
			}
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %s", what, want)
			}
		}
		for _, want := range x.still {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %s", what, want)
			}
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "op="+x.failed) {
			t.Errorf("%s: logged %q", what, log.String())
		}
	}
	// A clone of one's own name is two series.
	f, c := example()
	clone := f.all[0]
	clone.Domain = "clone"
	f.all = append(f.all, clone)
	if text := scrape(t, c); !strings.Contains(text, `warmreboot_pages_reusable{name="clone"`) || !strings.Contains(text, `warmreboot_pages_reusable{name="web"`) {
		t.Error("not both of one UUID")
	}
}

// TestAgain: that it works again is said, too.
func TestAgain(t *testing.T) {
	f, c := example()
	var log bytes.Buffer
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	for _, err := range []error{errors.New("a"), errors.New("a"), errors.New("b"), nil, nil} {
		f.err = err
		scrape(t, c)
	}
	if got := strings.Count(log.String(), "cannot be collected"); got != 2 {
		t.Errorf("%d warnings: %s", got, log.String())
	}
	if got := strings.Count(log.String(), "collected again"); got != 1 {
		t.Errorf("%d times again: %s", got, log.String())
	}
}

func FuzzLabel(f *testing.F) {
	f.Add("caf\xe9", "\xff\"\n")
	f.Fuzz(func(t *testing.T, name, disk string) {
		s, c := example()
		s.all = []api.DomainStatus{{Domain: name, UUID: ident.UUID{9}, Managed: true, Custody: []api.VBDCustody{{Name: disk}}}}
		scrape(t, c)
	})
}
