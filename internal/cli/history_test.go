package cli

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/state"
)

func scheduledEntry() api.HistoryEntry {
	s := warmSummary()
	s.By, s.Schedule, s.Started = api.BySchedule, "weekly", time.Now()
	return api.HistoryEntry{ID: 3, Summary: s, Followed: "alert",
		Hooks:  []api.StepResult{{Name: "after", What: "/bin/false", Detail: "exit status 1"}},
		Health: &api.StepResult{Name: "health", What: "http://web/", Detail: "503"}}
}

func TestHistory(t *testing.T) {
	s := &fakeService{entries: []api.HistoryEntry{scheduledEntry()}}
	r := runCLI(s, nil, "history", "web", "--since", "7d", "--by", "schedule", "--limit", "3")
	if age := time.Since(s.query.Since).Round(time.Hour); r.code != 0 || s.query.Domain != "web" || age != 7*24*time.Hour ||
		s.query.By != api.BySchedule || s.query.Limit != 3 {
		t.Errorf("%+v, asked %+v", r, s.query)
	}
	for _, want := range []string{"schedule weekly", "warm", "970", "1000", "1.2 s", "hook after failed; health check failed: 503; alert"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
	var got []map[string]any
	runCLI(s, nil, "history", "-o", "json").json(t, &got)
	if len(got) != 1 || got[0]["pages_restored"] != 970.0 || got[0]["by"] != "schedule" || got[0]["schedule"] != "weekly" || got[0]["id"] != 3.0 {
		t.Errorf("%+v", got)
	}
}

// TestHistoryWithoutAgent: what the daemon has left can be read.
func TestHistoryWithoutAgent(t *testing.T) {
	down := &fakeService{err: api.Errorf(api.AgentDown, "no daemon")}
	dir := t.TempDir()
	if r := runCLI(down, nil, "history", "--state-dir", dir); r.code != ExitAgentDown || r.out != "" {
		t.Errorf("without a file: %+v", r)
	}
	s, err := state.Open(filepath.Join(dir, state.FileName), state.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(scheduledEntry()); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if r := runCLI(down, nil, "history", "--state-dir", dir); r.code != 0 || !strings.Contains(r.out, "schedule weekly") || !strings.Contains(r.stderr, "no daemon") {
		t.Errorf("%+v", r)
	}
}
