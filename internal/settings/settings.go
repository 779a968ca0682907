// Package settings has what a daemon is started with. It is apart from the daemon so
// that manual pages, and those who read what a daemon has left, need not link one.
package settings

import (
	"flag"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/config"
)

// DefaultStateDir is where the daemon keeps its state, unless told otherwise.
const DefaultStateDir = "/var/lib/warmreboot"

// Daemon is how a daemon is started.
type Daemon struct {
	Socket, StateDir, Listen string
	ConfigDir                string
	Debug, Version, DryRun   bool
}

// Flags are the daemon's, which end up in d.
func (d *Daemon) Flags() *flag.FlagSet {
	f := flag.NewFlagSet("warmrebootd", flag.ContinueOnError)
	f.StringVar(&d.Socket, "socket", api.DefaultSocket, "UNIX `socket` to listen on")
	f.StringVar(&d.StateDir, "state-dir", DefaultStateDir, "`directory` of the journal")
	f.StringVar(&d.Listen, "listen", "", "serve read-only status pages and /metrics at `ADDRESS`: unix:/PATH, or a loopback address as 127.0.0.1:9816; off unless given")
	f.StringVar(&d.ConfigDir, "config-dir", config.DefaultDir, "`directory` of the schedules, *.toml")
	f.BoolVar(&d.DryRun, "dry-run", false, "schedules only log what they would do")
	f.BoolVar(&d.Debug, "debug", false, "log more")
	f.BoolVar(&d.Version, "version", false, "print the version and exit")
	return f
}
