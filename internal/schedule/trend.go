package schedule

import (
	"fmt"
	"slices"
	"time"
)

// Sample is one reading of a figure.
type Sample struct {
	At    time.Duration // by a clock that does not jump
	Value float64
}

// Trend is what the samples of a figure say.
type Trend struct {
	Samples int
	Span    time.Duration // from the first to the last
	Level   float64       // median of the latest quarter
	Slope   float64       // per hour: median of the slopes between all pairs
	Failed  string        // why the last reading failed
}

// TrendOf looks at samples in the order in which they were taken. Medians, so
// that a few outliers, as of a busy moment, change nothing (Theil and Sen). Its
// cost grows with the square of their number.
func TrendOf(samples []Sample) Trend {
	t := Trend{Samples: len(samples)}
	if len(samples) == 0 {
		return t
	}
	t.Span = samples[len(samples)-1].At - samples[0].At
	var latest, slopes []float64
	for _, s := range samples[len(samples)*3/4:] {
		latest = append(latest, s.Value)
	}
	t.Level = median(latest)
	for i, a := range samples {
		for _, b := range samples[i+1:] {
			if b.At > a.At {
				slopes = append(slopes, (b.Value-a.Value)/(b.At-a.At).Hours())
			}
		}
	}
	if len(slopes) > 0 {
		t.Slope = median(slopes)
	}
	return t
}

func median(v []float64) float64 {
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// Trigger says which trend is aging: a level has been reached, and the figure
// goes on that way. A level alone is load; a slope alone is a cache that fills.
type Trigger struct {
	Name string
	// Level is reached from below, or from above if Falling.
	Level   float64
	Falling bool
	// Slope is how much per hour the figure has to move that way, at least.
	Slope float64
	// Over is the time that is looked at. Fewer than Least samples, or samples
	// of less than half of Over, say nothing.
	Over  time.Duration
	Least int
}

// Fires reports whether the trend is aging, and describes it either way.
func (g Trigger) Fires(t Trend) (fires bool, why string) {
	way, sign, limit := "rising", 1.0, "at least"
	if g.Falling {
		way, sign, limit = "falling", -1.0, "at most"
	}
	if t.Samples < g.Least || t.Span < g.Over/2 {
		why = fmt.Sprintf("%s: %d samples of %s are too few to tell a trend", g.Name, t.Samples, FormatDuration(t.Span))
		if t.Failed != "" {
			why += "; the last reading failed: " + t.Failed
		}
		return false, why
	}
	why = fmt.Sprintf("%s is %.4g and changes by %+.3g per hour; aging is %s %.4g and %s by %.3g per hour",
		g.Name, t.Level, t.Slope, limit, g.Level, way, g.Slope)
	return sign*(t.Level-g.Level) >= 0 && sign*t.Slope >= g.Slope, why
}

// Reaches estimates when the level is reached if things go on as they do; false
// if they do not lead there.
func (g Trigger) Reaches(t Trend) (time.Duration, bool) {
	sign := 1.0
	if g.Falling {
		sign = -1
	}
	left, rate := sign*(g.Level-t.Level), sign*t.Slope
	if t.Samples < g.Least || t.Span < g.Over/2 || rate <= 0 || rate < g.Slope || left/rate > 24*3650 {
		return 0, false
	}
	return time.Duration(max(left/rate, 0) * float64(time.Hour)), true
}
