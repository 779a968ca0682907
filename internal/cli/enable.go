package cli

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/text"
)

func (e *env) enableCommand() *cli.Command {
	return &cli.Command{
		Name: "enable", ArgsUsage: "DOMAIN", Usage: "manage a domain: preserve its page cache over its reboots",
		Description: "Tracking starts with the guest kernel's next boot; a domain created paused\n" +
			"(xl create -p) is tracked from its first.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "content", Usage: "compare `PAGES` with the disk before approval: none, sample=N or full", Value: "sample=256"},
			&cli.StringFlag{Name: "uncertain", Usage: "`WHAT` to do with a disk that somebody may have written to: full or refuse", Value: "full"},
			durationFlag("ttl", 0, "`TIME` that Xen preserves the pages of a domain that is not recreated, as 90m or 2d (0s: Xen's default)"),
			dryRunFlag(),
		},
		Action: func(c *cli.Context) error {
			p, err := parse(c, 1, 1)
			if err != nil {
				return err
			}
			ttl := durationOf(c, "ttl")
			if ttl%time.Second != 0 || ttl > 1<<31*time.Second {
				return usagef("--ttl must be whole seconds")
			}
			if c.Bool("dry-run") {
				return e.would(c.Context, p, "enable")
			}
			s, err := e.service(p.string("socket")).Enable(c.Context, p.args[0], api.Policy{
				Content: c.String("content"), Uncertain: c.String("uncertain"), TTLSeconds: uint32(ttl / time.Second)})
			return e.answer(p, s, err, "enabled")
		},
	}
}

// answer prints the status after a change.
func (e *env) answer(p call, s api.DomainStatus, err error, what string) error {
	if err != nil {
		return err
	}
	if p.json {
		return e.printJSON(s)
	}
	s = text.Printable(s)
	fmt.Fprintf(e.stdout, "domain %s: warm cache %s\n", s.Domain, what)
	if s.Message != "" {
		fmt.Fprintf(e.stdout, "note: %s\n", s.Message)
	}
	return nil
}
