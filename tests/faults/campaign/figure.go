package campaign

import (
	"fmt"
	"strings"
)

// Colours of the classes in the figure; runs after which all was well have
// none.
var colours = map[Class]string{
	Inconsistent: "#c0392b",
	Stale:        "#e59866",
	Exception:    "#7d3c98",
	DiskCorrupt:  "#566573",
	NoBoot:       "#aab7b8",
	Cold:         "#d6eaf8",
}

// Measures of the figure, in pixels.
const (
	figureLeft, figureTop   = 60, 50
	figureHeight            = 240
	groupWidth, columnWidth = 44, 16
	labelHeight             = 130
)

// Figure draws, for each type, the share of runs in each class: the left column
// of a pair is the guest trusted, the right one the guest watched.
func Figure(tallies []Tally) string {
	var names []string
	columns := make(map[string]map[Mode]Tally)
	for _, t := range tallies {
		if columns[t.Type] == nil {
			columns[t.Type] = make(map[Mode]Tally)
			names = append(names, t.Type)
		}
		columns[t.Type][t.Mode] = t
	}
	width := figureLeft + max(len(names)*groupWidth, 640) + 20
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n",
		width, figureTop+figureHeight+labelHeight)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	fmt.Fprintf(&b, `<text x="%d" y="16" font-size="13">Share of runs in which what came back was wrong: left, guest trusted; right, protected</text>`+"\n", figureLeft)
	legend(&b)
	for percent := 0; percent <= 100; percent += 20 {
		y := figureTop + figureHeight - percent*figureHeight/100
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%d" y2="%d" stroke="#ddd"/><text x="%d" y="%d" text-anchor="end">%d %%</text>`+"\n",
			figureLeft, width-10, y, y, figureLeft-6, y+4, percent)
	}
	for i, name := range names {
		x := figureLeft + i*groupWidth + 6
		column(&b, x, columns[name][Trusting])
		column(&b, x+columnWidth, columns[name][Protected])
		fmt.Fprintf(&b, `<text transform="translate(%d,%d) rotate(-60)" text-anchor="end">%s</text>`+"\n",
			x+columnWidth, figureTop+figureHeight+26, name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// column stacks the classes, the worst at the bottom, and writes the number of
// runs below.
func column(b *strings.Builder, x int, t Tally) {
	if t.Runs == 0 {
		return
	}
	y := float64(figureTop + figureHeight)
	for i := len(Classes) - 1; i > 0; i-- {
		height := float64(t.Classes[Classes[i]]) * figureHeight / float64(t.Runs)
		if height == 0 {
			continue
		}
		y -= height
		fmt.Fprintf(b, `<rect x="%d" y="%.1f" width="%d" height="%.1f" fill="%s"><title>%s, %s: %s in %d of %d runs</title></rect>`+"\n",
			x, y, columnWidth-2, height, colours[Classes[i]], t.Type, t.Mode, Classes[i], t.Classes[Classes[i]], t.Runs)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle" font-size="9" fill="#555">%d</text>`+"\n",
		x+columnWidth/2-1, figureTop+figureHeight+11, t.Runs)
}

func legend(b *strings.Builder) {
	x := figureLeft
	for i := len(Classes) - 1; i > 0; i-- {
		fmt.Fprintf(b, `<rect x="%d" y="26" width="10" height="10" fill="%s"/><text x="%d" y="35">%s</text>`+"\n",
			x, colours[Classes[i]], x+14, Classes[i])
		x += 30 + 7*len(Classes[i])
	}
}
