package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

// completeWait is how long a shell's prompt may wait for the names of domains.
const completeWait = time.Second

// completeName is how a shell calls it.
const completeName = "__complete"

// completeCommand answers the shells' completion scripts. Its arguments are the
// words after the program's name up to the cursor, the last of which is to be
// completed; it prints what that could become, a line each.
func (e *env) completeCommand() *cli.Command {
	return &cli.Command{
		Name: completeName, Hidden: true, SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			for _, candidate := range e.candidates(c.Context, c.App, c.Args().Slice()) {
				fmt.Fprintln(e.stdout, candidate)
			}
			return nil
		},
	}
}

func (e *env) candidates(ctx context.Context, app *cli.App, words []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	last, words := words[len(words)-1], words[:len(words)-1]
	flags, arguments, commands, value := app.Flags, app.ArgsUsage == "", app.Commands, cli.Flag(nil)
	socket := ""
	for _, word := range words {
		if value != nil { // the option before takes this word
			if slices.Contains(value.Names(), "socket") {
				socket = word
			}
			value = nil
			continue
		}
		if name, given, ok := flagOf(word); ok {
			if f := findFlag(flags, name); f != nil && given == nil && takesValue(f) {
				value = f
			}
			continue
		}
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(word) })
		if i < 0 { // a domain: at most one is named
			commands, arguments = nil, false
			continue
		}
		c := commands[i]
		flags, commands = c.Flags, c.Subcommands
		arguments = strings.Contains(c.ArgsUsage, "DOMAIN")
	}
	var all []string
	switch {
	case value != nil:
		all = valuesOf(value)
	case strings.HasPrefix(last, "-"):
		for _, f := range flags {
			for _, name := range f.Names() {
				all = append(all, dashed(name))
			}
		}
		all = append(all, "--help")
	default:
		for _, c := range commands {
			if !c.Hidden {
				all = append(all, c.Name)
			}
		}
		if arguments {
			all = append(all, e.domainNames(ctx, socket)...)
		}
	}
	return slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, last) })
}

// domainNames returns the names of the domains, none if nobody can tell them at
// once.
func (e *env) domainNames(ctx context.Context, socket string) []string {
	ctx, cancel := context.WithTimeout(ctx, completeWait)
	defer cancel()
	if socket == "" {
		socket = api.DefaultSocket
	}
	all, err := e.service(socket).List(ctx)
	if isAgentDown(err) {
		all, err = e.listWithoutAgent(ctx, err)
	}
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range all {
		if s.Domain != "" && s.Domain == ident.Printable(s.Domain) { // else a shell could not show it
			names = append(names, s.Domain)
		}
	}
	return names
}

func findFlag(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	_, isBool := f.(*cli.BoolFlag)
	return !isBool
}

// valuesOf returns the values of an option that has a few only.
func valuesOf(f cli.Flag) []string {
	switch f.Names()[0] {
	case "o":
		return []string{"text", "json"}
	case "content":
		return []string{"none", "sample=", "full"}
	case "uncertain":
		return []string{"full", "refuse"}
	}
	return nil
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}
