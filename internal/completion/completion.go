// Package completion answers the shells' completion scripts from what a program's
// command line is made from: its commands and options. It knows no domains: what the
// words beside those may be is the program's to say.
package completion

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Name is how a shell calls it.
const Name = "__complete"

// Program is what the command line does not say of itself.
type Program struct {
	// Values returns the values of an option that has a few only; nil if there is none.
	Values func(cli.Flag) []string
	// Arguments returns what argument number n of a command may be, from 0; the
	// command is nil before one is named. options has the values of the options
	// that were given so far, by any of their names.
	Arguments func(ctx context.Context, c *cli.Command, n int, options map[string]string) []string
}

// Command returns the hidden command whose arguments are the words after the
// program's name up to the cursor, the last of which is to be completed. It prints
// what that could become, a line each.
func (p Program) Command(w io.Writer) *cli.Command {
	return &cli.Command{
		Name: Name, Hidden: true, SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			for _, candidate := range p.candidates(c.Context, c.App, c.Args().Slice()) {
				if _, err := fmt.Fprintln(w, candidate); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (p Program) candidates(ctx context.Context, app *cli.App, words []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	last, words := words[len(words)-1], words[:len(words)-1]
	flags, commands, value := app.Flags, app.Commands, cli.Flag(nil)
	var command *cli.Command
	arguments, options := 0, map[string]string{}
	set := func(f cli.Flag, to string) {
		for _, name := range f.Names() {
			options[name] = to
		}
	}
	for _, word := range words {
		if value != nil { // the option before takes this word
			set(value, word)
			value = nil
			continue
		}
		if name, given, ok := FlagOf(word); ok {
			if f := Find(flags, name); f != nil && given != nil {
				set(f, *given)
			} else if f != nil && TakesValue(f) {
				value = f
			}
			continue
		}
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(word) })
		if i < 0 {
			commands = nil
			arguments++
			continue
		}
		command = commands[i]
		flags, commands = command.Flags, command.Subcommands
	}
	var all []string
	switch {
	case value != nil:
		if p.Values != nil {
			all = p.Values(value)
		}
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
		all = append(all, p.Arguments(ctx, command, arguments, options)...)
	}
	return slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, last) })
}

// FlagOf takes a word apart that is an option; value is nil unless it is in the word.
func FlagOf(word string) (name string, value *string, ok bool) {
	if len(word) < 2 || word[0] != '-' {
		return "", nil, false
	}
	name = strings.TrimPrefix(word[1:], "-")
	if before, after, given := strings.Cut(name, "="); given {
		return before, &after, true
	}
	return name, nil, name != ""
}

// Find returns the option of that name, nil if there is none.
func Find(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// TakesValue says whether an option is followed by a value.
func TakesValue(f cli.Flag) bool {
	_, isBool := f.(*cli.BoolFlag)
	return !isBool
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}
