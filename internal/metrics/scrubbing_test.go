package metrics

import (
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/scrub"
	"github.com/warmreboot/warmreboot/xenctl"
)

type scrubbed []scrub.Count

func (s scrubbed) Counts() []scrub.Count { return s }

func TestScrubbing(t *testing.T) {
	now := time.Now()
	id := scrub.ID{UUID: ident.UUID{5}, VBD: 51712}
	other := scrub.ID{UUID: ident.UUID{5}, VBD: 51728}
	c := New(Options{Source: &fakeSource{}, Schedules: &fakeSchedules{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Warmcache: func() (xenctl.Feature, error) { return xenctl.Yes, nil }})
	if text := scrape(t, c); strings.Contains(text, "warmreboot_scrub") || !strings.Contains(text, `warmreboot_collector_success{collector="scrubbing"} 1`) {
		t.Error("without a scrubber:", text)
	}
	c.Scrubber = scrubbed{
		{ID: id, Name: "web", Compared: 1000, Differed: 1, NotReadable: 2, First: now.Add(-time.Hour)},
		{ID: other, Name: "web", Compared: 5, First: now.Add(-time.Hour), Since: now.Add(-time.Minute)}}
	text := scrape(t, c)
	for _, want := range []string{
		`warmreboot_scrub_pages_total{ID,vbd="xvda"} 1000`, `warmreboot_scrub_differences_total{ID,vbd="xvda"} 1`, `warmreboot_scrub_unreadable_total{ID,vbd="xvda"} 2`,
		`warmreboot_scrub_oldest_seconds{ID,vbd="xvda"} 360`, `warmreboot_scrub_pages_total{ID,vbd="xvdb"} 5`, `warmreboot_scrub_oldest_seconds{ID,vbd="xvdb"} 6`} {
		want = strings.Replace(want, "ID", `name="web",uuid="`+id.UUID.String()+`"`, 1)
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}
