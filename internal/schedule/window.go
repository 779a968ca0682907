package schedule

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// TimeOfDay is minutes since midnight by the clock; 24:00 is the end of the day.
type TimeOfDay int

// ParseTimeOfDay parses hh:mm.
func ParseTimeOfDay(s string) (TimeOfDay, error) {
	bad := fmt.Errorf("time of day %q must be hh:mm, as 02:30 or 14:00", s)
	if len(s) != 5 || s[2] != ':' {
		return 0, bad
	}
	for _, i := range []int{0, 1, 3, 4} {
		if s[i] < '0' || s[i] > '9' {
			return 0, bad
		}
	}
	h, m := 10*int(s[0]-'0')+int(s[1]-'0'), 10*int(s[3]-'0')+int(s[4]-'0')
	if m > 59 || h > 24 || h == 24 && m > 0 {
		return 0, bad
	}
	return TimeOfDay(60*h + m), nil
}

func (t TimeOfDay) String() string { return fmt.Sprintf("%02d:%02d", t/60, t%60) }

// Window is when a domain may be rebooted: on the given days, all if there are
// none, from From until just before To. One that ends before it begins ends on
// the day after; its day is the one on which it begins.
type Window struct {
	Days     []time.Weekday
	From, To TimeOfDay
}

// ParseWeekday parses the first three letters of a day, or all of them.
func ParseWeekday(s string) (time.Weekday, error) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if name := strings.ToLower(d.String()); s == name || s == name[:3] {
			return d, nil
		}
	}
	return 0, fmt.Errorf("weekday %q must be one of mon, tue, wed, thu, fri, sat, sun", s)
}

func (w Window) String() string {
	s := w.From.String() + "-" + w.To.String()
	if len(w.Days) == 0 {
		return s
	}
	var days []string
	for _, d := range w.Days {
		days = append(days, strings.ToLower(d.String()[:3]))
	}
	return strings.Join(days, ",") + " " + s
}

// on returns when the window that begins on a day is open; false if none does.
// day is a midnight as wallOf returns it.
func (w Window) on(day time.Time, loc *time.Location) (from, to time.Time, ok bool) {
	if len(w.Days) > 0 && !slices.Contains(w.Days, day.Weekday()) {
		return from, to, false
	}
	end := day
	if w.To <= w.From {
		end = day.AddDate(0, 0, 1)
	}
	from = instant(day.Add(time.Duration(w.From)*time.Minute), loc)
	to = instant(end.Add(time.Duration(w.To)*time.Minute), loc)
	return from, to, from.Before(to) // a change of the clock may leave nothing of it
}

// Open returns the first time, not before t, at which one of the windows is
// open, and when that one closes. Without windows it is always open; then
// closes is zero.
func Open(windows []Window, t time.Time, loc *time.Location) (opens, closes time.Time) {
	if len(windows) == 0 {
		return t, time.Time{}
	}
	wall := wallOf(t, loc)
	today := time.Date(wall.Year(), wall.Month(), wall.Day(), 0, 0, 0, 0, time.UTC)
	for day := -1; day <= 14; day++ { // each weekday, even if a change of the clock leaves one out
		for _, w := range windows {
			from, to, ok := w.on(today.AddDate(0, 0, day), loc)
			if !ok || !to.After(t) {
				continue
			}
			if from.Before(t) {
				from = t
			}
			if opens.IsZero() || from.Before(opens) || from.Equal(opens) && to.After(closes) {
				opens, closes = from, to
			}
		}
		// What begins two days later cannot open before this.
		if !opens.IsZero() && day >= 0 && opens.Before(instant(today.AddDate(0, 0, day+1), loc)) {
			break
		}
	}
	return opens, closes
}
