package main

import (
	"fmt"
	"slices"

	"github.com/warmreboot/warmreboot/tests/bench/hand"
)

// Target is something that is wanted of the product, and whether it is so.
type Target struct {
	What    string `json:"what"`
	Variant string `json:"variant"`
	Bound   string `json:"bound"`
	Statistics
	Verdict string `json:"verdict"`
}

// Verdicts.
const (
	Holds   = "holds"
	Missed  = "missed"
	Unclear = "cannot be told"
)

// bound is a limit of what is wanted: at least so much, or at most.
type bound struct {
	least bool
	value float64
}

func atLeast(v float64) bound { return bound{true, v} }
func atMost(v float64) bound  { return bound{false, v} }

func (b bound) String() string {
	if b.least {
		return "≥ " + number(b.value)
	}
	return "≤ " + number(b.value)
}

func (b bound) holds(v float64) bool {
	if b.least {
		return v >= b.value
	}
	return v <= b.value
}

// verdict is about the median of what was measured, of which there are a few
// values.
func (b bound) verdict(values []float64) string {
	low, high, ok := interval(slices.Sorted(slices.Values(values)))
	switch {
	case ok && b.holds(low) && b.holds(high):
		return Holds
	case ok && !b.holds(low) && !b.holds(high):
		return Missed
	}
	return Unclear
}

// targets are those that can be judged by what has been measured.
func (r *Report) targets() []Target {
	var all []Target
	add := func(what, variant string, b bound, values []float64) {
		if len(values) > 0 {
			all = append(all, Target{what, variant, b.String(), statistics(values), b.verdict(values)})
		}
	}
	warm := []string{Graceful, Crash}
	for _, t := range []struct {
		name, what string
		bound      bound
	}{
		{"large", "first read of a large file: speed after ÷ before, block device", atLeast(0.97)},
		{"image", "the same, image file", atLeast(0.97)},
		{"small", "the same, small files", atLeast(0.95)},
		{"random", "the same, random reads of 4 KiB", atLeast(0.97)},
	} {
		for _, variant := range warm {
			add(t.what, variant, t.bound, r.each(Recovery, variant, value(t.name+"_recovered")))
		}
		// Nothing is read from the disk, so on a machine where dom0 has a processor of
		// its own this is the same.
		for _, variant := range warm {
			add("the same, processor time of the domU", variant, t.bound, r.each(Recovery, variant, ratio(t.name+"_before_domU_cpu_seconds", t.name+"_1_domU_cpu_seconds")))
		}
	}
	for _, variant := range warm {
		add("read from the vbds in the first pass ÷ the files' size", variant, atMost(0.005), r.each(Recovery, variant, r.readShare))
	}
	after := map[string]float64{Graceful: r.Settings.Sizes.After, Crash: r.Settings.Sizes.AfterOthers}
	for _, variant := range warm {
		add(fmt.Sprintf("web: requests in the first %s s ÷ before", number(after[variant])), variant, atLeast(0.99), r.each(Recovery, variant, value("web_recovered")))
		add("web: first second with 99 % of the requests, s after the first answer", variant, atMost(1), r.each(Recovery, variant, func(v map[string]float64) (float64, bool) {
			at, ok := v["web_99_percent_after_seconds"]
			if at < 0 { // never
				at = after[variant]
			}
			return at, ok
		}))
	}
	for _, variant := range warm {
		add("command to service ÷ a normal reboot's", variant, atMost(1.02), r.against(Recovery, variant, Normal, "service_seconds"))
	}
	for _, t := range []struct {
		name, what string
		bound      bound
	}{
		{"cold_seconds", "tracked ÷ unpatched: cold read, elapsed", atMost(1.03)},
		{"fast_cpu_seconds", "the same without a limit, processor time", atMost(1.03)},
		{"cached_best_seconds", "cached read, elapsed", atMost(1.005)},
		{"cached_cpu_seconds", "the same, processor time", atMost(1.005)},
		{"write_seconds", "write and fsync, elapsed", atMost(1.05)},
		{"write_cpu_seconds", "the same, processor time", atMost(1.05)},
		{"rewrite_seconds", "write again, elapsed", atMost(1.05)},
		{"rewrite_cpu_seconds", "the same, processor time", atMost(1.05)},
	} {
		add(t.what, On, t.bound, r.against(Tracking, On, Stock, t.name))
	}
	add("write faults ÷ pages written again", On, atMost(1), r.each(Tracking, On, func(v map[string]float64) (float64, bool) {
		faults, ok := v["rewrite_write_faults"]
		return faults * hand.PageSize / float64(r.Settings.Sizes.WriteBytes), ok
	}))
	add("hypercalls ÷ block requests, cold read", On, atMost(2), r.each(Tracking, On, ratio("cold_hypercalls", "cold_requests")))
	add("copying a page ÷ restoring it, processor time of the domU", pages, atLeast(10), r.each(Scale, pages, value("restore_faster")))
	for _, f := range r.Fits {
		if f.Value == "kernel_seconds" && f.Error > 0 {
			b := atMost(100)
			s := Statistics{Median: f.NSPerPage, Minimum: f.NSPerPage - f.Error, Maximum: f.NSPerPage + f.Error}
			t := Target{"the kernel's boot, ns for each preserved page", pages, b.String(), s, Unclear}
			if low, high := b.holds(s.Minimum), b.holds(s.Maximum); low == high {
				t.Verdict = map[bool]string{true: Holds, false: Missed}[low]
			}
			all = append(all, t)
		}
	}
	return all
}

// ratio divides one of a round's values by another that is not 0.
func ratio(a, b string) func(map[string]float64) (float64, bool) {
	return func(values map[string]float64) (float64, bool) {
		return values[a] / values[b], values[b] > 0
	}
}

// value finds one of a round's values.
func value(name string) func(map[string]float64) (float64, bool) {
	return func(values map[string]float64) (float64, bool) {
		v, ok := values[name]
		return v, ok
	}
}

// readShare is what the first passes read from the vbds, as a share of the files.
func (r *Report) readShare(v map[string]float64) (float64, bool) {
	var read, size float64
	for _, name := range []string{"large", "image", "small", "random"} {
		bytes := v[name+"_1_bytes"]
		if name == "random" { // reads pages more than once
			bytes = min(bytes, float64(r.Settings.Sizes.DatabaseBytes))
		}
		read, size = read+v[name+"_1_disk_bytes"], size+bytes
	}
	return read / size, size > 0
}

// each finds a value of each round of a variant that has it.
func (r *Report) each(group, variant string, find func(map[string]float64) (float64, bool)) []float64 {
	var values []float64
	for _, round := range r.Rounds {
		if round.Group == group && round.Variant == variant {
			if v, ok := find(round.Values); ok {
				values = append(values, v)
			}
		}
	}
	return values
}

// against divides a value of each round by that of another variant's round of the
// same repetition.
func (r *Report) against(group, variant, base, name string) []float64 {
	var ratios []float64
	for _, round := range r.Rounds {
		if round.Group != group || round.Variant != variant {
			continue
		}
		other := slices.IndexFunc(r.Rounds, func(o Round) bool {
			return o.Group == group && o.Variant == base && o.Repetition == round.Repetition
		})
		if other >= 0 && r.Rounds[other].Values[name] > 0 {
			ratios = append(ratios, round.Values[name]/r.Rounds[other].Values[name])
		}
	}
	return ratios
}
