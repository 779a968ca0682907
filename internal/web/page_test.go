package web

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
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
