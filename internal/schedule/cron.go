package schedule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/adhocore/gronx"
)

// Cron is a cron expression of five fields, or one of @hourly, @daily, @weekly,
// @monthly and @yearly.
type Cron struct{ expr string }

var cronTags = []string{"@hourly", "@daily", "@weekly", "@monthly", "@yearly"}

// ParseCron checks an expression. One that never comes, as 30 February, is an
// error.
func ParseCron(s string) (Cron, error) {
	s = strings.Join(strings.Fields(s), " ")
	if strings.HasPrefix(s, "@") {
		if !slices.Contains(cronTags, s) {
			return Cron{}, fmt.Errorf("cron expression %q must be one of %s, or five fields", s, strings.Join(cronTags, ", "))
		}
	} else if n := len(strings.Fields(s)); n != 5 {
		return Cron{}, fmt.Errorf("cron expression %q has %d fields, must have five: minute hour day month weekday", s, n)
	}
	if err := outOfRange(s); err != nil && !strings.HasPrefix(s, "@") {
		return Cron{}, fmt.Errorf("cron expression %q: %w", s, err)
	}
	if _, err := gronx.NextTickAfter(s, time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), true); err != nil {
		if gronx.IsValid(s) {
			return Cron{}, fmt.Errorf("cron expression %q never comes", s)
		}
		return Cron{}, fmt.Errorf("cron expression %q: %w", s, err)
	}
	return Cron{s}, nil
}

// cronFields are the fields' names and bounds.
var cronFields = []struct {
	name        string
	least, most int
}{{"minute", 0, 59}, {"hour", 0, 23}, {"day", 1, 31}, {"month", 1, 12}, {"weekday", 0, 7}}

// outOfRange says which number of an expression is too small or too large; nil if
// none is. The library takes some of them, and of others says only that it has tried
// hard.
func outOfRange(s string) error {
	for i, field := range strings.Fields(s) {
		for _, part := range strings.Split(field, ",") {
			span, _, _ := strings.Cut(part, "/")
			for _, number := range strings.Split(span, "-") {
				f := cronFields[i]
				if n, err := strconv.Atoi(number); err == nil && (n < f.least || n > f.most) {
					return fmt.Errorf("%s %d must be from %d to %d", f.name, n, f.least, f.most)
				}
			}
		}
	}
	return nil
}

func (c Cron) String() string { return c.expr }

// Next returns the first time after the given one. What falls into the hour
// that a change to summer time leaves out comes when that hour would have
// ended; what falls into the hour that comes twice comes in the first.
func (c Cron) Next(after time.Time, loc *time.Location) (time.Time, bool) {
	// The library counts on a calendar without changes of the clock.
	wall := wallOf(after, loc)
	for {
		tick, err := gronx.NextTickAfter(c.expr, wall, false)
		if err != nil {
			return time.Time{}, false
		}
		if t := instant(tick, loc); t.After(after) {
			return t, true
		}
		wall = tick
	}
}

// wallOf is what a clock in loc shows, as a time in UTC.
func wallOf(t time.Time, loc *time.Location) time.Time {
	l := t.In(loc)
	return time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), l.Second(), l.Nanosecond(), time.UTC)
}

// instant is wallOf's inverse: the first time at which a clock in loc shows
// wall; for one that it never shows, the moment at which it passes over it.
func instant(wall time.Time, loc *time.Location) time.Time {
	var first, later time.Time
	for _, near := range []time.Time{wall.Add(-26 * time.Hour), wall.Add(26 * time.Hour)} {
		_, offset := near.In(loc).Zone()
		t := wall.Add(-time.Duration(offset) * time.Second).In(loc)
		if wallOf(t, loc).Equal(wall) {
			if first.IsZero() || t.Before(first) {
				first = t
			}
		}
		if later.IsZero() || t.After(later) {
			later = t
		}
	}
	if !first.IsZero() {
		return first
	}
	start, _ := later.ZoneBounds()
	return start.In(loc)
}
