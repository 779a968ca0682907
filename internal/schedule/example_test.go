package schedule_test

import (
	"fmt"
	"time"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/schedule"
)

// Decide says what is to be rebooted now, and of all else why not yet.
func ExampleDecide() {
	weekly := &schedule.Rule{Name: "weekly", Match: schedule.Match{Domains: []string{"web-*"}}, Every: 7 * 24 * time.Hour,
		Location: time.UTC, MissedAfter: time.Hour, Distance: time.Hour}
	in := schedule.Input{
		Now:    time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC),
		Rules:  []*schedule.Rule{weekly},
		Limits: schedule.Limits{AtOnce: 1},
		Domains: []schedule.Domain{
			{Name: "web-a", UUID: ident.UUID{1}, Up: true, Age: 8 * 24 * time.Hour},
			{Name: "web-b", UUID: ident.UUID{2}, Up: true, Age: 24 * time.Hour},
			{Name: "web-c", UUID: ident.UUID{3}, Up: true, Age: 9 * 24 * time.Hour, Locked: "it is locked by ann"},
		},
	}
	// What was remembered of an earlier look: a rule that was only just written has
	// nothing rebooted.
	earlier := in
	earlier.Now = in.Now.Add(-24 * time.Hour)
	in.Memory = map[schedule.Key]schedule.Memory{}
	for _, it := range schedule.Decide(earlier) {
		in.Memory[schedule.Key{Rule: it.Rule.Name, UUID: it.UUID}] = it.Memory
	}
	for _, it := range schedule.Decide(in) {
		switch {
		case it.Start:
			fmt.Println(it.Domain, "is rebooted now")
		case it.Due.IsZero():
			fmt.Println(it.Domain, "is not due")
		default:
			fmt.Println(it.Domain, "is due, but", it.Blocked)
		}
	}
	// Output:
	// web-c is due, but it is locked by ann
	// web-a is rebooted now
	// web-b is not due
}

func ExampleParseDuration() {
	d, _ := schedule.ParseDuration("1w2d")
	_, err := schedule.ParseDuration("2 days")
	fmt.Println(d, err)
	// Output: 216h0m0s duration "2 days" must be like 90s, 15m, 12h, 30d or 1d12h
}
