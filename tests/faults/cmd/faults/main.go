// Command faults runs fault injections in the lab; see docs/consistency.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/warmreboot/warmreboot/tests/faults/campaign"
	"github.com/warmreboot/warmreboot/tests/lab/build"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	runs := flag.Int("runs", 50, "runs of each type, in each mode")
	types := flag.String("types", "", "types of faults, separated by commas; all")
	seed := flag.Uint64("seed", 1, "of the first run of each type")
	mode := flag.String("mode", "both", "protected, trusting or both")
	faults := flag.Int("faults", 10, "faults per run")
	seconds := flag.Int("seconds", 10, "how long the guest works on its own clock, if it doesn't crash")
	labs := flag.Int("labs", 1, "labs side by side, with some 2.5 GB of memory each")
	name := flag.String("name", "faults", "name of the lab")
	until := flag.Duration("for", 0, "begin no run after this time; the same command goes on later")
	flag.Parse()
	plan, err := campaign.ParsePlan(*runs, *types, *seed, *mode)
	if err != nil {
		return err
	}
	c := campaign.Campaign{Plan: plan, Settings: campaign.Settings{Faults: *faults, Seconds: *seconds}, Lab: *name, Labs: *labs,
		Say: func(line string) { fmt.Printf("%s %s\n", time.Now().Format(time.TimeOnly), line) }}
	if *until > 0 {
		c.Until = time.Now().Add(*until)
	}
	if c.Cache, c.Checkout, err = build.Open(); err != nil {
		return err
	}
	c.Dir = filepath.Join(c.Checkout.Dir, "build", "faults")
	err = c.Run(ctx)
	fmt.Println("report: " + c.Dir)
	return err
}
