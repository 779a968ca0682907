package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/text"
)

func rebootFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "force", Usage: "take the domain down without the guest's help"},
		&cli.BoolFlag{Name: "cold", Usage: "reboot normally, without the page cache"},
		durationFlag("timeout", 5*time.Minute, "give up waiting after `TIME`"),
		&cli.BoolFlag{Name: "override", Usage: "in spite of locks, maintenance windows, groups and limits"},
		&cli.BoolFlag{Name: "dry-run", Usage: "say what would be done, and do nothing"},
	}
}

// rebootCommand is the default command by name, for domains that are called like
// another one.
func (e *env) rebootCommand() *cli.Command {
	return &cli.Command{
		Name: "reboot", ArgsUsage: "DOMAIN", Usage: "the same as warmreboot DOMAIN, also for one that is called like a command",
		Flags: rebootFlags(), Action: e.reboot,
	}
}

// reboot is the default command.
func (e *env) reboot(c *cli.Context) error {
	if c.NArg() == 0 && c.NumFlags() == 0 && c.Command.Name != "reboot" {
		_ = cli.ShowAppHelp(c)
		return usagef("which domain?")
	}
	p, err := parse(c, 1, 1)
	if err != nil {
		return err
	}
	mode := api.Graceful
	switch force, cold := c.Bool("force"), c.Bool("cold"); {
	case force && cold:
		return usagef("--force and --cold exclude each other")
	case force:
		mode = api.Force
	case cold:
		mode = api.Cold
	}
	if durationOf(c, "timeout") <= 0 {
		return usagef("--timeout must be more than 0")
	}
	o := e.operations(p.string("socket"))
	request := api.OperationRequest{Kind: api.KindReboot, Domain: p.args[0], Mode: mode, Override: c.Bool("override"), Owner: operator()}
	if c.Bool("dry-run") {
		return e.plan(c.Context, o, p, request)
	}
	ctx, cancel := context.WithTimeout(c.Context, durationOf(c, "timeout"))
	defer cancel()
	stop := e.progress(ctx, e.service(p.string("socket")), p.args[0])
	sum, err := api.Await(ctx, o, request)
	stop()
	if sum.Trigger == "" { // it was not even begun
		return err
	}
	if p.json {
		if jsonErr := e.printJSON(sum); jsonErr != nil {
			return errors.Join(err, jsonErr)
		}
		return err
	}
	if sum.Done {
		printSummary(e.stdout, text.Printable(sum))
	}
	return err
}

func (e *env) plan(ctx context.Context, o api.Operations, p call, r api.OperationRequest) error {
	plan, err := o.Plan(ctx, r)
	if p.json && plan.Domain != "" {
		if jsonErr := e.printJSON(plan); jsonErr != nil {
			return errors.Join(err, jsonErr)
		}
		return err
	}
	if err != nil {
		return err
	}
	plan = text.Printable(plan)
	if plan.Joins != "" {
		fmt.Fprintf(e.stdout, "would wait for domain %s (domid %d), which is going down by itself (%s)\n", plan.Domain, plan.Domid, plan.Joins)
		return nil
	}
	fmt.Fprintf(e.stdout, "would reboot domain %s (domid %d, %s)\n", plan.Domain, plan.Domid, plan.Mode)
	if plan.NotWarm != "" {
		fmt.Fprintf(e.stdout, "it would come back cold: %s\n", plan.NotWarm)
		return nil
	}
	fmt.Fprintf(e.stdout, "would preserve %s\n", pages(plan.Pages))
	for _, v := range plan.VBDs {
		fmt.Fprintf(e.stdout, "  %-6s %-24s %s, check: %s\n", v.Name, v.Backing, pages(v.Pages), v.Check)
	}
	return nil
}

// pages formats a number of pages.
func pages(n uint64) string {
	return fmt.Sprintf("%d pages (%.1f MiB)", n, float64(n)/256)
}

func printSummary(w io.Writer, s api.Summary) {
	fmt.Fprintf(w, "domain %s came back %s", s.Domain, s.Outcome)
	if s.Reason != "" {
		fmt.Fprintf(w, ": %s", s.Reason)
	}
	fmt.Fprintf(w, "\n  domid %d -> %d, reboot %d (%s), down %.1f s", s.DomidBefore, s.DomidAfter, s.Sequence, s.Trigger, s.DownSeconds)
	if s.RestoredSeconds > 0 {
		fmt.Fprintf(w, ", restored after %.1f s", s.RestoredSeconds)
	}
	fmt.Fprintf(w, "\n  before    %s\n  preserved %s\n  approved  %s\n  restored  %s\n",
		pages(s.PagesBefore), pages(s.PagesPreserved), pages(s.PagesApproved), pages(s.PagesRestored))
	var refused []string
	for reason, n := range s.Refused {
		refused = append(refused, fmt.Sprintf("%s %d", reason, n))
	}
	slices.Sort(refused)
	if len(refused) > 0 {
		fmt.Fprintf(w, "  refused by the guest: %s\n", strings.Join(refused, ", "))
	}
	for _, v := range s.VBDs {
		fmt.Fprintf(w, "  %-6s %-24s %s, %d held, %d compared with the disk, %d differ", v.Name, v.Backing, v.Verdict, v.Held, v.Checked, v.Mismatches)
		if v.Reason != "" {
			fmt.Fprintf(w, ": %s", v.Reason)
		}
		if v.Note != "" {
			fmt.Fprintf(w, " (%s)", v.Note)
		}
		fmt.Fprintln(w)
		printRefusals(w, "         ", v.Refusals)
	}
}

// printRefusals shows why pages did not come back, a line for each reason.
func printRefusals(w io.Writer, indent string, refusals api.Refusals) {
	for _, r := range refusals {
		fmt.Fprintf(w, "%s%s: %d pages", indent, r.Reason, r.Pages)
		if r.Times > 1 {
			fmt.Fprintf(w, " in %d reboots or other occasions, the first at %s", r.Times, r.First.UTC().Format(time.RFC3339))
		}
		fmt.Fprintf(w, ": %s\n", r.Example)
	}
}
