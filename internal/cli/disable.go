package cli

import "github.com/urfave/cli/v2"

func (e *env) disableCommand() *cli.Command {
	return &cli.Command{
		Name: "disable", ArgsUsage: "DOMAIN", Usage: "forget a domain's page cache and keep it no longer",
		Action: func(c *cli.Context) error {
			p, err := parse(c, 1, 1)
			if err != nil {
				return err
			}
			s, err := e.service(p.string("socket")).Disable(c.Context, p.args[0])
			return e.answer(p, s, err, "disabled")
		},
	}
}
