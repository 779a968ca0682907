package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
)

var onLab = flag.Bool("lab", false, "run the test that boots the lab")

// TestShortOnLab keeps the benchmark alive: all of it, on little work. It
// asserts nothing about time.
func TestShortOnLab(t *testing.T) { onTheLab(t, Short) }

// TestShortestOnLab does so with one variant of each kind of rounds, which is
// what there is time for each day.
func TestShortestOnLab(t *testing.T) {
	s := Short
	s.Workloads, s.OneVariant = []string{Read, Small, Random, SQLite, Web, Tracking, Neighbour, Scale}, true
	onTheLab(t, s)
}

func onTheLab(t *testing.T, s Settings) {
	if !*onLab {
		t.Log("the lab is off: `make test-lab-all` runs this")
		return
	}
	dir := t.TempDir()
	if err := run(t.Context(), s, lab.Variant{}, "bench-short", dir, false, false, func(what string) { t.Log(what) }); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "failure.log")) // absent if it did not come so far
		t.Fatalf("%v\n%s", err, log)
	}
	text, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	for _, turn := range s.turns() {
		for _, variant := range turn.variants {
			if !r.has(turn.group, variant, turn.repetition) {
				t.Errorf("%s %s was not measured", turn.group, variant)
			}
		}
	}
	// A warm reboot that reads the disk compares nothing with nothing.
	for _, round := range r.Rounds {
		if round.Group != Recovery {
			continue
		}
		read, all := round.Values["large_1_disk_bytes"], round.Values["large_1_bytes"]
		switch round.Variant {
		case Normal:
			if read < all {
				t.Errorf("after a normal reboot %.0f of %.0f bytes were read", read, all)
			}
		case Graceful, Crash:
			if read > all/20 {
				t.Errorf("after a warm reboot (%s) %.0f of %.0f bytes were read", round.Variant, read, all)
			}
		}
	}
}
