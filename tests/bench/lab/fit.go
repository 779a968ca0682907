package main

import "math"

// Fit is a cost as a line over a number of pages: what it takes without any, and
// what each takes, by least squares over all rounds.
type Fit struct {
	Value     string  `json:"value"`
	Pages     string  `json:"pages"` // the value that has their number
	NSPerPage float64 `json:"ns_per_page"`
	Seconds   float64 `json:"seconds_without_pages"`
	// Determination is the share of the variance that the line explains: 1 if all
	// points are on it.
	Determination float64 `json:"r_squared"`
	Points        int     `json:"points"`
	// Error is by how much NSPerPage may be off, either way, with nine chances in
	// ten, if what is off the line is chance; 0 with fewer than three points.
	Error float64 `json:"error_ns_per_page"`
}

// student are the 95 % quantiles of Student's distribution, by degrees of freedom
// from one on.
var student = []float64{6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81}

// fits are those of the group in which the number of pages varies.
func (r *Report) fits() []Fit {
	var all []Fit
	for _, f := range []Fit{
		{Value: "destroy_dom0_cpu_seconds", Pages: "pages_preserved"},
		{Value: "create_dom0_cpu_seconds", Pages: "pages_preserved"},
		{Value: "kernel_seconds", Pages: "pages_preserved"},
		{Value: "boot_domU_cpu_seconds", Pages: "pages_preserved"},
		{Value: "judge_dom0_cpu_seconds", Pages: "pages_preserved"},
		{Value: "restore_domU_cpu_seconds", Pages: "pages_restored"},
	} {
		var x, y []float64
		for _, round := range r.Rounds {
			if round.Group == Scale {
				x, y = append(x, round.Values[f.Pages]), append(y, round.Values[f.Value])
			}
		}
		if f.line(x, y) {
			all = append(all, f)
		}
	}
	return all
}

// line fits, unless all points have the same x.
func (f *Fit) line(x, y []float64) bool {
	n := float64(len(x))
	var meanX, meanY float64
	for i := range x {
		meanX += x[i] / n
		meanY += y[i] / n
	}
	var xx, xy, yy float64
	for i := range x {
		dx, dy := x[i]-meanX, y[i]-meanY
		xx, xy, yy = xx+dx*dx, xy+dx*dy, yy+dy*dy
	}
	if xx == 0 {
		return false
	}
	slope := xy / xx
	f.NSPerPage, f.Seconds, f.Points = slope*1e9, meanY-slope*meanX, len(x)
	f.Determination = 1
	if yy > 0 {
		f.Determination = xy * xy / (xx * yy)
	}
	if free := len(x) - 2; free > 0 {
		off := max(yy-xy*xy/xx, 0) / float64(free)
		f.Error = student[min(free, len(student))-1] * math.Sqrt(off/xx) * 1e9
	}
	return true
}
