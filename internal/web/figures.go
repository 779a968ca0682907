package web

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/api"
)

// pages formats a number of pages, with thousands apart.
func pages(n uint64) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "\u202f" + digits[i:]
	}
	return fmt.Sprintf("%s (%.1f MiB)", digits, float64(n)/256)
}

func seconds(s float64) string {
	if s == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f s", s)
}

// total is the number of pages that the guest did not take back.
func total(refused map[string]uint64) (n uint64) {
	for _, v := range refused {
		n += v
	}
	return n
}

// step is a bar: how many pages had come through to there.
type step struct {
	Name  string
	Pages uint64
	Width float64 // percent of the largest
}

// steps are the pages of a reboot, from before it to after.
func steps(s api.Summary) []step {
	all := []step{{Name: "reusable before", Pages: s.PagesBefore}, {Name: "preserved by Xen", Pages: s.PagesPreserved},
		{Name: "placed into the new domain", Pages: s.PagesAdopted}, {Name: "vouched for by the agent", Pages: s.PagesApproved},
		{Name: "restored by the guest", Pages: s.PagesRestored}}
	var most uint64 = 1
	for _, x := range all {
		most = max(most, x.Pages)
	}
	for i := range all {
		all[i].Width = 100 * float64(all[i].Pages) / float64(most)
	}
	return all
}

// chart is a curve over time, in the units of its SVG.
type chart struct {
	Title, Unit   string
	Width, Height int
	// Left, Right, Top and Bottom are where the axes are.
	Left, Right, Top, Bottom float64
	Paths                    []string // one for each stretch without a gap
	X, Y                     []tick
	Marks                    []tick
	Last                     string // the curve in words, for who cannot see it
}

type tick struct {
	At    float64
	Label string
}

const (
	chartWidth  = 860
	chartHeight = 190
	// longGap is a pause in the samples that is not bridged by a line: the
	// daemon was away.
	longGap = 10 * time.Second
)

// charts are the curves around a reboot; nil if nothing was seen.
func charts(d Domain) []chart {
	if len(d.Samples) < 2 {
		return nil
	}
	zero := d.Samples[0].At
	var marks []mark
	if d.Reboot != nil {
		zero = d.Reboot.Started
		marks = []mark{{0, "down"}}
		if d.Reboot.DownSeconds > 0 {
			marks = append(marks, mark{d.Reboot.DownSeconds, "running"})
		}
		if d.Reboot.RestoredSeconds > 0 && d.Reboot.Outcome == "warm" {
			marks = append(marks, mark{d.Reboot.RestoredSeconds, "restored"})
		}
	}
	rate := func(bytes func(api.Sample) uint64) func(api.Sample) float64 {
		return func(s api.Sample) float64 {
			if s.Seconds <= 0 {
				return 0
			}
			return float64(bytes(s)) / s.Seconds / (1 << 20)
		}
	}
	return []chart{
		draw("Throughput: what the domain sent", "MiB/s", d.Samples, zero, marks, rate(func(s api.Sample) uint64 { return s.NetSent })),
		draw("Reads from its disks", "MiB/s", d.Samples, zero, marks, rate(func(s api.Sample) uint64 { return s.DiskRead })),
		draw("Reusable pages", "MiB", d.Samples, zero, marks, func(s api.Sample) float64 { return float64(s.Reusable) / 256 }),
	}
}

// mark is a moment, in seconds after the zero of the time axis.
type mark struct {
	at   float64
	name string
}

func draw(title, unit string, samples []api.Sample, zero time.Time, marks []mark, value func(api.Sample) float64) chart {
	c := chart{Title: title, Unit: unit, Width: chartWidth, Height: chartHeight, Left: 58, Right: chartWidth - 12, Top: 22, Bottom: chartHeight - 24}
	first, last := samples[0].At.Sub(zero).Seconds(), samples[len(samples)-1].At.Sub(zero).Seconds()
	if last <= first {
		last = first + 1
	}
	most, at := 0.0, 0.0
	for _, s := range samples {
		if v := value(s); v > most {
			most, at = v, s.At.Sub(zero).Seconds()
		}
	}
	c.Last = fmt.Sprintf("%s, from %.0f s to %.0f s around the shutdown; at most %.1f %s, at %.0f s", title, first, last, most, unit, at)
	step := niceStep(most, 4)
	top := math.Max(step, math.Ceil(most/step)*step)
	x := func(t float64) float64 { return c.Left + (c.Right-c.Left)*(t-first)/(last-first) }
	y := func(v float64) float64 { return c.Bottom - (c.Bottom-c.Top)*v/top }
	for v := 0.0; v <= top+step/2; v += step {
		c.Y = append(c.Y, tick{y(v), fmt.Sprintf("%g", v)})
	}
	width := niceStep(last-first, 8)
	for t := math.Ceil(first/width) * width; t <= last; t += width {
		c.X = append(c.X, tick{x(t), fmt.Sprintf("%g s", t)})
	}
	for _, m := range marks {
		if m.at >= first && m.at <= last {
			c.Marks = append(c.Marks, tick{x(m.at), m.name})
		}
	}
	var path strings.Builder
	var before time.Time
	for i, s := range samples {
		if i > 0 && s.At.Sub(before) > longGap {
			c.Paths = append(c.Paths, path.String())
			path.Reset()
		}
		before = s.At
		fmt.Fprintf(&path, "%.1f,%.1f ", x(s.At.Sub(zero).Seconds()), y(value(s)))
	}
	c.Paths = append(c.Paths, path.String())
	return c
}

// niceStep is 1, 2 or 5 times a power of ten, such that it takes about n of them
// for span.
func niceStep(span float64, n int) float64 {
	if span <= 0 || math.IsNaN(span) || math.IsInf(span, 0) {
		return 1
	}
	raw := span / float64(n)
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if raw <= m*power {
			return m * power
		}
	}
	return 10 * power
}
