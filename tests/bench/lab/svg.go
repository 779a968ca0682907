package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/warmreboot/warmreboot/tests/bench/hand"
)

type bars struct {
	label string
	bars  []bar
}

// bar is the one of a series, which is a number that all groups share.
type bar struct {
	series             int
	value, least, most float64
}

// Measures of the figures, in pixels.
const (
	figureWidth, figureHeight = 900, 300
	left, top, bottom         = 70, 40, 50
	plotHeight                = figureHeight - top - bottom
	plotWidth                 = figureWidth - left - 20
)

var colours = []string{"#34495e", "#c0392b", "#e59866", "#2e86c1", "#27ae60", "#8e44ad"}

func begin(b *strings.Builder, title string) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11"><rect width="100%%" height="100%%" fill="#fff"/>`+"\n", figureWidth, figureHeight)
	fmt.Fprintf(b, `<text x="%d" y="16" font-size="14">%s</text>`+"\n", left, title)
}

// legend names the colours in order.
func legend(b *strings.Builder, labels []string) {
	x := left
	for i, label := range labels {
		fmt.Fprintf(b, `<rect x="%d" y="22" width="10" height="10" fill="%s"/><text x="%d" y="31">%s</text>`+"\n",
			x, colours[i%len(colours)], x+14, label)
		x += 40 + 6*len(label)
	}
}

// scaleTo draws the axis from 0 to at least most, and returns where a value is.
func scaleTo(b *strings.Builder, most float64, unit string) func(float64) float64 {
	step := math.Pow(10, math.Floor(math.Log10(most/2)))
	for _, factor := range []float64{5, 2} {
		if most/(step*factor) >= 4 {
			step *= factor
			break
		}
	}
	limit := step * math.Ceil(most/step)
	y := func(v float64) float64 { return top + plotHeight*(1-v/limit) }
	for v := 0.0; v <= limit*1.0001; v += step {
		fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s %s</text>`+"\n",
			left, left+plotWidth, y(v), y(v), left-5, y(v)+4, number(math.Round(v*1000)/1000), unit)
	}
	return y
}

// barChart draws groups of bars. labels are those of the series.
func barChart(title, unit string, labels []string, groups []bars) string {
	var b strings.Builder
	begin(&b, title)
	most := 0.0
	for _, g := range groups {
		for _, v := range g.bars {
			most = max(most, v.most)
		}
	}
	y := scaleTo(&b, most, unit)
	width := float64(plotWidth) / float64(len(groups))
	for i, g := range groups {
		each := (width - 16) / float64(len(labels))
		for _, v := range g.bars {
			x := left + float64(i)*width + 8 + float64(v.series)*each
			fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s, %s: %s %s</title></rect>`,
				x, y(v.value), each-3, y(0)-y(v.value), colours[v.series%len(colours)], g.label, labels[v.series], number(v.value), unit)
			fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#000"/>`+"\n",
				x+each/2-1.5, x+each/2-1.5, y(v.least), y(v.most))
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", left+(float64(i)+0.5)*width, figureHeight-bottom+18, g.label)
	}
	legend(&b, labels)
	b.WriteString("</svg>\n")
	return b.String()
}

// timelines draws the web server's answers over time, the median round of each
// variant by what it lost.
func (r *Report) timelines(group, title string) string {
	var labels []string
	var chosen []*hand.Timeline
	most, end := 0.0, 0.0
	for _, variant := range reboots {
		var rounds []Round
		for _, round := range r.Rounds {
			if round.Group == group && round.Variant == variant && round.Timeline != nil {
				rounds = append(rounds, round)
			}
		}
		if len(rounds) == 0 {
			continue
		}
		slices.SortFunc(rounds, func(a, b Round) int { return int(math.Copysign(1, a.Values["web_lost"]-b.Values["web_lost"])) })
		t := rounds[len(rounds)/2].Timeline
		labels, chosen = append(labels, variant), append(chosen, t)
		end = max(end, t.End-t.Command)
		for _, n := range t.Answers {
			most = max(most, float64(n)/hand.Bin)
		}
	}
	if len(chosen) == 0 || most == 0 {
		return ""
	}
	var b strings.Builder
	begin(&b, title)
	y := scaleTo(&b, most, "/s")
	first := -chosen[0].Command
	x := func(at float64) float64 { return left + plotWidth*(at-first)/(end-first) }
	for at := 0.0; at <= end; at += 5 {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%.0f s</text>`+"\n", x(at), figureHeight-bottom+18, at)
	}
	for i, t := range chosen {
		var points []string
		for j, n := range t.Answers[:max(len(t.Answers)-1, 0)] { // the last is not a whole one
			points = append(points, fmt.Sprintf("%.1f,%.1f", x((float64(j)+0.5)*hand.Bin-t.Command), y(float64(n)/hand.Bin)))
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", strings.Join(points, " "), colours[i%len(colours)])
	}
	legend(&b, labels)
	b.WriteString("</svg>\n")
	return b.String()
}
