// Package cli is the operator's command line: one file for each command. It
// asks the daemon, and does by itself only what reads.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/completion"
	"github.com/warmreboot/warmreboot/internal/text"
	"github.com/warmreboot/warmreboot/internal/version"
	"github.com/warmreboot/warmreboot/internal/web"
)

// env is what commands work with; tests put their own in.
type env struct {
	// stdout and stderr show text: what a name brings along does not steer the
	// terminal. rawOut and rawErr are the same, as they are.
	stdout, stderr io.Writer
	rawOut, rawErr io.Writer
	// terminal: stderr is one, so that progress is shown.
	terminal   bool
	pace       pace
	service    func(socket string) api.Service
	history    func(socket string) api.History
	operations func(socket string) api.Operations
	runs       func(socket string) api.Schedules
	pages      func(socket string) web.Source
	host       func(ctx context.Context, socket string) (api.Host, error)
	local      func() (local, error)
	// screen returns the width and height of the terminal that stdout is; nil if
	// it is none.
	screen func() (width, height int)
}

// Main runs the command line and returns the exit code.
func Main(args []string, stdout, stderr *os.File) int { return runAt(humanPace, args, stdout, stderr) }

func runAt(p pace, args []string, stdout, stderr *os.File) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	e := &env{stdout: text.Writer(stdout), stderr: text.Writer(stderr), rawOut: stdout, rawErr: stderr, terminal: isTerminal(stderr), pace: p,
		service:    func(socket string) api.Service { return api.NewClient(socket) },
		history:    func(socket string) api.History { return api.NewClient(socket) },
		operations: func(socket string) api.Operations { return api.NewClient(socket) },
		runs:       func(socket string) api.Schedules { return api.NewClient(socket) },
		pages:      func(socket string) web.Source { return api.NewClient(socket) },
		host: func(ctx context.Context, socket string) (api.Host, error) {
			return api.NewClient(socket).Host(ctx)
		},
		local: openLocal}
	if isTerminal(stdout) {
		e.screen = func() (int, int) { return screenSize(stdout) }
	}
	return e.run(ctx, args)
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// screenSize returns the size of a terminal, or the one that all have had, if it
// does not say.
func screenSize(f *os.File) (width, height int) {
	if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
		return w, h
	}
	return 80, 24
}

func (e *env) run(ctx context.Context, args []string) int {
	err := e.app().RunContext(ctx, markEnd(args))
	var verdict severity
	if errors.As(err, &verdict) {
		return int(verdict) // it has said what there is to say
	}
	if err != nil {
		var usage *usageError
		if errors.As(err, &usage) {
			fmt.Fprintf(e.stderr, "warmreboot: %v\nTry 'warmreboot --help'.\n", err)
			return ExitUsage
		}
		if errors.Is(err, context.Canceled) {
			err = fmt.Errorf("interrupted; what was asked of a domain may go on: warmreboot status shows it (%w)", err)
		}
		fmt.Fprintf(e.stderr, "warmreboot: %v%s\n", err, hintOf(err))
	}
	return exitCode(err)
}

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (u *usageError) Error() string { return u.err.Error() }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func (e *env) app() *cli.App {
	onUsage := func(_ *cli.Context, err error, _ bool) error { return &usageError{err} }
	app := &cli.App{
		Name:      "warmreboot",
		Version:   version.String(),
		Usage:     "reboot a Xen domU and give it its page cache back",
		UsageText: "warmreboot [options] DOMAIN [--force | --cold] [--timeout 5m] [--dry-run]\nwarmreboot [options] COMMAND ...",
		Description: "DOMAIN is a name, a domid or a UUID. One that is called like a command is rebooted by\n" +
			"warmreboot reboot DOMAIN; names that begin with - come after --. Exit codes: 0 ok (warm), 1 failure, 2 usage,\n" +
			"3 rebooted but cold, 4 this Xen has no warm cache, 5 not enabled or not tracked,\n" +
			"6 agent not running, 8 timeout, 9 check found mismatches, 10 no such domain,\n" +
			"11 locked or outside its window, 12 version skew, 13 an update fell back to the old kernel,\n" +
			"14 an update was not even tried, 130 interrupted.",
		Writer: e.stdout, ErrWriter: e.stderr,
		Flags:           append([]cli.Flag{outputFlag(), socketFlag()}, rebootFlags()...),
		Action:          e.reboot,
		OnUsageError:    onUsage,
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {},
		Commands: []*cli.Command{e.rebootCommand(), e.updateCommand(), e.enableCommand(), e.disableCommand(), e.statusCommand(), e.checkCommand(), e.dropCommand(), e.historyCommand(),
			e.topCommand(), e.reportCommand(), e.doctorCommand(), e.completeCommand(),
			e.planCommand(), e.configCommand(), e.lockCommand(), e.unlockCommand(), e.cancelCommand(), e.resumeCommand()},
	}
	for _, c := range app.Commands {
		if c.SkipFlagParsing {
			continue
		}
		c.OnUsageError = onUsage
		c.Flags = append(c.Flags, outputFlag(), socketFlag())
		c.HideHelpCommand = true
	}
	return app
}

func outputFlag() cli.Flag {
	return &cli.StringFlag{Name: "o", Aliases: []string{"output"}, Value: "text", Usage: "`FORMAT` of the output: text or json"}
}

func socketFlag() cli.Flag {
	return &cli.StringFlag{Name: "socket", Value: api.DefaultSocket, Usage: "`SOCKET` of the agent"}
}

// endOfOptions follows the first "--" of a command line on its way through the
// library, which drops that, or not, by where it comes. No argument has a NUL.
const endOfOptions = "\x00"

// markEnd marks where the options end, if that is given.
func markEnd(args []string) []string {
	i := slices.Index(args, "--")
	if i < 0 || len(args) > 1 && args[1] == completion.Name {
		return args
	}
	return slices.Insert(slices.Clone(args), i+1, endOfOptions)
}

// call is one command as it was called: urfave/cli stops looking for flags at
// the first argument, operators do not.
type call struct {
	c    *cli.Context
	args []string
	json bool
}

// parse takes the arguments apart, flags after them included, and checks how
// many there are.
func parse(c *cli.Context, least, most int) (call, error) {
	p := call{c: c}
	rest := c.Args().Slice()
	for i := 0; i < len(rest); i++ {
		if rest[i] == "--" && i+1 < len(rest) && rest[i+1] == endOfOptions {
			i++
		}
		if rest[i] == endOfOptions { // what follows are names, whatever they begin with
			p.args = append(p.args, rest[i+1:]...)
			break
		}
		name, value, ok := completion.FlagOf(rest[i])
		if !ok {
			p.args = append(p.args, rest[i])
			continue
		}
		if !known(c, name) {
			return p, usagef("unknown option %s; a name that begins with - comes after --", rest[i])
		}
		if value == nil {
			if isBool(c, name) {
				t := "true"
				value = &t
			} else if i+1 < len(rest) {
				i++
				value = &rest[i]
			} else {
				return p, usagef("option %s needs a value", rest[i])
			}
		}
		for _, n := range find(c, name).Names() { // the library does so only for those before
			if err := c.Set(n, *value); err != nil {
				return p, usagef("option --%s: %v", name, err)
			}
		}
	}
	for _, a := range p.args {
		if a == "" {
			return p, usagef("an argument is empty: is it a variable that is not set?")
		}
	}
	switch {
	case len(p.args) < least:
		return p, usagef("which domain?")
	case len(p.args) > most:
		return p, usagef("unexpected argument %q", p.args[most])
	}
	switch out := p.string("o"); out {
	case "json":
		p.json = true
	case "text":
	default:
		return p, usagef("output format is %q, must be text or json", out)
	}
	return p, nil
}

// string returns an option that may have been given before or after the
// command.
func (p call) string(name string) string {
	for _, c := range p.c.Lineage() {
		if c.IsSet(name) {
			return c.String(name)
		}
	}
	return p.c.String(name)
}

func flags(c *cli.Context) []cli.Flag {
	if c.Command != nil && len(c.Command.Flags) > 0 {
		return c.Command.Flags
	}
	return c.App.Flags
}

func find(c *cli.Context, name string) cli.Flag { return completion.Find(flags(c), name) }

func known(c *cli.Context, name string) bool { return find(c, name) != nil }

func isBool(c *cli.Context, name string) bool {
	return !completion.TakesValue(find(c, name))
}

// printJSON prints a result.
func (e *env) printJSON(v any) error {
	enc := json.NewEncoder(e.rawOut)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
