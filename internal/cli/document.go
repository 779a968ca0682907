package cli

import (
	"flag"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/internal/settings"
	"github.com/warmreboot/warmreboot/internal/version"
)

// manSection is that of commands for administrators.
const manSection = 8

// ManPages returns the manual pages, by file name. They are made from what the
// programs' command lines are made from.
func ManPages() (map[string]string, error) {
	e := &env{stdout: io.Discard, stderr: io.Discard, rawOut: io.Discard, rawErr: io.Discard}
	pages := map[string]string{}
	for _, app := range []*cli.App{e.app(), daemonApp()} {
		page, err := app.ToManWithSection(manSection)
		if err != nil {
			return nil, fmt.Errorf("manual page of %s: %w", app.Name, err)
		}
		pages[fmt.Sprintf("%s.%d", app.Name, manSection)] = page
	}
	return pages, nil
}

// daemonApp describes the daemon's command line.
func daemonApp() *cli.App {
	app := &cli.App{
		Name: "warmrebootd", Version: version.String(),
		Usage: "dom0 agent of warmreboot: watches domains, and vouches for their page cache after a reboot",
		Description: "Started by systemd as warmrebootd.service. It logs to stderr, as key=value. It may be " +
			"stopped, killed and started again at any time: what it does not see, it does not vouch for " +
			"without comparing every page with the disk.",
	}
	new(settings.Daemon).Flags().VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		if value == "" {
			app.Flags = append(app.Flags, &cli.BoolFlag{Name: f.Name, Usage: usage})
			return
		}
		app.Flags = append(app.Flags, &cli.StringFlag{Name: f.Name, Usage: usage, Value: f.DefValue})
	})
	return app
}
