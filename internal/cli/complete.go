package cli

import (
	"context"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/completion"
)

// completeWait is how long a shell's prompt may wait for the names of domains.
const completeWait = time.Second

// completeCommand answers the shells' completion scripts.
func (e *env) completeCommand() *cli.Command {
	return completion.Program{
		Values: valuesOf,
		// At most one domain is named, also without a command.
		Arguments: func(ctx context.Context, c *cli.Command, n int, options map[string]string) []string {
			if n > 0 || c != nil && !strings.Contains(c.ArgsUsage, "DOMAIN") {
				return nil
			}
			return e.domainNames(ctx, options["socket"])
		},
	}.Command(e.stdout)
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
