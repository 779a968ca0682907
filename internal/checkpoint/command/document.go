package command

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/checkpoint/store"
	"github.com/warmreboot/warmreboot/internal/completion"
)

// ManPage returns the manual page, in section 8, made from what the command line is
// made from.
func ManPage() (string, error) {
	e := &env{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	return e.app().ToManWithSection(8)
}

// completeCommand answers the shells' completion scripts. What takes a file is left
// to them.
func (e *env) completeCommand() *cli.Command {
	return completion.Program{
		Values: func(f cli.Flag) []string {
			if f.Names()[0] == "format" {
				return []string{"xl", "vmcore", "mem"}
			}
			return nil
		},
		Arguments: func(_ context.Context, c *cli.Command, n int, options map[string]string) []string {
			root := options["store"]
			if root == "" {
				root = defaultRoot()
			}
			if c == nil {
				return nil
			}
			var all []string
			for alternative := range strings.SplitSeq(c.ArgsUsage, "|") {
				words := strings.Fields(alternative)
				at := n
				if len(words) > 0 && at >= len(words) && strings.HasSuffix(words[len(words)-1], "...") {
					at = len(words) - 1
				}
				if at >= len(words) {
					continue
				}
				switch strings.Trim(words[at], "[].") {
				case "DOMAIN":
					all = append(all, stored(root, false)...)
				case "CHECKPOINT", "GOOD", "BAD":
					all = append(all, stored(root, true)...)
				}
			}
			return all
		},
	}.Command(e.stdout)
}

// stored returns the names of domains, or of checkpoints, that a shell can show. What
// can't be read is left out.
func stored(root string, checkpoints bool) []string {
	dirs, err := domainDirs(root)
	if err != nil {
		return nil
	}
	var names []string
	for _, dir := range dirs {
		r, err := store.Open(dir)
		if err != nil {
			continue
		}
		list := r.List()
		closeReader(r)
		if len(list) == 0 {
			continue
		}
		name := list[len(list)-1].Domain
		if name == "" || name != ident.Printable(name) {
			name = filepath.Base(dir)
		}
		if !checkpoints {
			names = append(names, name)
			continue
		}
		names = append(names, name+"@last")
		for _, i := range list {
			names = append(names, fmt.Sprintf("%s@%d", name, i.Epoch))
		}
	}
	return names
}
