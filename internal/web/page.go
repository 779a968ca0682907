// Package web shows what the agent knows as HTML: one file for a report, and the
// daemon's read-only status pages, which look the same; package webserver serves
// them. A page is one file that
// needs nothing else: no script, no image, no font from anywhere.
package web

import (
	"embed"
	"html/template"
	"io"
	"time"

	"github.com/warmreboot/warmreboot/api"
)

//go:embed *.html style.css
var files embed.FS

// Domain is what a page about a domain shows.
type Domain struct {
	Status api.DomainStatus
	// Reboot is the one that is shown at length, nil if there has been none;
	// Samples are what was seen around it.
	Reboot  *api.HistoryEntry
	Samples []api.Sample
	// History are the domain's reboots, the latest first.
	History []api.HistoryEntry
	frame
}

// Host is what the page about all domains shows.
type Host struct {
	Host    api.Host
	Domains []api.DomainStatus
	History []api.HistoryEntry
	frame
}

// frame is what every page has.
type frame struct {
	Generated time.Time
	// Live: it is served by the daemon, and loads itself again.
	Live    bool
	Version string
}

// RenderReport writes a report: a file to be kept or sent.
func RenderReport(w io.Writer, d Domain, version string, now time.Time) error {
	d.frame = frame{Generated: now, Version: version}
	return templates.ExecuteTemplate(w, "domain.html", d)
}

// RenderDomain and RenderHost write pages of a daemon, which load themselves again.
func RenderDomain(w io.Writer, d Domain, version string, now time.Time) error {
	d.frame = frame{Generated: now, Version: version, Live: true}
	return templates.ExecuteTemplate(w, "domain.html", d)
}

// RenderHost writes the page about all domains; see RenderDomain.
func RenderHost(w io.Writer, h Host, version string, now time.Time) error {
	h.frame = frame{Generated: now, Version: version, Live: true}
	return templates.ExecuteTemplate(w, "host.html", h)
}

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"style": func() (template.CSS, error) {
		raw, err := files.ReadFile("style.css")
		return template.CSS(raw), err
	},
	"pages":  pages,
	"time":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"short":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") },
	"second": seconds,
	"cache":  api.DomainStatus.Cache,
	"charts": charts,
	"steps":  steps,
	"total":  total,
}).ParseFS(files, "*.html"))
