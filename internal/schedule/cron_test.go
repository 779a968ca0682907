package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func at(t *testing.T, l *time.Location, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v.In(l)
}

func cron(t *testing.T, s string) Cron {
	t.Helper()
	c, err := ParseCron(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCronNext(t *testing.T) {
	for _, c := range []struct{ zone, expr, after, want string }{
		{"UTC", "30 3 * * sun", "2026-11-21T19:30:05Z", "2026-11-22T03:30:00Z"},
		{"UTC", "30 3 * * 7", "2026-11-22T03:30:00Z", "2026-11-29T03:30:00Z"},
		{"UTC", "@daily", "2026-11-21T19:30:05Z", "2026-11-22T00:00:00Z"},
		{"UTC", "0 0 29 2 *", "2026-11-21T00:00:00Z", "2028-02-29T00:00:00Z"},
		{"Europe/Berlin", "30 3 * * *", "2026-11-21T19:30:05Z", "2026-11-22T02:30:00Z"},
		// Summer time begins: 02:00 is followed by 03:00.
		{"Europe/Berlin", "30 2 * * *", "2026-03-28T12:00:00+01:00", "2026-03-29T03:00:00+02:00"},
		{"Europe/Berlin", "30 2 * * *", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"},
		{"Europe/Berlin", "*/20 2 * * *", "2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"},
		{"Europe/Berlin", "*/20 2 * * *", "2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"},
		// It ends: 03:00 is followed by 02:00, and the hour comes twice.
		{"Europe/Berlin", "30 2 * * *", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00"},
		{"Europe/Berlin", "30 2 * * *", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"},
		{"Europe/Berlin", "30 2 * * *", "2026-10-25T02:10:00+01:00", "2026-10-26T02:30:00+01:00"},
		// Half an hour, and a whole day that is left out.
		{"Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00:00+10:30", "2026-10-04T02:30:00+11:00"},
		{"Pacific/Apia", "0 12 * * *", "2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00"},
		{"Pacific/Apia", "0 12 * * *", "2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"},
	} {
		l := zone(t, c.zone)
		got, ok := cron(t, c.expr).Next(at(t, l, c.after), l)
		if want := at(t, l, c.want); !ok || !got.Equal(want) {
			t.Errorf("%s %q after %s: %v, want %v", c.zone, c.expr, c.after, got, want)
		}
	}
}

func TestParseCron(t *testing.T) {
	for _, s := range []string{"", "* * * *", "* * * * * *", "61 * * * *", "0 0 31 2 *", "@every 5m", "@always", "a b c d e", "30-10 * * * *", "0 25 * * *"} {
		if c, err := ParseCron(s); err == nil {
			t.Errorf("%q: %v", s, c)
		}
	}
}

func TestCronOutOfRange(t *testing.T) {
	for s, want := range map[string]string{"0-70 3 * * *": "minute 70 must be from 0 to 59", "0 24 * * *": "hour 24", "0 3 0 * *": "day 0", "0 3 * 13 *": "month 13", "0 3 * 1,13 *": "month 13", "0 3 * * 8/2": "weekday 8"} {
		if _, err := ParseCron(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", s, err, want)
		}
	}
}

// TestCronAgainstMinutes compares with looking at each minute, around changes
// of the clock.
func TestCronAgainstMinutes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, place := range []struct{ zone, around string }{
		{"Europe/Berlin", "2026-03-29T00:00:00Z"}, {"Europe/Berlin", "2026-10-25T00:00:00Z"},
		{"America/New_York", "2026-03-08T06:00:00Z"}, {"America/New_York", "2026-11-01T05:00:00Z"},
		{"Australia/Lord_Howe", "2026-04-04T14:00:00Z"}, {"Australia/Lord_Howe", "2026-10-03T15:00:00Z"},
		{"Pacific/Apia", "2011-12-30T09:00:00Z"}, {"Asia/Kolkata", "2026-01-01T00:00:00Z"},
	} {
		l := zone(t, place.zone)
		from := at(t, l, place.around).Add(-30 * time.Hour)
		for range 40 {
			minute, hours := r.IntN(60), []int{r.IntN(24), r.IntN(4)}
			c := cron(t, sprint(minute, hours))
			after := from.Add(time.Duration(r.IntN(30*3600)) * time.Second)
			got, _ := c.Next(after, l)
			want := nextByMinutes(minute, hours, after, l)
			if !got.Equal(want) {
				t.Fatalf("%s %q after %v: %v, want %v", place.zone, c, after, got, want)
			}
		}
	}
}

func sprint(minute int, hours []int) string {
	return fmt.Sprintf("%d %d,%d * * *", minute, hours[0], hours[1])
}

// nextByMinutes goes through all minutes: each shows a time, which may have
// been shown before, and may be preceded by some that were left out.
func nextByMinutes(minute int, hours []int, after time.Time, l *time.Location) time.Time {
	shown := map[time.Time]bool{}
	begin := after.Add(-4 * time.Hour).Truncate(time.Minute)
	last := wallOf(begin, l).Add(-time.Minute)
	for t := begin; ; t = t.Add(time.Minute) {
		wall := wallOf(t, l)
		hit := false
		for w := last.Add(time.Minute); !w.After(wall); w = w.Add(time.Minute) {
			if !shown[w] && w.Minute() == minute && slices.Contains(hours, w.Hour()) {
				hit = true
			}
			shown[w] = true
		}
		if wall.After(last) {
			last = wall
		}
		if hit && t.After(after) {
			return t.In(l)
		}
	}
}

// TestOpenAgainstMinutes compares windows with looking at each minute.
func TestOpenAgainstMinutes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, place := range []struct{ zone, around string }{
		{"Europe/Berlin", "2026-03-29T00:00:00Z"}, {"Europe/Berlin", "2026-10-25T00:00:00Z"},
		{"Australia/Lord_Howe", "2026-10-03T15:00:00Z"}, {"Pacific/Apia", "2011-12-30T09:00:00Z"}, {"UTC", "2026-06-01T00:00:00Z"},
	} {
		l := zone(t, place.zone)
		for range 30 {
			w := Window{From: TimeOfDay(r.IntN(1440)), To: TimeOfDay(1 + r.IntN(1440))}
			if r.IntN(2) == 0 {
				w.Days = []time.Weekday{time.Weekday(r.IntN(7)), time.Weekday(r.IntN(7))}
			}
			start := at(t, l, place.around).Add(time.Duration(r.IntN(72)-48) * time.Hour)
			got, closes := Open([]Window{w}, start, l)
			want := start
			for ; !inside(w, want, l); want = want.Add(time.Minute) {
				if want.Sub(start) > 20*24*time.Hour {
					t.Fatalf("%v never opens", w)
				}
			}
			if !got.Equal(want) {
				t.Fatalf("%s: %v from %v opens at %v, want %v", place.zone, w, start, got, want)
			}
			if !inside(w, closes.Add(-time.Minute), l) || !closes.After(got) {
				t.Fatalf("%s: %v, open at %v, closes at %v", place.zone, w, got, closes)
			}
		}
	}
}

// inside is the definition: of the times of its day, a window has those from the
// first at which the clock shows From, or has passed it, until To likewise.
func inside(w Window, t time.Time, l *time.Location) bool {
	for _, back := range []int{0, 1, 2} {
		wall := wallOf(t, l)
		day := time.Date(wall.Year(), wall.Month(), wall.Day()-back, 0, 0, 0, 0, time.UTC)
		if from, to, ok := w.on(day, l); ok && !t.Before(from) && t.Before(to) {
			return true
		}
	}
	return false
}

func TestWindows(t *testing.T) {
	l := zone(t, "Europe/Berlin")
	night := Window{Days: []time.Weekday{time.Saturday}, From: 22 * 60, To: 4 * 60}
	early := Window{From: 2 * 60, To: 3 * 60}
	for _, c := range []struct {
		windows     []Window
		at          string
		opens, ends string
	}{
		{[]Window{night}, "2026-11-21T12:00:00+01:00", "2026-11-21T22:00:00+01:00", "2026-11-22T04:00:00+01:00"},
		{[]Window{night}, "2026-11-22T03:00:00+01:00", "2026-11-22T03:00:00+01:00", "2026-11-22T04:00:00+01:00"},
		{[]Window{night}, "2026-11-22T04:00:00+01:00", "2026-11-28T22:00:00+01:00", "2026-11-29T04:00:00+01:00"},
		{[]Window{night, early}, "2026-11-20T12:00:00+01:00", "2026-11-21T02:00:00+01:00", "2026-11-21T03:00:00+01:00"},
		// The hour that is left out: there is no such window that day.
		{[]Window{early}, "2026-03-29T00:00:00+01:00", "2026-03-30T02:00:00+02:00", "2026-03-30T03:00:00+02:00"},
		// The hour that comes twice: the window is open until 03:00, two hours.
		{[]Window{early}, "2026-10-25T00:00:00+02:00", "2026-10-25T02:00:00+02:00", "2026-10-25T03:00:00+01:00"},
		{[]Window{{From: 0, To: 24 * 60}}, "2026-11-21T12:00:00+01:00", "2026-11-21T12:00:00+01:00", "2026-11-22T00:00:00+01:00"},
	} {
		opens, closes := Open(c.windows, at(t, l, c.at), l)
		if !opens.Equal(at(t, l, c.opens)) || !closes.Equal(at(t, l, c.ends)) {
			t.Errorf("%v at %s: %v until %v, want %s until %s", c.windows, c.at, opens, closes, c.opens, c.ends)
		}
	}
}

func TestDurations(t *testing.T) {
	for s, want := range map[string]time.Duration{"30d": 720 * time.Hour, "1d12h": 36 * time.Hour, "1w2d": 216 * time.Hour, "0s": 0, "90s": 90 * time.Second, "0": 0} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "30", "-1d", "-5s", "d", "1d-2h", "1.5d", "99999999999d", "200000d", "1h1d", "+1h"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("%q: %v", s, got)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", 1500 * time.Millisecond: "1.5s", 90 * time.Second: "1m30s", time.Hour: "1h",
		25*time.Hour + 30*time.Minute: "25h30m", 720 * time.Hour: "30d", 50 * time.Hour: "2d2h"} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
