package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/text"
)

func (e *env) updateCommand() *cli.Command {
	return &cli.Command{
		Name: "update", ArgsUsage: "DOMAIN", Usage: "boot another kernel, keep it if it is well, and go back to the old one if not",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "kernel", Usage: "the new kernel, a `FILE` of dom0"},
			&cli.StringFlag{Name: "initrd", Usage: "its initrd, a `FILE` of dom0, or none"},
			&cli.StringFlag{Name: "cmdline", Usage: "its command line; by default the `ARGUMENTS` of now"},
			&cli.StringFlag{Name: "health", Usage: "how to see that it is well: `http://…, tcp:HOST:PORT, xenstore:data/boot-complete, or a command` with its arguments; {domain} and {uuid} stand for the domain's"},
			durationFlag("health-timeout", 2*time.Minute, "for how `LONG` that is tried until it succeeds"),
			durationFlag("deadline", 10*time.Minute, "go back if it is not up after `TIME`"),
			durationFlag("probation", 10*time.Minute, "for how `LONG` it has to be well until it is the domain's kernel"),
			&cli.StringFlag{Name: "config", Usage: "xl's configuration `FILE` of the domain; by default the one in /etc/xen"},
			&cli.BoolFlag{Name: "write-config", Usage: "have that name the new kernel when it is the domain's"},
			&cli.BoolFlag{Name: "cold", Usage: "reboot normally, without the page cache"},
			&cli.BoolFlag{Name: "trial", Usage: "try the new kernel on a clone of the domain first, with copies of its disks; what is wrong with it costs nothing then"},
			&cli.BoolFlag{Name: "trial-only", Usage: "as --trial, and no more than that"},
			&cli.BoolFlag{Name: "keep", Usage: "leave the clone for looking at, until somebody destroys it"},
			&cli.StringFlag{Name: "trial-bridge", Usage: "put the clone's network interfaces on `BRIDGE`; by default it has none"},
			&cli.IntFlag{Name: "trial-space", Value: 1024, Usage: "give the trial up when it takes so many `MIB` of room beside the disks"},
			&cli.BoolFlag{Name: "override", Usage: "in spite of locks, maintenance windows, groups and limits"},
			dryRunFlag(),
		},
		Action: e.update,
	}
}

// healthOf is a health check as the command line has it.
func healthOf(s string, timeout time.Duration) (*api.HealthCheck, error) {
	h := &api.HealthCheck{TimeoutSeconds: timeout.Seconds()}
	tcp, isTCP := strings.CutPrefix(s, "tcp:")
	node, isNode := strings.CutPrefix(s, "xenstore:")
	switch {
	case s == "":
		return nil, nil
	case strings.HasPrefix(s, "http://"), strings.HasPrefix(s, "https://"):
		h.HTTP = s
	case isTCP && strings.Contains(tcp, ":"):
		h.TCP = tcp
	case isNode && node != "":
		h.Xenstore = node
	case strings.HasPrefix(s, "/"):
		h.Command = strings.Fields(s)
	default:
		return nil, usagef("--health is %q, must be http://…, tcp:HOST:PORT, xenstore:PATH or a command by its absolute path", s)
	}
	return h, nil
}

// trialOf is a trial on a clone as the command line has it.
func trialOf(c *cli.Context) (*api.TrialRequest, error) {
	space := c.Int("trial-space")
	switch {
	case c.Bool("trial") || c.Bool("trial-only"):
	case c.Bool("keep"), c.IsSet("trial-bridge"), c.IsSet("trial-space"):
		return nil, usagef("--keep, --trial-bridge and --trial-space are of a trial: --trial")
	default:
		return nil, nil
	}
	if space < 16 || space > 1<<30 {
		return nil, usagef("--trial-space is %d MiB, must be 16 or more", space)
	}
	return &api.TrialRequest{Only: c.Bool("trial-only"), Keep: c.Bool("keep"), Bridge: c.String("trial-bridge"), SpaceBytes: int64(space) << 20}, nil
}

func (e *env) update(c *cli.Context) error {
	p, err := parse(c, 1, 1)
	if err != nil {
		return err
	}
	u := &api.UpdateRequest{Kernel: c.String("kernel"), Initrd: c.String("initrd"), Config: c.String("config"), WriteConfig: c.Bool("write-config"),
		DeadlineSeconds: durationOf(c, "deadline").Seconds(), ProbationSeconds: durationOf(c, "probation").Seconds()}
	if u.Kernel == "" {
		return usagef("which kernel? --kernel FILE")
	}
	if u.WriteConfig && c.Bool("trial-only") {
		return usagef("--trial-only changes nothing: no --write-config")
	}
	if durationOf(c, "deadline") < time.Second || durationOf(c, "health-timeout") < time.Second {
		return usagef("--deadline and --health-timeout must be a second or more")
	}
	if u.Trial, err = trialOf(c); err != nil {
		return err
	}
	if u.Health, err = healthOf(c.String("health"), durationOf(c, "health-timeout")); err != nil {
		return err
	}
	if c.IsSet("cmdline") {
		line := c.String("cmdline")
		u.Cmdline = &line
	}
	for _, path := range []*string{&u.Kernel, &u.Initrd, &u.Config} { // the daemon is elsewhere
		if *path == "" || path == &u.Initrd && *path == api.NoInitrd {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	mode := api.Graceful
	if c.Bool("cold") {
		mode = api.Cold
	}
	o := e.operations(p.string("socket"))
	request := api.OperationRequest{Kind: api.KindUpdate, Domain: p.args[0], Mode: mode, Override: c.Bool("override"), Owner: operator(), Update: u}
	if c.Bool("dry-run") {
		return e.planUpdate(c.Context, o, p, request)
	}
	op, err := api.AwaitOperation(c.Context, e.shown(o), request)
	if op.ID == "" {
		return err
	}
	if p.json {
		if jsonErr := e.printJSON(op); jsonErr != nil {
			return errors.Join(err, jsonErr)
		}
		return err
	}
	if op.Update != nil {
		printUpdate(e.stdout, text.Printable(op))
	}
	return err
}

func (e *env) planUpdate(ctx context.Context, o api.Operations, p call, r api.OperationRequest) error {
	plan, err := o.Plan(ctx, r)
	if p.json && plan.Domain != "" {
		return errors.Join(err, e.printJSON(plan))
	}
	if err != nil {
		return err
	}
	if plan.Update == nil {
		return api.Errorf(api.VersionSkew, "the agent knows no updates: restart warmrebootd")
	}
	plan = text.Printable(plan)
	if tr := plan.Update.Trial; tr != nil {
		fmt.Fprintf(e.stdout, "would try it on a clone first, %s\n", tr.Domain)
		printNotChecked(e.stdout, *tr)
	}
	if !p.c.Bool("trial-only") {
		fmt.Fprintf(e.stdout, "would reboot domain %s (domid %d, %s) into another kernel\n", plan.Domain, plan.Domid, plan.Mode)
	}
	fmt.Fprintf(e.stdout, "  old %s\n  new %s\n", files(plan.Update.Old), files(plan.Update.New))
	if p.c.Bool("trial-only") {
		return nil
	}
	if plan.NotWarm != "" {
		fmt.Fprintf(e.stdout, "it would come back cold: %s\n", plan.NotWarm)
	} else {
		fmt.Fprintf(e.stdout, "would preserve %s\n", pages(plan.Pages))
	}
	fmt.Fprintf(e.stdout, "would go back to the old kernel if the new one goes down, is not up after %v, or is not well now and after %v\n", durationOf(p.c, "deadline"), durationOf(p.c, "probation"))
	if plan.Update.Config != "" && p.c.Bool("write-config") {
		fmt.Fprintf(e.stdout, "would write the new kernel into %s then\n", plan.Update.Config)
	} else {
		printConfig(e.stdout, *plan.Update, "would have to be changed")
	}
	return nil
}

func files(b api.BootFiles) string {
	s := b.Kernel
	if b.Initrd != "" {
		s += ", initrd " + b.Initrd
	}
	return fmt.Sprintf("%s, %q", s, b.Cmdline)
}

// steps are what an operator is shown of those of an update, while he waits.
var steps = map[string]string{
	"well before": "asking whether it is well now", "keep": "copying both kernels", "trial": "trying the new kernel on a clone", "arm": "telling the toolstack which kernel to fall back to",
	"graceful": "going down", "cold": "going down", "force": "taking it down", "trying": "the new kernel boots", "checking": "asking whether it is well",
	"probation": "well, and on probation", "confirming": "asking once more", "bless": "making it the domain's kernel", "write config": "writing it into the domain's configuration", "returning": "going back to the old kernel",
}

// asked is api.Operations, by a name that none of its methods has.
type asked interface{ api.Operations }

// watched shows on a terminal what an operation does.
type watched struct {
	asked
	out io.Writer
}

func (e *env) shown(o api.Operations) api.Operations {
	if !e.terminal {
		return o
	}
	return watched{o, e.stderr}
}

// Follow implements api.Operations.
func (w watched) Follow(ctx context.Context, id string) iter.Seq2[api.Operation, error] {
	return func(yield func(api.Operation, error) bool) {
		said := 0
		for op, err := range w.asked.Follow(ctx, id) {
			for ; said < len(op.Steps); said++ {
				if words := steps[op.Steps[said].Name]; words != "" {
					fmt.Fprintf(w.out, "%s  %s\n", op.Steps[said].Begun.Local().Format("15:04:05"), words)
				}
			}
			if !yield(op, err) {
				return
			}
		}
	}
}

func printUpdate(w io.Writer, op api.Operation) {
	u := *op.Update
	switch u.Outcome {
	case api.Updated:
		fmt.Fprintf(w, "domain %s was updated, and is well\n", op.Domain)
	case api.UpdateBack:
		fmt.Fprintf(w, "domain %s fell back to its old kernel: %s\n", op.Domain, u.Why)
	case api.NotTried, api.TrialFailed:
		fmt.Fprintf(w, "domain %s was not updated, and goes on as it was\n", op.Domain)
	case api.TrialPassed:
		fmt.Fprintf(w, "domain %s could be updated, and goes on as it was\n", op.Domain)
	default:
		fmt.Fprintf(w, "domain %s: the update ended as nobody foresaw: %s\n", op.Domain, u.Why)
	}
	if u.New.Kernel != "" {
		fmt.Fprintf(w, "  old %s\n  new %s\n", files(u.Old), files(u.New))
	}
	printConsole(w, u.Console)
	if u.Trial != nil {
		printTrial(w, *u.Trial)
	}
	if s := op.Summary; s != nil && s.Done {
		printSummary(w, *s)
	}
	switch {
	case u.Copies == "":
	case u.Outcome == api.UpdateLost:
		fmt.Fprintf(w, "copies of both kernels are kept in %s, as nobody knows whether the domain boots by them: remove them when it has been created anew\n", u.Copies)
	default:
		fmt.Fprintf(w, "the files that were named are not what was booted any more: the domain boots by copies in %s; put them back, and warmreboot update it to them\n", u.Copies)
	}
	switch {
	case u.Outcome != api.Updated:
	case u.ConfigWritten:
		fmt.Fprintf(w, "%s has the new kernel\n", u.Config)
	default:
		printConfig(w, u, "is yours to change")
	}
}

func printConsole(w io.Writer, lines []string) {
	for i, line := range lines {
		if i == 0 {
			fmt.Fprintln(w, "the new kernel's last words on its console:")
		}
		fmt.Fprintf(w, "  | %s\n", line)
	}
}

func printTrial(w io.Writer, t api.Trial) {
	switch {
	case t.Passed:
		fmt.Fprintf(w, "the clone %s came up, and was well\n", t.Domain)
	default:
		fmt.Fprintf(w, "trial on the clone %s: %s\n", t.Domain, t.Why)
	}
	printNotChecked(w, t)
	printConsole(w, t.Console)
	if t.ReadBytes > 0 || t.SpaceBytes > 0 {
		const mib = 1 << 20
		fmt.Fprintf(w, "  the clone has read %.1f MiB and written %.1f; %.1f MiB of room were taken at most; writes of the domain waited for %.3f s at most\n",
			float64(t.ReadBytes)/mib, float64(t.WrittenBytes)/mib, float64(t.SpaceBytes)/mib, t.CloneSeconds)
	}
	if t.Kept {
		fmt.Fprintf(w, "  it is left as %s: xl destroy it, and its disks go within a minute\n", ident.Word(t.Domain, t.UUID))
	}
}

func printNotChecked(w io.Writer, t api.Trial) {
	if t.NotChecked != "" {
		fmt.Fprintf(w, "  %s\n", t.NotChecked)
	}
}

// printConfig says what an operator has to write down: unless he asks for it, nobody
// else writes into his files.
func printConfig(w io.Writer, u api.Update, is string) {
	if u.Config == "" {
		return
	}
	fmt.Fprintf(w, "%s %s, or the domain has its old kernel when it is shut down and created anew:\n  kernel = %q\n", u.Config, is, u.New.Kernel)
	if u.New.Initrd != u.Old.Initrd {
		fmt.Fprintf(w, "  ramdisk = %q\n", u.New.Initrd)
	}
	if u.New.Cmdline != u.Old.Cmdline {
		fmt.Fprintf(w, "  cmdline = %q\n", u.New.Cmdline)
	}
}
