package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/bench/hand"
)

func TestStatistics(t *testing.T) {
	for _, test := range []struct {
		values []float64
		median float64
	}{{[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 5}, 5}} {
		if s := statistics(test.values); s.Median != test.median || s.Minimum != slices.Min(test.values) || s.Maximum != slices.Max(test.values) {
			t.Errorf("%v: %+v", test.values, s)
		}
	}
}

func TestRotated(t *testing.T) {
	for i, want := range []string{"a", "b", "c", "a"} {
		if got := rotated([]string{"a", "b", "c"}, i); got[0] != want || len(got) != 3 {
			t.Errorf("%d: %v", i, got)
		}
	}
}

func TestFit(t *testing.T) {
	var f Fit
	if !f.line([]float64{0, 1e6, 2e6}, []float64{0.5, 0.7, 0.9}) {
		t.Fatal("no line")
	}
	if math.Abs(f.NSPerPage-200) > 1e-6 || math.Abs(f.Seconds-0.5) > 1e-9 || math.Abs(f.Determination-1) > 1e-9 {
		t.Errorf("%+v", f)
	}
	if f.line([]float64{3, 3}, []float64{1, 2}) {
		t.Error("a line through points above each other")
	}
	if !f.line([]float64{0, 1, 0, 1}, []float64{0, 0, 1, 1}) || f.Determination != 0 {
		t.Errorf("%+v: it explains nothing", f)
	}
}

// TestBarChart: a series has its colour also in a group that lacks the ones before.
func TestBarChart(t *testing.T) {
	chart := barChart("title", "×", []string{"first", "second"}, []bars{{"both", []bar{{0, 1, 1, 1}, {1, 2, 2, 2}}}, {"one", []bar{{1, 3, 3, 3}}}})
	for _, want := range []string{colours[0] + `"><title>both, first: 1`, colours[1] + `"><title>both, second: 2`, colours[1] + `"><title>one, second: 3`} {
		if !strings.Contains(chart, want) {
			t.Errorf("no %s in\n%s", want, chart)
		}
	}
}

// TestReport: what was written can be gone on with, and looked at.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	r := newReport(Short)
	for repetition := range 2 {
		for _, variant := range reboots {
			round := newRound(Recovery, variant, repetition)
			round.Values["large_recovered"] = 0.98
			for _, pass := range []string{"before", "1", "2", "3"} {
				round.take("large_"+pass, hand.Result{Bytes: 1 << 20, Seconds: float64(repetition + 1)}, hand.Outcome{})
			}
			round.Timeline = &hand.Timeline{Answers: []int{3, 0, 2}, Command: 0.3, Service: 0.5, End: 0.7}
			r.Rounds = append(r.Rounds, *round)
		}
	}
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	again := newReport(Short)
	if err := again.resume(dir); err != nil {
		t.Fatal(err)
	}
	if !again.has(Recovery, Crash, 1) || again.has(Recovery, Crash, 2) || len(again.Rounds) != len(r.Rounds) {
		t.Errorf("resumed with %d rounds of %d", len(again.Rounds), len(r.Rounds))
	}
	text, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var read Report
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if s := read.Summary[Recovery][Graceful]["large_1_seconds"]; s.Median != 1.5 || len(s.Values) != 2 {
		t.Errorf("summary: %+v", s)
	}
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Figure 3", "Figure 5", "<polyline", "1.5 <small>(1 … 2)", "cannot be told"} {
		if !bytes.Contains(page, []byte(want)) {
			t.Errorf("the page has no %q", want)
		}
	}
	if bytes.Contains(page, []byte("Figure 4")) {
		t.Error("a figure of what was not measured")
	}
	if other := newReport(Full); other.resume(dir) == nil {
		t.Error("went on with a report of other sizes")
	}
	other := newReport(Short)
	other.State = "another kernel"
	if other.resume(dir) == nil {
		t.Error("went on with a report of another state")
	}
}

// TestVerdict: a few values tell something only if they agree.
func TestVerdict(t *testing.T) {
	for _, test := range []struct {
		bound  bound
		values []float64
		want   string
	}{
		{atLeast(0.97), []float64{0.97, 0.98, 1, 1, 1.1}, Holds},
		{atLeast(0.97), []float64{0.96, 0.98, 1, 1, 1.1}, Unclear},
		{atLeast(0.97), []float64{0.9, 0.91, 0.92, 0.93, 0.94}, Missed},
		{atLeast(0.97), []float64{1, 1, 1, 1}, Unclear}, // too few
		{atMost(2), []float64{1, 1, 1, 1, 1, 1, 1, 1, 3}, Holds},
		{atMost(2), []float64{1, 1, 1, 3, 3, 3, 3, 3}, Unclear},
	} {
		if got := test.bound.verdict(test.values); got != test.want {
			t.Errorf("%v of %v: %s, want %s", test.bound, test.values, got, test.want)
		}
	}
}

// TestTurns: each repetition of each variant has its turn, once.
func TestTurns(t *testing.T) {
	for _, repetitions := range []int{1, 2, 5, 6} {
		seen := map[string]int{}
		for _, turn := range (Settings{Workloads: Names, Repetitions: repetitions}).turns() {
			for _, variant := range turn.variants {
				seen[fmt.Sprint(turn.group, variant, turn.repetition)]++
			}
		}
		for i := range repetitions {
			for _, variant := range reboots {
				if seen[fmt.Sprint(Recovery, variant, i)] != 1 {
					t.Errorf("%d repetitions: %v", repetitions, seen)
				}
			}
		}
		boots := (repetitions + perBoot - 1) / perBoot
		if want := (len(reboots)+1)*repetitions + len(variantsOf[Tracking])*boots; len(seen) != want {
			t.Errorf("%d repetitions: %d rounds, want %d", repetitions, len(seen), want)
		}
	}
}
