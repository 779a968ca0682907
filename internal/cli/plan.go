package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/text"
)

func (e *env) planCommand() *cli.Command {
	return &cli.Command{
		Name: "plan", ArgsUsage: "[DOMAIN]", Usage: "show which reboots schedules will do next, and why",
		Action: func(c *cli.Context) error {
			p, err := parse(c, 0, 1)
			if err != nil {
				return err
			}
			domain := ""
			if len(p.args) > 0 {
				domain = p.args[0]
			}
			f, err := e.runs(p.string("socket")).Forecast(c.Context, domain)
			if err != nil {
				return err
			}
			if p.json {
				return e.printJSON(f)
			}
			return e.printForecast(f)
		},
	}
}

func (e *env) printForecast(f api.Forecast) error {
	faults := f.Config.Error // a line for each
	f = text.Printable(f)
	if faults != "" {
		fmt.Fprintf(e.stdout, "the configuration in %s is wrong; %s\n%s\n", f.Config.Dir, f.Config.InForce(), faults)
	}
	if f.Config.DryRun {
		fmt.Fprintln(e.stdout, "warmrebootd runs with --dry-run: nothing of this is done")
	}
	for _, h := range f.Halted {
		fmt.Fprintf(e.stdout, "schedule %s is stopped: %s; warmreboot resume %s\n", h.Schedule, h.Why, h.Schedule)
	}
	for _, l := range f.Locks {
		until := clock(l.Until)
		if l.Until.IsZero() {
			until = "it is released: warmreboot unlock " + ident.Word(l.Domain, l.UUID)
		}
		fmt.Fprintf(e.stdout, "domain %s is locked by %s until %s", l.Domain, l.Owner, until)
		if l.Reason != "" {
			fmt.Fprintf(e.stdout, ": %s", l.Reason)
		}
		fmt.Fprintln(e.stdout)
	}
	if len(f.Runs) == 0 {
		fmt.Fprintln(e.stdout, "no schedule matches")
		return nil
	}
	w := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NEXT\tDOMAIN\tSCHEDULE\tMODE\tWHY")
	for _, r := range f.Runs {
		next, mode, why := "not known", string(r.Mode), r.Why
		switch {
		case r.Running:
			next = "under way"
		case !r.Due.IsZero() && r.Blocked == "":
			next = "now"
		case !r.Next.IsZero():
			next = clock(r.Next)
		}
		if r.DryRun {
			mode += ", dry run"
		}
		if r.Blocked != "" && !r.Running {
			why = "due since " + clock(r.Due) + " (" + r.Why + "), but " + r.Blocked
		}
		if r.Kernel != "" {
			why += "; with " + r.Kernel
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", next, r.Domain, r.Schedule, mode, why)
	}
	return w.Flush()
}

// clock shows a time in the zone of who asks, and names it: a schedule may have
// another one.
func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }
