package cli

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/version"
	"github.com/warmreboot/warmreboot/internal/web"
)

func (e *env) reportCommand() *cli.Command {
	return &cli.Command{
		Name: "report", ArgsUsage: "DOMAIN", Usage: "write one HTML file about a domain's last reboot: curves, what was preserved, refused and why",
		Description: "The file needs nothing else. What a domain read and sent is kept for its last reboots only.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "write to `FILE`, - for standard output (default: warmreboot-DOMAIN.html)"},
			&cli.Uint64Flag{Name: "id", Usage: "the reboot with that `ID` in `warmreboot history -o json`, instead of the last one"},
		},
		Action: e.report,
	}
}

func (e *env) report(c *cli.Context) error {
	p, err := parse(c, 1, 1)
	if err != nil {
		return err
	}
	d, err := web.Collect(c.Context, e.pages(p.string("socket")), p.args[0], c.Uint64("id"))
	if err != nil {
		return err
	}
	if p.json {
		return e.printJSON(d)
	}
	var b bytes.Buffer
	if err := web.RenderReport(&b, d, version.String(), time.Now()); err != nil {
		return err
	}
	path := c.String("file")
	switch path {
	case "-":
		_, err := e.rawOut.Write(b.Bytes())
		return err
	case "":
		path = "warmreboot-" + fileName(d.Status.Domain) + ".html"
	}
	// Names of files and disks are in it: for nobody else's eyes.
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		return api.Errorf(api.Failed, "domain %s: the report cannot be written: %v; --file names another place", d.Status.Domain, err)
	}
	fmt.Fprintf(e.stdout, "domain %s: report written to %s\n", ident.Printable(d.Status.Domain), ident.Printable(path))
	return nil
}

// fileName makes a domain's name one of a file in this directory.
func fileName(domain string) string {
	safe := []rune(domain)
	for i, r := range safe {
		if r == '/' || r < ' ' || r == 0x7f || i == 0 && r == '.' {
			safe[i] = '_'
		}
	}
	return string(safe)
}
