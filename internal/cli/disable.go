package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/text"
)

func (e *env) disableCommand() *cli.Command {
	return &cli.Command{
		Name: "disable", ArgsUsage: "DOMAIN | --all", Usage: "forget a domain's page cache, and manage it no longer",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "all domains that are managed; the package does that when it is removed"},
			dryRunFlag(),
		},
		Action: func(c *cli.Context) error {
			p, err := parse(c, 0, 1)
			if err != nil {
				return err
			}
			if c.Bool("all") == (len(p.args) == 1) {
				return usagef("which domain? Name one, or say --all")
			}
			if c.Bool("dry-run") && !c.Bool("all") {
				return e.would(c.Context, p, "disable the warm cache of")
			}
			s := e.service(p.string("socket"))
			if c.Bool("all") {
				return e.disableAll(c.Context, s, p, c.Bool("dry-run"))
			}
			st, err := s.Disable(c.Context, p.args[0])
			return e.answer(p, st, err, "disabled")
		},
	}
}

// disableAll goes on after an error; all of them are returned.
func (e *env) disableAll(ctx context.Context, s api.Service, p call, dryRun bool) error {
	all, err := s.List(ctx)
	if err != nil {
		return err
	}
	done := []api.DomainStatus{}
	var errs []error
	for _, d := range all {
		if !d.Managed && !d.Enabled {
			continue
		}
		if dryRun {
			done = append(done, d)
			continue
		}
		st, err := s.Disable(ctx, d.UUID.String())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, st)
	}
	if p.json {
		return errors.Join(append(errs, e.printJSON(done))...)
	}
	what := "warm cache disabled"
	if dryRun {
		what = "its warm cache would be disabled"
	}
	for _, st := range text.Printable(done) {
		fmt.Fprintf(e.stdout, "domain %s: %s\n", st.Domain, what)
	}
	return errors.Join(errs...)
}
