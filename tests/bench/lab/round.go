package main

import (
	"maps"

	"github.com/warmreboot/warmreboot/tests/bench/hand"
)

// Round is one measurement of one variant. Values are by name; the unit is the
// end of the name, where there is one.
type Round struct {
	Group      string             `json:"group"`
	Variant    string             `json:"variant"`
	Repetition int                `json:"repetition"`
	Values     map[string]float64 `json:"values"`
	Timeline   *hand.Timeline     `json:"timeline,omitempty"`
	// Took is the host's time, and Emulator what the emulator had of a processor
	// of it.
	Took     float64 `json:"took_host_seconds"`
	Emulator float64 `json:"emulator_seconds"`
}

func newRound(group, variant string, repetition int) *Round {
	return &Round{Group: group, Variant: variant, Repetition: repetition, Values: make(map[string]float64)}
}

// take copies a pass into the round's values.
func (r *Round) take(name string, result hand.Result, o hand.Outcome) {
	maps.Copy(r.Values, map[string]float64{
		name + "_seconds": result.Seconds, name + "_lookup_seconds": result.LookupSeconds,
		name + "_disk_bytes": float64(result.DiskBytes), name + "_disk_requests": float64(result.DiskRequests),
		name + "_bytes": float64(result.Bytes), name + "_dom0_cpu_seconds": o.Dom0, name + "_domU_cpu_seconds": o.DomU,
		name + "_busy_before": o.Busy,
	})
}
