package cli

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/schedule"
	"github.com/warmreboot/warmreboot/internal/text"
)

func dryRunFlag() cli.Flag {
	return &cli.BoolFlag{Name: "dry-run", Usage: "say what would be done, and do nothing"}
}

// would says what a command would do to a domain that is there.
func (e *env) would(ctx context.Context, p call, what string) error {
	s, err := e.service(p.string("socket")).Status(ctx, p.args[0], false)
	if err != nil {
		return err
	}
	if p.json {
		return e.printJSON(s)
	}
	s = text.Printable(s)
	fmt.Fprintf(e.stdout, "would %s domain %s (%s, %s); its warm cache is %s, with %s\n", what, s.Domain, s.UUID, s.State, s.Cache(), pages(s.Committed))
	return nil
}

// operator is who calls: root, and whose shell it came from.
func operator() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "root"
}

func (e *env) lockCommand() *cli.Command {
	return &cli.Command{
		Name: "lock", ArgsUsage: "DOMAIN", Usage: "keep schedules and operators from rebooting a domain",
		Flags: []cli.Flag{
			durationFlag("ttl", time.Hour, "for how `LONG`, as 90m or 2d"),
			&cli.StringFlag{Name: "reason", Usage: "`WHY`, for those who find it locked"},
			&cli.StringFlag{Name: "owner", Usage: "`WHO`; by default the user who calls"},
			dryRunFlag(),
		},
		Action: func(c *cli.Context) error {
			p, err := parse(c, 1, 1)
			if err != nil {
				return err
			}
			ttl := durationOf(c, "ttl")
			if ttl == 0 {
				return usagef("--ttl must be a time like 90m or 2d")
			}
			if c.Bool("dry-run") {
				return e.would(c.Context, p, "lock for "+schedule.FormatDuration(ttl))
			}
			owner := c.String("owner")
			if owner == "" {
				owner = operator()
			}
			l, err := e.runs(p.string("socket")).Lock(c.Context, p.args[0], api.LockRequest{Owner: owner, Reason: c.String("reason"), TTLSeconds: ttl.Seconds()})
			if err != nil {
				return err
			}
			if p.json {
				return e.printJSON(l)
			}
			fmt.Fprintf(e.stdout, "domain %s: locked until %s\n", ident.Printable(l.Domain), clock(l.Until))
			return nil
		},
	}
}

func (e *env) unlockCommand() *cli.Command {
	return &cli.Command{
		Name: "unlock", ArgsUsage: "DOMAIN", Usage: "release the lock on a domain, whosever it is",
		Flags: []cli.Flag{dryRunFlag()},
		Action: func(c *cli.Context) error {
			p, err := parse(c, 1, 1)
			if err != nil {
				return err
			}
			if c.Bool("dry-run") {
				return e.would(c.Context, p, "unlock")
			}
			l, err := e.runs(p.string("socket")).Unlock(c.Context, p.args[0])
			if err != nil {
				return err
			}
			if p.json {
				return e.printJSON(l)
			}
			l = text.Printable(l)
			fmt.Fprintf(e.stdout, "domain %s: released the lock of %s\n", l.Domain, l.Owner)
			return nil
		},
	}
}

func (e *env) resumeCommand() *cli.Command {
	return &cli.Command{
		Name: "resume", ArgsUsage: "SCHEDULE", Usage: "go on with a schedule that was stopped",
		Flags: []cli.Flag{dryRunFlag()},
		Action: func(c *cli.Context) error {
			p, err := parse(c, 1, 1)
			if err != nil && len(p.args) == 0 {
				return usagef("which schedule?")
			}
			if err != nil {
				return err
			}
			s := e.runs(p.string("socket"))
			if c.Bool("dry-run") {
				f, err := s.Forecast(c.Context, "")
				if err != nil {
					return err
				}
				for _, h := range f.Halted {
					if h.Schedule == p.args[0] {
						return e.printResumed(p, h, "would resume")
					}
				}
				return api.Errorf(api.BadRequest, "schedule %q is not stopped", p.args[0])
			}
			h, err := s.Resume(c.Context, p.args[0])
			if err != nil {
				return err
			}
			return e.printResumed(p, h, "resumed")
		},
	}
}

func (e *env) printResumed(p call, h api.HaltedRules, what string) error {
	if p.json {
		return e.printJSON(h)
	}
	h = text.Printable(h)
	fmt.Fprintf(e.stdout, "schedule %s: %s; it was stopped because %s\n", h.Schedule, what, h.Why)
	return nil
}
