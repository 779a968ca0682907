package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/ident"
)

func (e *env) dropCommand() *cli.Command {
	return &cli.Command{
		Name: "drop", ArgsUsage: "DOMAIN", Usage: "forget what is known of a domain's pages now, and the pages preserved for it",
		Flags: []cli.Flag{dryRunFlag()},
		Action: func(c *cli.Context) error {
			p, err := parse(c, 1, 1)
			if err != nil {
				return err
			}
			if c.Bool("dry-run") {
				return e.would(c.Context, p, "forget the pages of")
			}
			r, err := e.service(p.string("socket")).Drop(c.Context, p.args[0])
			if err != nil {
				return err
			}
			if p.json {
				return e.printJSON(r)
			}
			fmt.Fprintf(e.stdout, "domain %s: forgot %s, freed %s that were preserved\n", ident.Printable(r.Domain), pages(r.Pages), pages(r.ImagePages))
			return nil
		},
	}
}
