package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/agent"
	"github.com/warmreboot/warmreboot/tests/lab/build"
	"github.com/warmreboot/warmreboot/tests/lab/demo"
)

const usage = `usage: lab [-name NAME] COMMAND

  prepare [-stock-xen] [-trusting-xen] [-debug-xen] [-stock-kernel] [-debug-kernel] [-newer-kernel]
                                            build what is not in the cache
  boot [-xen FILE] [-kernel FILE] [-hang FILE] [-stock-xen] [-debug-xen] [-stock-kernel] [-debug-kernel] [-newer-kernel] [-no-product] [-systemd] [-unthrottled]
       [-memory MIB] [-spare MIB] [-processors N] [-bochs]
                                            boot Xen and dom0; returns when dom0 is up
  exec [-u] COMMAND [ARG...]                run a command in dom0, with -u in the domU
  put FILE PATH                             copy a file into dom0
  get PATH                                  print a file of dom0
  profile [-u] [-xen-symbols FILE] [-every TIME] [-json] SECONDS
                                            what the processor does: Xen, dom0, with -u functions of the domU's kernel, too
  stop                                      end the lab
  demo [the options of boot]                the nine steps, in a lab of its own
  packages [-known-vulnerabilities]         build Debian packages, into build/packages; of a base that lacks security
                                            fixes only if told so
  patches check|refresh|current             prove the patch series, or edit them; fail if Debian has newer bases
`

// Exit codes of the command itself; exec passes on what it ran.
const (
	exitFailure = 1
	exitUsage   = 2
)

// errUsage is a mistake in the command line.
type errUsage string

func (e errUsage) Error() string { return string(e) }

// command is one invocation.
type command struct {
	dir      string // of the lab
	cache    *build.Cache
	checkout build.Checkout
	stdout   io.Writer
	stderr   io.Writer
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	name := flags.String("name", "lab", "name of the lab; each has a folder of its own")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	cache, checkout, err := build.Open()
	if err != nil {
		fmt.Fprintln(stderr, "lab:", err)
		return exitFailure
	}
	c := &command{dir: filepath.Join(cache.Dir, "labs", *name), cache: cache, checkout: checkout, stdout: stdout, stderr: stderr}
	code, err := c.dispatch(ctx, flags.Args())
	if err != nil {
		fmt.Fprintln(stderr, "lab:", err)
		if errors.As(err, new(errUsage)) {
			fmt.Fprint(stderr, usage)
		}
		if code == 0 {
			code = exitFailure
		}
	}
	return code
}

func (c *command) dispatch(ctx context.Context, args []string) (int, error) {
	if len(args) == 0 {
		return exitUsage, errUsage("no command")
	}
	name, args := args[0], args[1:]
	switch name {
	case "prepare":
		return c.withParts(ctx, args, func(lab.Parts) error { return nil })
	case "boot":
		return c.withParts(ctx, args, func(parts lab.Parts) error {
			m, err := parts.Start(ctx, c.dir)
			if err == nil {
				fmt.Fprintf(c.stdout, "dom0 is up; console: %s\n", m.ConsoleLog())
			}
			return err
		})
	case "demo":
		return c.withParts(ctx, args, func(parts lab.Parts) error {
			return demo.Run(ctx, parts, c.dir, filepath.Join(c.checkout.Dir, "build", "demo"), c.stdout, c.cache.Progress)
		})
	case "patches":
		return 0, c.patches(ctx, args)
	case "packages":
		return 0, c.packages(ctx, args)
	case "exec":
		return c.exec(ctx, args)
	case "profile":
		return 0, c.profile(ctx, args)
	case "put", "get", "stop":
		return 0, c.simple(ctx, name, args)
	}
	return exitUsage, errUsage("unknown command " + name)
}

func (c *command) withParts(ctx context.Context, args []string, do func(lab.Parts) error) (int, error) {
	var v lab.Variant
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	flags.SetOutput(c.stderr)
	flags.StringVar(&v.XenFile, "xen", "", "")
	flags.StringVar(&v.KernelFile, "kernel", "", "")
	flags.StringVar(&v.HangFile, "hang", "", "")
	flags.BoolVar(&v.StockXen, "stock-xen", false, "")
	flags.BoolVar(&v.TrustingXen, "trusting-xen", false, "")
	flags.BoolVar(&v.DebugXen, "debug-xen", false, "")
	flags.BoolVar(&v.StockKernel, "stock-kernel", false, "")
	flags.BoolVar(&v.DebugKernel, "debug-kernel", false, "")
	flags.BoolVar(&v.NewerKernel, "newer-kernel", false, "")
	flags.BoolVar(&v.Bochs, "bochs", false, "")
	flags.BoolVar(&v.Systemd, "systemd", false, "")
	flags.BoolVar(&v.NoProduct, "no-product", false, "")
	flags.BoolVar(&v.Unthrottled, "unthrottled", false, "")
	flags.IntVar(&v.MemoryMiB, "memory", 0, "")
	flags.IntVar(&v.SpareMiB, "spare", 0, "")
	flags.IntVar(&v.Processors, "processors", 0, "")
	if err := flags.Parse(args); err != nil {
		return exitUsage, nil
	}
	parts, err := lab.Prepare(ctx, c.cache, c.checkout, v)
	if err != nil {
		return exitFailure, err
	}
	return 0, do(parts)
}

// packages builds the Debian packages, from what is in the cache as far as it is.
func (c *command) packages(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	flags.SetOutput(c.stderr)
	vulnerable := flags.Bool("known-vulnerabilities", false, "")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return errUsage("wrong arguments")
	}
	tools, err := c.cache.Tools(ctx)
	if err != nil {
		return err
	}
	built, err := c.cache.Packages(ctx, tools, c.checkout, *vulnerable)
	if errors.Is(err, build.ErrVulnerable) {
		return fmt.Errorf("%w\nWhoever wants them all the same, for a machine on which nobody can do harm, says `make packages KNOWN_VULNERABILITIES=yes`", err)
	}
	for _, file := range built.All() {
		if err == nil {
			fmt.Fprintln(c.stdout, file)
		}
	}
	return err
}

func (c *command) exec(ctx context.Context, args []string) (int, error) {
	m, err := lab.Open(c.dir)
	if err != nil {
		return exitFailure, err
	}
	client := m.Dom0()
	if len(args) > 0 && args[0] == "-u" {
		client, args = m.DomU(), args[1:]
	}
	if len(args) == 1 { // a line of shell, as with ssh
		args = []string{"sh", "-c", args[0]}
	}
	return client.Stream(ctx, agent.ExecRequest{Args: args}, c.stdout, c.stderr)
}

func (c *command) simple(ctx context.Context, name string, args []string) error {
	m, err := lab.Open(c.dir)
	if err != nil {
		return err
	}
	switch {
	case name == "stop":
		return m.Stop()
	case name == "put" && len(args) == 2:
		info, err := os.Stat(args[0])
		if err != nil {
			return err
		}
		return m.Dom0().Put(ctx, args[0], args[1], info.Mode())
	case name == "get" && len(args) == 1:
		content, err := m.Dom0().Get(ctx, args[0])
		if err == nil {
			_, err = c.stdout.Write(content)
		}
		return err
	}
	return errUsage("wrong arguments")
}
