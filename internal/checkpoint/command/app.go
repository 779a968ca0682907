// Package command is the command line of warmcheckpoint: one file for each group
// of commands. It joins the stream that `xl save` writes, the store, and the
// formats that others read.
package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/internal/checkpoint/store"
	"github.com/warmreboot/warmreboot/internal/version"
)

// Exit codes. docs/checkpoints.md has them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitDamaged     = 9
	exitNotFound    = 10
	exitBusy        = 11
	exitInterrupted = 130
)

// DefaultRoot is where the stores of all domains are, and rootVariable what says that
// they are elsewhere.
const (
	DefaultRoot  = "/var/lib/warmreboot/checkpoints"
	rootVariable = "WARMCHECKPOINT_STORE"
)

func defaultRoot() string { return cmp.Or(os.Getenv(rootVariable), DefaultRoot) }

type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// Main runs the command line and returns the exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	e := &env{stdin, stdout, stderr}
	err := e.app().RunContext(ctx, args)
	if err != nil {
		fmt.Fprintf(stderr, "warmcheckpoint: %v\n", err)
	}
	return exitCode(err)
}

type usageError struct{ err error }

func (u *usageError) Error() string { return u.err.Error() + "\nTry 'warmcheckpoint --help'." }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// errNothing is a search without result.
var errNothing = errors.New("nothing found")

func exitCode(err error) int {
	var u *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &u):
		return exitUsage
	case errors.Is(err, store.ErrDamaged):
		return exitDamaged
	case errors.Is(err, store.ErrUnknown), errors.Is(err, errNothing):
		return exitNotFound
	case errors.Is(err, store.ErrBusy):
		return exitBusy
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailure
}

func (e *env) app() *cli.App {
	onUsage := func(_ *cli.Context, err error, _ bool) error { return &usageError{err} }
	app := &cli.App{
		Name: "warmcheckpoint", Version: version.String(),
		Usage: "keep checkpoints of a domain's memory, look at them, give them back to xl restore",
		Description: "CHECKPOINT is DOMAIN@NUMBER or DOMAIN@last; DOMAIN is a name or a UUID. Exit codes:\n" +
			"0 ok, 1 failure, 2 usage, 9 the store is damaged, 10 no such checkpoint, or nothing found,\n" +
			"11 another process writes to the store, 130 interrupted.",
		Flags: []cli.Flag{&cli.StringFlag{Name: "store", Value: DefaultRoot, EnvVars: []string{rootVariable},
			Usage: "`DIRECTORY` of all stores"}},
		Reader: e.stdin, Writer: e.stdout, ErrWriter: e.stderr,
		OnUsageError:    onUsage,
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("no command %q", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{e.importCommand(), e.listCommand(), e.exportCommand(), e.catCommand(), e.diffCommand(), e.logCommand(),
			e.grepCommand(), e.bisectCommand(), e.forgetCommand(), e.verifyCommand(), e.completeCommand()},
	}
	for _, c := range app.Commands {
		c.OnUsageError = onUsage
		c.HideHelpCommand = true
	}
	return app
}

// args returns a command's arguments, if they are as many as it takes.
func args(c *cli.Context, n int) ([]string, error) {
	if c.NArg() != n {
		return nil, usagef("%s takes %s", c.Command.Name, c.Command.ArgsUsage)
	}
	for _, a := range c.Args().Slice() {
		if strings.HasPrefix(a, "--") {
			return nil, usagef("options come before arguments: %s", a)
		}
	}
	return c.Args().Slice(), nil
}
