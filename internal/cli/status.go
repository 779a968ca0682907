package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/text"
)

func (e *env) statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", ArgsUsage: "[DOMAIN]", Usage: "show what is known of a domain, or of all",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "wait", Usage: "wait until no reboot is under way"},
			durationFlag("timeout", 5*time.Minute, "with --wait, give up after `TIME`"),
		},
		Action: e.status,
	}
}

func (e *env) status(c *cli.Context) error {
	p, err := parse(c, 0, 1)
	if err != nil {
		return err
	}
	wait := c.Bool("wait")
	if wait && len(p.args) == 0 {
		return usagef("--wait needs a domain")
	}
	ctx := c.Context
	if wait {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, durationOf(c, "timeout"))
		defer cancel()
	}
	s := e.service(p.string("socket"))
	if len(p.args) == 0 {
		all, err := s.List(ctx)
		if isAgentDown(err) {
			all, err = e.listWithoutAgent(ctx, err)
		}
		if err == nil {
			// A daemon that keeps an old configuration says so wherever one looks.
			if conf, confErr := e.runs(p.string("socket")).Config(ctx); confErr == nil && conf.Error != "" {
				fmt.Fprintf(e.stderr, "warmreboot: the configuration in %s is wrong; %s\n%s\n", conf.Dir, conf.InForce(), conf.Error)
			}
		}
		return e.printList(p, all, err)
	}
	stop := func() {}
	if wait {
		stop = e.progress(ctx, s, p.args[0])
	}
	st, err := s.Status(ctx, p.args[0], wait)
	stop()
	if isAgentDown(err) && !wait {
		st, err = e.statusWithoutAgent(ctx, p.args[0], err)
	}
	if err != nil && st.Domain == "" {
		return err
	}
	if p.json {
		return errors.Join(e.printJSON(st), err)
	}
	e.printStatus(st)
	return err
}

func isAgentDown(err error) bool {
	var a *api.Error
	return errors.As(err, &a) && a.Code == api.AgentDown
}

// listWithoutAgent is what Xen alone says. down is the agent's error, which is
// what counts if this is no Xen, either.
func (e *env) listWithoutAgent(ctx context.Context, down error) ([]api.DomainStatus, error) {
	l, err := e.local()
	if err != nil {
		return nil, down
	}
	defer l.close()
	fmt.Fprintf(e.stderr, "warmreboot: %v\nThis is what Xen itself says:\n", down)
	all, _, err := l.domains(ctx)
	return all, err
}

func (e *env) statusWithoutAgent(ctx context.Context, domain string, down error) (api.DomainStatus, error) {
	l, err := e.local()
	if err != nil {
		return api.DomainStatus{}, down
	}
	defer l.close()
	s, _, err := l.find(ctx, domain)
	if err == nil {
		s.Message = down.Error()
	}
	return s, err
}

func (e *env) printList(p call, all []api.DomainStatus, err error) error {
	if err != nil {
		return err
	}
	if p.json {
		return e.printJSON(all)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "DOMAIN\tDOMID\tSTATE\tWARM CACHE\tPAGES\tPRESERVED\tLAST REBOOT")
	for _, s := range text.Printable(all) {
		last := "-"
		if s.Current != nil {
			last = "under way"
		} else if s.Last != nil {
			last = fmt.Sprintf("%s (%s), %d restored", s.Last.Outcome, s.Last.Trigger, s.Last.PagesRestored)
		}
		domid := "-"
		if s.Domid != 0 {
			domid = fmt.Sprint(s.Domid)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", s.Domain, domid, s.State, s.Cache(), s.Committed, s.ImagePages, last)
	}
	return w.Flush()
}

func (e *env) printStatus(s api.DomainStatus) {
	s = text.Printable(s)
	fmt.Fprintf(e.stdout, "domain %s (%s), ", s.Domain, s.UUID)
	if s.Domid != 0 {
		fmt.Fprintf(e.stdout, "domid %d, ", s.Domid)
	}
	fmt.Fprint(e.stdout, strings.TrimSpace(s.State+" "+s.Type))
	if s.Toolstack != "" {
		fmt.Fprintf(e.stdout, ", created by %s", s.Toolstack)
	}
	fmt.Fprintln(e.stdout)
	fmt.Fprintf(e.stdout, "  warm cache: %s; reusable now %s, held %d, preserved %d\n", s.Cache(), pages(s.Committed), s.Held, s.ImagePages)
	if s.Policy != nil {
		fmt.Fprintf(e.stdout, "  policy: content %s, uncertain custody %s\n", s.Policy.Content, s.Policy.Uncertain)
	}
	for _, c := range s.Custody {
		fmt.Fprintf(e.stdout, "  %-6s %s, custody %s", c.Name, c.Backing, c.State)
		if c.Reason != "" {
			fmt.Fprintf(e.stdout, ": %s", c.Reason)
		}
		fmt.Fprintln(e.stdout)
	}
	for _, v := range s.Refusals {
		fmt.Fprintf(e.stdout, "  refused of %s since it was enabled:\n", v.Name)
		printRefusals(e.stdout, "    ", v.Refusals)
	}
	if s.Message != "" {
		fmt.Fprintf(e.stdout, "note: %s\n", s.Message)
	}
	if s.Current != nil {
		fmt.Fprintf(e.stdout, "a reboot is under way: %s\n", phase(s))
	} else if s.Last != nil {
		fmt.Fprintln(e.stdout, "last reboot:")
		printSummary(e.stdout, *s.Last)
	}
}
