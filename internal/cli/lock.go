package cli

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"slices"
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

func (e *env) cancelCommand() *cli.Command {
	return &cli.Command{
		Name: "cancel", ArgsUsage: "DOMAIN | OPERATION", Usage: "have an operation end before its reboot, if it is not too late",
		Flags: []cli.Flag{dryRunFlag()},
		Action: func(c *cli.Context) error {
			p, err := parse(c, 1, 1)
			if err != nil {
				return err
			}
			o := e.operations(p.string("socket"))
			op, err := e.underWay(c.Context, o, p)
			if err != nil {
				return err
			}
			what := "would be cancelled"
			if !c.Bool("dry-run") {
				what = "is cancelled"
				if op, err = o.Cancel(c.Context, op.ID, operator()); err != nil {
					return err
				}
			}
			if p.json {
				return e.printJSON(op)
			}
			op = text.Printable(op)
			fmt.Fprintf(e.stdout, "domain %s: operation %s of %s (%s) %s\n", op.Domain, op.ID, op.Owner, op.Cause, what)
			return nil
		},
	}
}

// underWay finds the operation that is meant: by its ID, or the one that a domain is in.
func (e *env) underWay(ctx context.Context, o api.Operations, p call) (api.Operation, error) {
	all, err := o.Operations(ctx)
	if err != nil {
		return api.Operation{}, err
	}
	var of []api.Operation
	for _, op := range all {
		if op.ID == p.args[0] {
			return op, nil
		}
		if op.State == api.OperationRunning {
			of = append(of, op)
		}
	}
	s, err := e.service(p.string("socket")).Status(ctx, p.args[0], false)
	if err != nil {
		return api.Operation{}, err
	}
	of = slices.DeleteFunc(of, func(op api.Operation) bool { return op.UUID != s.UUID })
	switch len(of) {
	case 0:
		return api.Operation{}, api.Errorf(api.BadRequest, "domain %s is in no operation", s.Domain)
	case 1:
		return of[0], nil
	}
	return api.Operation{}, api.Errorf(api.BadRequest, "domain %s is in %d operations: which one, %s or %s?", s.Domain, len(of), of[0].ID, of[1].ID)
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
