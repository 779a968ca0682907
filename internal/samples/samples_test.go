package samples

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

// world is a sysfs and a source of domains.
type world struct {
	t   *testing.T
	sys string
	all []api.DomainStatus
}

func (w *world) Kept(context.Context) ([]api.DomainStatus, error) { return w.all, nil }

func (w *world) count(path string, v uint64) {
	w.t.Helper()
	path = filepath.Join(w.sys, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d\n", v), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

var (
	web  = ident.UUID{1}
	zero = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

func newWorld(t *testing.T) (*world, *Sampler) {
	w := &world{t: t, sys: t.TempDir(), all: []api.DomainStatus{{UUID: web, Domid: 3, Managed: true}, {UUID: ident.UUID{2}, Domid: 4}}}
	return w, &Sampler{Source: w, Sys: w.sys, Dir: filepath.Join(t.TempDir(), "samples"), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

func (s *Sampler) all(t *testing.T, down time.Time) []api.Sample {
	t.Helper()
	v, err := s.Samples(context.Background(), web, down)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestReboot: counters of all of a domain's backends are added up, and begin
// anew with the next domain.
func TestReboot(t *testing.T) {
	w, s := newWorld(t)
	disk := func(domid, vbd int, sectors uint64) {
		w.count(fmt.Sprintf("bus/xen-backend/devices/vbd-%d-%d/statistics/rd_sect", domid, vbd), sectors)
	}
	at := func(second int) { s.sample(context.Background(), zero.Add(time.Duration(second)*time.Second)) }
	disk(3, 51712, 1000)
	disk(3, 51728, 10)
	disk(33, 51712, 7) // another domain's
	w.count("class/net/vif3.0/statistics/rx_bytes", 5000)
	w.all[0].Committed = 100
	at(0)
	disk(3, 51712, 1008)
	disk(3, 51728, 11)
	w.count("class/net/vif3.0/statistics/rx_bytes", 5600)
	at(1)
	w.all[0].Domid, w.all[0].Committed = 0, 0
	at(2)
	w.all[0].Domid, w.all[0].Committed = 5, 90
	w.all[0].Report = &api.Report{Restored: 80}
	disk(5, 51712, 4)
	at(4)
	got := s.all(t, time.Time{})
	want := []api.Sample{
		{At: zero.Add(time.Second), Seconds: 1, Domid: 3, DiskRead: 9 * 512, NetSent: 600, Reusable: 100},
		{At: zero.Add(2 * time.Second), Seconds: 1},
		{At: zero.Add(4 * time.Second), Seconds: 2, Domid: 5, DiskRead: 4 * 512, Reusable: 90, Restored: 80},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %+v, want %+v", i, got[i], want[i])
		}
	}
	if len(s.domains) != 1 {
		t.Errorf("%d domains are sampled, one is kept", len(s.domains))
	}
}

// TestKept: what is around a reboot survives the daemon, and no more than the
// latest reboots are kept.
func TestKept(t *testing.T) {
	w, s := newWorld(t)
	for i := range 200 {
		s.sample(context.Background(), zero.Add(time.Duration(i)*time.Second))
	}
	down := zero.Add(100 * time.Second)
	s.Finished(api.Summary{UUID: web, Started: down})
	s.Finished(api.Summary{UUID: ident.UUID{9}, Started: down}) // unknown
	s.Finished(api.Summary{UUID: web})                          // did not even begin
	if n := len(s.domains[web].save); n != 1 {
		t.Errorf("%d reboots are to be kept", n)
	}
	s.keep(time.Now())
	again := &Sampler{Source: w, Dir: s.Dir, Log: s.Log}
	if got := again.all(t, down); len(got) != 0 {
		t.Errorf("kept before its time: %d", len(got))
	}
	if got := s.all(t, down); len(got) != 160 {
		t.Errorf("%d samples around it", len(got))
	}
	s.keep(time.Time{}) // the daemon stops
	got := again.all(t, down)
	if len(got) != 160 || !got[0].At.Equal(down.Add(-before)) || !got[159].At.Equal(zero.Add(199*time.Second)) {
		t.Errorf("%d samples", len(got))
	}
	for i := range 2 * keptReboots {
		s.Finished(api.Summary{UUID: web, Started: down.Add(time.Duration(i) * time.Second)})
		s.keep(time.Time{})
	}
	if files, _ := os.ReadDir(s.dir(web).Path); len(files) != keptReboots {
		t.Errorf("%d files", len(files))
	}
	if got := again.all(t, down); len(got) != 0 {
		t.Errorf("the oldest is still there: %d", len(got))
	}
}

func TestRingIsBounded(t *testing.T) {
	_, s := newWorld(t)
	for i := range ringLen + 50 {
		s.sample(context.Background(), zero.Add(time.Duration(i)*time.Second))
	}
	if got := s.all(t, time.Time{}); len(got) != ringLen || !got[0].At.Equal(zero.Add(50*time.Second)) {
		t.Errorf("%d samples from %v", len(got), got[0].At)
	}
}

// TestOfTheFirstRelease: what 0.1.0 has written is shown; what is damaged is not.
func TestOfTheFirstRelease(t *testing.T) {
	_, s := newWorld(t)
	if err := os.MkdirAll(s.dir(web).Path, 0o700); err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string]int{
		`[{"at":"2026-01-02T03:04:05Z","seconds":1,"disk_read":512},{"at":"2026-01-02T03:04:06Z","seconds":1}]`: 2,
		`[{"at":"2026-01-02T03:04:05Z"`: -1,
		"":                              -1,
	} {
		if err := os.WriteFile(filepath.Join(s.dir(web).Path, fileName(zero)), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := s.Samples(context.Background(), web, zero)
		if (err != nil) != (want < 0) || want > 0 && (len(v) != want || v[0].DiskRead != 512) {
			t.Errorf("%q: %+v, %v", content, v, err)
		}
	}
}

// TestForgotten: of a domain that is gone nothing is left, and of no more domains
// than keptDomains is there anything, whoever forgets to forget.
func TestForgotten(t *testing.T) {
	_, s := newWorld(t)
	reboot := func(u ident.UUID, down time.Time) {
		t.Helper()
		if err := s.write(u, down, []api.Sample{{At: down}}); err != nil {
			t.Fatal(err)
		}
	}
	reboot(web, zero)
	s.sample(context.Background(), zero)
	s.Forget(web)
	if _, err := os.Stat(s.dir(web).Path); !os.IsNotExist(err) || len(s.domains) != 0 {
		t.Errorf("%v, %d domains", err, len(s.domains))
	}
	s.Forget(web)
	for i := range keptDomains + 2 { // by a daemon that did not know of the bound
		dir := s.dir(ident.UUID{byte(i), byte(i >> 8), 1}).Path
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fileName(zero.Add(time.Duration(i)*time.Minute))), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const last = keptDomains + 2
	reboot(ident.UUID{byte(last & 0xff), last >> 8, 1}, zero.Add(last*time.Minute))
	entries, err := os.ReadDir(s.Dir)
	if err != nil || len(entries) != keptDomains {
		t.Fatalf("%d domains, %v", len(entries), err)
	}
	for i, there := range map[int]bool{0: false, 2: false, 3: true, keptDomains + 2: true} {
		if _, err := os.Stat(s.dir(ident.UUID{byte(i), byte(i >> 8), 1}).Path); (err == nil) != there {
			t.Errorf("domain %d: %v", i, err)
		}
	}
}
