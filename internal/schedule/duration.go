package schedule

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ParseDuration parses what time.ParseDuration does, and days and weeks of 24
// and 168 hours before it: 30d, 1w2d, 1d12h. It must not be negative.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("duration %q must be like 90s, 15m, 12h, 30d or 1d12h", s)
	var total time.Duration
	rest := s
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		number, after, ok := strings.Cut(rest, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil || n > uint64((math.MaxInt64-total)/unit.size) {
			return 0, bad
		}
		total += time.Duration(n) * unit.size
		rest = after
	}
	if rest == "" && rest != s {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-total || strings.HasPrefix(rest, "+") {
		return 0, bad
	}
	return total + d, nil
}

// FormatDuration is for reading: its two largest units.
func FormatDuration(d time.Duration) string {
	if d < 0 {
		return "-" + FormatDuration(-d)
	}
	switch {
	case d >= 48*time.Hour:
		d = d.Round(time.Hour)
		if h := d % (24 * time.Hour) / time.Hour; h > 0 {
			return fmt.Sprintf("%dd%dh", d/(24*time.Hour), h)
		}
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= time.Hour:
		d = d.Round(time.Minute)
		if m := d % time.Hour / time.Minute; m > 0 {
			return fmt.Sprintf("%dh%dm", d/time.Hour, m)
		}
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= time.Minute:
		d = d.Round(time.Second)
		if s := d % time.Minute / time.Second; s > 0 {
			return fmt.Sprintf("%dm%ds", d/time.Minute, s)
		}
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.Round(100 * time.Millisecond).String()
}
