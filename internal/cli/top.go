package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/text"
)

func (e *env) topCommand() *cli.Command {
	return &cli.Command{
		Name: "top", Usage: "show all domains, again and again",
		Description: "On a terminal the screen is drawn anew each time, and Ctrl-C ends it. In a pipe there\n" +
			"is a line for each domain, or with -o json one for all, each time.",
		Flags: []cli.Flag{
			durationFlag("interval", 2*time.Second, "every `TIME`"),
			&cli.IntFlag{Name: "count", Usage: "end after `N` times (0: never)"},
		},
		Action: e.top,
	}
}

func (e *env) top(c *cli.Context) error {
	p, err := parse(c, 0, 0)
	if err != nil {
		return err
	}
	interval, count := durationOf(c, "interval"), c.Int("count")
	if interval < 100*time.Millisecond || count < 0 {
		return usagef("--interval must be at least 100ms, --count not negative")
	}
	ctx, s := c.Context, e.service(p.string("socket"))
	var show func(view) error
	switch {
	case p.json:
		show = e.topJSON
	case e.screen != nil:
		fmt.Fprint(e.rawOut, "\033[?1049h\033[?25l") // another screen, without a cursor
		defer fmt.Fprint(e.rawOut, "\033[?25h\033[?1049l")
		show = e.topScreen
	default:
		show = e.topLines
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last view
	for n := 1; ; n++ {
		v := look(ctx, s, last)
		if ctx.Err() != nil {
			return nil // that is how it ends
		}
		if err := show(v); err != nil {
			return err
		}
		if n == count {
			return nil
		}
		last = v
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// view is what is shown at one time.
type view struct {
	At      time.Time          `json:"at"`
	Domains []api.DomainStatus `json:"domains"`
	// Rates are those of the domains since the last time, in the same order; nil
	// where there is none.
	Rates []*rates `json:"rates"`
	err   error
}

// rates are per second.
type rates struct {
	WriteFaults float64 `json:"write_faults"`
	Hypercalls  float64 `json:"hypercalls"`
	Committed   float64 `json:"committed"` // by which the reusable pages became more
}

func look(ctx context.Context, s api.Service, last view) view {
	v := view{At: time.Now()}
	v.Domains, v.err = s.List(ctx)
	for _, d := range v.Domains {
		v.Rates = append(v.Rates, last.ratesOf(d, v.At))
	}
	return v
}

func (last view) ratesOf(d api.DomainStatus, now time.Time) *rates {
	for _, o := range last.Domains {
		if o.UUID != d.UUID || o.Domid != d.Domid || d.Domid == 0 || d.UUID == (ident.UUID{}) {
			continue // another domain counts from 0
		}
		seconds := now.Sub(last.At).Seconds()
		per := func(a, b uint64) float64 { return (float64(a) - float64(b)) / seconds }
		return &rates{per(d.WriteFaults, o.WriteFaults), per(d.Hypercalls, o.Hypercalls), per(d.Committed, o.Committed)}
	}
	return nil
}

func (e *env) topJSON(v view) error {
	if v.err != nil {
		return v.err
	}
	return json.NewEncoder(e.rawOut).Encode(v)
}

// topLines prints what a program can read on: one line for each domain.
func (e *env) topLines(v view) error {
	if v.err != nil {
		return v.err
	}
	for i, d := range text.Printable(v.Domains) {
		r := v.Rates[i]
		if r == nil {
			r = &rates{}
		}
		fmt.Fprintf(e.stdout, "%s domain=%q domid=%d state=%s cache=%q reusable=%d coverage=%.1f%% held=%d preserved=%d write_faults/s=%.1f hypercalls/s=%.1f reboot=%q\n",
			v.At.UTC().Format(time.RFC3339), d.Domain, d.Domid, d.State, d.Cache(), d.Committed, d.Coverage(), d.Held, d.ImagePages,
			r.WriteFaults, r.Hypercalls, lastReboot(d))
	}
	return nil
}

// topScreen draws the screen. An agent that does not answer may come back.
func (e *env) topScreen(v view) error {
	width, height := e.screen()
	var b bytes.Buffer
	fmt.Fprintf(&b, "warmreboot top  %s  %d domains  (Ctrl-C ends)\n", v.At.Format("15:04:05"), len(v.Domains))
	if v.err != nil {
		fmt.Fprintf(&b, "\n%s\n", wrap(ident.Printable(v.err.Error()), width))
	} else {
		fmt.Fprintln(&b)
		w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "DOMAIN\tDOMID\tSTATE\tWARM CACHE\tREUSABLE\tCOVER\tMORE/s\tWR FAULTS/s\tHCALLS/s\tPRESERVED\tLAST REBOOT")
		for i, d := range text.Printable(v.Domains) {
			more, faults, calls := "-", "-", "-"
			if r := v.Rates[i]; r != nil {
				more, faults, calls = fmt.Sprintf("%+.0f", r.Committed), fmt.Sprintf("%.0f", r.WriteFaults), fmt.Sprintf("%.0f", r.Hypercalls)
			}
			domid := "-"
			if d.Domid != 0 {
				domid = fmt.Sprint(d.Domid)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.1f MiB\t%.1f%%\t%s\t%s\t%s\t%d\t%s\n", d.Domain, domid, d.State, d.Cache(),
				float64(d.Committed)/256, d.Coverage(), more, faults, calls, d.ImagePages, lastReboot(d))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	lines = lines[:min(len(lines), height)]
	var out strings.Builder
	out.WriteString("\033[H")
	for i, l := range lines {
		if r := []rune(l); len(r) > width {
			l = string(r[:width])
		}
		if i == 2 && v.err == nil {
			l = "\033[7m" + l + "\033[0m"
		}
		out.WriteString(l + "\033[K")
		if i < len(lines)-1 {
			out.WriteString("\n") // the terminal is not in raw mode
		}
	}
	out.WriteString("\033[J")
	_, err := fmt.Fprint(e.rawOut, out.String())
	return err
}

func lastReboot(d api.DomainStatus) string {
	switch {
	case d.Current != nil:
		return phase(d)
	case d.Last != nil:
		return fmt.Sprintf("%s (%s), %d restored", d.Last.Outcome, d.Last.Trigger, d.Last.PagesRestored)
	}
	return "-"
}

// wrap breaks a text into lines of at most width runes, at spaces where it can.
func wrap(s string, width int) string {
	var lines []string
	for line := []rune(s); len(line) > 0; {
		n := min(len(line), max(width, 1))
		if n < len(line) && line[n] != ' ' {
			if i := strings.LastIndex(string(line[:n]), " "); i > 0 {
				n = len([]rune(string(line[:n])[:i]))
			}
		}
		lines = append(lines, string(line[:n]))
		line = []rune(strings.TrimLeft(string(line[n:]), " "))
	}
	return strings.Join(lines, "\n")
}
