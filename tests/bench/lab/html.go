package main

import (
	"bytes"
	"fmt"
	"html/template"
	"maps"
	"slices"
)

var page = template.Must(template.New("page").Funcs(template.FuncMap{"number": number}).Parse(`<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>warmreboot: benchmark</title>
<style>
body { font: 14px/1.5 sans-serif; max-width: 1000px; margin: 2em auto; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: 2px 10px; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } svg { display: block; margin: 1em 0 }
</style>
<h1>Warm-cache reboot: benchmark</h1>
<p>{{.Report.Date}}, <code>{{.Report.Command}}</code>, {{.Report.Machine}}, load average {{.Report.Load}}. {{.Report.Clock}}
The disk gives {{.Report.Settings.Disk.MiBPerSecond}} MiB and {{.Report.Settings.Disk.RequestsPerSecond}} requests per second, by the same clock.
Bars are medians, their whiskers minimum and maximum.
What the agent in dom0 costs: <a href="agent.json">agent.json</a>, by <code>make bench-agent</code>.</p>
{{if .Report.Targets}}<h2>Targets</h2>
<p>A target holds, or is missed, if the median of what was measured lies on that side of it with nine chances in ten:
with five measurements that is if all of them do. Else it cannot be told.</p>
<table><tr><th>what</th><th>of</th><th>target</th><th>median</th><th>least … greatest</th><th>measured</th><th>verdict</th></tr>
{{range .Report.Targets}}<tr><td>{{.What}}</td><td>{{.Variant}}</td><td>{{.Bound}}</td><td>{{number .Median}}</td><td>{{number .Minimum}} … {{number .Maximum}}</td><td>{{len .Values}}</td><td>{{.Verdict}}</td></tr>
{{end}}</table>{{end}}
{{range .Figures}}{{.}}{{end}}
{{range .Tables}}<h2>{{.Group}}</h2>
<table><tr><th>value</th>{{range .Variants}}<th>{{.}}</th>{{end}}</tr>
{{range .Rows}}<tr><td>{{.Name}}</td>{{range .Cells}}<td>{{if .Values}}{{number .Median}} <small>({{number .Minimum}} … {{number .Maximum}})</small>{{end}}</td>{{end}}</tr>
{{end}}</table>
{{end}}{{if .Report.Fits}}<h2>scale, as lines over the number of pages</h2>
<table><tr><th>value</th><th>over</th><th>ns for each page</th><th>±</th><th>s without pages</th><th>r²</th><th>rounds</th></tr>
{{range .Report.Fits}}<tr><td>{{.Value}}</td><td>{{.Pages}}</td><td>{{number .NSPerPage}}</td><td>{{number .Error}}</td><td>{{number .Seconds}}</td><td>{{number .Determination}}</td><td>{{.Points}}</td></tr>
{{end}}</table>{{end}}</html>
`))

type table struct {
	Group    string
	Variants []string
	Rows     []row
}

type row struct {
	Name  string
	Cells []Statistics // without values where there are none
}

// html is report.html: it needs nothing else to be looked at.
func (r *Report) html() ([]byte, error) {
	data := struct {
		Report  *Report
		Figures []template.HTML
		Tables  []table
	}{Report: r}
	for _, figure := range r.figures() {
		if figure != "" {
			data.Figures = append(data.Figures, template.HTML(figure)) // all its text is ours
		}
	}
	for _, group := range []string{Recovery, Tracking, Scale} {
		if variants := r.Summary[group]; len(variants) > 0 {
			data.Tables = append(data.Tables, tabulate(group, variants))
		}
	}
	var out bytes.Buffer
	err := page.Execute(&out, data)
	return out.Bytes(), err
}

func tabulate(group string, variants map[string]map[string]Statistics) table {
	t := table{Group: group, Variants: slices.Sorted(maps.Keys(variants))}
	names := map[string]bool{}
	for _, values := range variants {
		for name := range values {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		line := row{Name: name}
		for _, variant := range t.Variants {
			line.Cells = append(line.Cells, variants[variant][name])
		}
		t.Rows = append(t.Rows, line)
	}
	return t
}

// number prints as many digits as are worth reading.
func number(v float64) string {
	switch {
	case v == float64(int64(v)):
		return fmt.Sprint(int64(v))
	case v >= 1000 || v <= -1000:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.4g", v)
}

// figures are those of the paper, and what it has none of.
func (r *Report) figures() []string {
	return []string{
		r.firstRead(),
		r.throughput("large", "Sequential read of a large file on a block device (the paper's Figure 3)"),
		r.throughput("image", "The same in an image file, which dom0 caches too (Figure 4)"),
		r.throughput("small", "Many small files: stat and read"),
		r.throughput("random", "Random reads of 4 KiB"),
		r.throughput("sqlite", "Queries to an SQLite database"),
		r.timelines(Recovery, "Answers of the web server per second; the reboot is asked for at 0 s (Figure 5)"),
		r.trackingFigure(),
	}
}

// firstRead is the figure of the report: what a reboot leaves of the speed.
func (r *Report) firstRead() string {
	labels := []string{"normal reboot", "normal reboot, then a prefetch", "warm reboot", "panic, warm reboot"} // as reboots
	var groups []bars
	for _, workload := range []struct{ name, label string }{
		{"large", "large file, block device"}, {"image", "large file, image file"}, {"small", "small files"}, {"random", "random reads"}, {"sqlite", "SQLite queries"},
	} {
		g := bars{label: workload.label}
		for i, variant := range reboots {
			if s := r.Summary[Recovery][variant][workload.name+"_recovered"]; len(s.Values) > 0 {
				g.bars = append(g.bars, bar{i, s.Median, s.Minimum, s.Maximum})
			}
		}
		if len(g.bars) > 0 {
			groups = append(groups, g)
		}
	}
	if len(groups) == 0 {
		return ""
	}
	return barChart("Speed of the first read after a reboot, against the same read before it", "×", labels, groups)
}

// readings are the passes of a workload, where there are so many.
var readings = []struct{ key, label string }{
	{"_before_1", "before: nothing cached"}, {"_before_2", "second"}, {"_before", "later"},
	{"_1", "after: first"}, {"_2", "second"}, {"_3", "third"},
}

// throughput compares the passes of one name.
func (r *Report) throughput(name, title string) string {
	var groups []bars
	unit := "MiB/s"
	for _, variant := range reboots {
		values := r.Summary[Recovery][variant]
		if len(values[name+"_before_seconds"].Values) == 0 {
			continue
		}
		g := bars{label: variant}
		for i, reading := range readings {
			seconds, bytes := values[name+reading.key+"_seconds"], values[name+reading.key+"_bytes"]
			if len(seconds.Values) == 0 {
				continue
			}
			amount := bytes.Median / (1 << 20)
			if name == "sqlite" {
				amount, unit = float64(r.Settings.Sizes.Queries), "/s"
			}
			rate := func(s float64) float64 { return amount / s }
			g.bars = append(g.bars, bar{i, rate(seconds.Median), rate(seconds.Maximum), rate(seconds.Minimum)})
		}
		groups = append(groups, g)
	}
	if len(groups) == 0 {
		return ""
	}
	var labels []string
	for _, reading := range readings {
		labels = append(labels, reading.label)
	}
	return barChart(title, unit, labels, groups)
}

// trackingFigure compares what work costs, tracked and not.
func (r *Report) trackingFigure() string {
	var groups []bars
	for _, name := range []string{"fast", "cached", "write", "rewrite", "mmap", "fsync", "churn"} {
		base := r.Summary[Tracking][Stock][name+"_cpu_seconds"].Median
		if base == 0 {
			return ""
		}
		g := bars{label: name}
		for i, variant := range variantsOf[Tracking] {
			s := r.Summary[Tracking][variant][name+"_cpu_seconds"]
			if len(s.Values) == 0 {
				return ""
			}
			g.bars = append(g.bars, bar{i, s.Median / base, s.Minimum / base, s.Maximum / base})
		}
		groups = append(groups, g)
	}
	return barChart("Processor time of dom0 and domU, tracked (on) and not (off), against an unpatched kernel (stock)", "×", variantsOf[Tracking], groups)
}
