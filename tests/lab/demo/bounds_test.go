package demo

import (
	"strings"
	"testing"
)

func good() *Report {
	warm := func(name string) Step {
		return Step{Name: name, Kind: "warm", Trigger: name, Bytes: 4096000, Seconds: 1.1, PagesRestored: 990, SHA256OK: true}
	}
	return &Report{DatasetPages: 1000, DatasetBytes: 4096000, Steps: []Step{
		{Name: referenceStep, Kind: "warm", Trigger: "first-boot", Bytes: 4096000, Seconds: 1, SHA256OK: true},
		{Name: triggerNormal, Kind: "cold", Trigger: triggerNormal, Bytes: 4096000, Seconds: 9, VBDReadBytes: 4096000, SHA256OK: true},
		warm(triggerGraceful), warm(triggerCrash), warm(triggerForce),
	}}
}

func TestMissed(t *testing.T) {
	if missed := good().missed(); len(missed) != 0 {
		t.Fatalf("a good report misses %v", missed)
	}
	for name, test := range map[string]struct {
		spoil func(r *Report)
		want  string
	}{
		"checksum":   {func(r *Report) { r.Steps[0].SHA256OK = false }, "differ"},
		"mismatch":   {func(r *Report) { r.Steps[2].Mismatches = 1 }, "mismatches"},
		"short":      {func(r *Report) { r.Steps[1].Bytes = 4000000 }, "want 4096000"},
		"warm disk":  {func(r *Report) { r.Steps[3].VBDReadBytes = 50000 }, "from disk"},
		"cold cache": {func(r *Report) { r.Steps[1].VBDReadBytes = 3000000 }, "empty"},
		"restored":   {func(r *Report) { r.Steps[4].PagesRestored = 979 }, "restored"},
		"slow":       {func(r *Report) { r.Steps[4].Seconds = 1.3 }, "reference"},
	} {
		t.Run(name, func(t *testing.T) {
			r := good()
			test.spoil(r)
			missed := r.missed()
			if len(missed) != 1 || !strings.Contains(missed[0], test.want) {
				t.Errorf("missed %q, want one with %q", missed, test.want)
			}
		})
	}
}
