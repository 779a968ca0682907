package main

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
}

// fits are those of the group in which the number of pages varies.
func (r *Report) fits() []Fit {
	var all []Fit
	for _, f := range []Fit{
		{Value: "boot_dom0_cpu_seconds", Pages: "pages_preserved"},
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
	return true
}
