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

// What comparing pages in the background may take, unless told otherwise: nobody
// notices that, and 1 GiB is compared in four and a half minutes where a disk reads
// scattered pages fast enough.
const (
	DefaultScrubRate  = 4 // MiB a second, read from all disks together
	DefaultScrubShare = 5 // percent of the time, during which it does anything
)

// Daemon is how a daemon is started.
type Daemon struct {
	Socket, StateDir, Listen string
	ConfigDir                string
	// ScrubRate is in MiB a second, ScrubShare in percent: see DefaultScrubRate.
	ScrubRate, ScrubShare  float64
	Debug, Version, DryRun bool
}

// Flags are the daemon's, which end up in d.
func (d *Daemon) Flags() *flag.FlagSet {
	f := flag.NewFlagSet("warmrebootd", flag.ContinueOnError)
	f.StringVar(&d.Socket, "socket", api.DefaultSocket, "UNIX `socket` to listen on")
	f.StringVar(&d.StateDir, "state-dir", DefaultStateDir, "`directory` of the journal")
	f.StringVar(&d.Listen, "listen", "", "serve read-only status pages and /metrics at `ADDRESS`: unix:/PATH, or a loopback address as 127.0.0.1:9816; off unless given")
	f.StringVar(&d.ConfigDir, "config-dir", config.DefaultDir, "`directory` of the schedules, *.toml")
	f.Float64Var(&d.ScrubRate, "scrub-rate", DefaultScrubRate, "compare reusable pages of running domains with their disks in the background, at `MIB` a second at most; 0 switches it off")
	f.Float64Var(&d.ScrubShare, "scrub-share", DefaultScrubShare, "do so for at most `PERCENT` of the time: of one processor, and of a disk")
	f.BoolVar(&d.DryRun, "dry-run", false, "schedules only log what they would do")
	f.BoolVar(&d.Debug, "debug", false, "log more")
	f.BoolVar(&d.Version, "version", false, "print the version and exit")
	return f
}
