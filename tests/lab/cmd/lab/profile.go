package main

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"strconv"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab"
)

// mostFunctions is how many are printed for people.
const mostFunctions = 50

// profile says what the machine's processor does for some seconds.
func (c *command) profile(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	flags.SetOutput(c.stderr)
	every := flags.Duration("every", 5*time.Millisecond, "")
	xenMap := flags.String("xen-symbols", "", "")
	domU := flags.Bool("u", false, "")
	asJSON := flags.Bool("json", false, "")
	if err := flags.Parse(args); err != nil {
		return errUsage("wrong arguments")
	}
	seconds, err := strconv.ParseFloat(flags.Arg(0), 64)
	if err != nil || seconds <= 0 || *every <= 0 || flags.NArg() != 1 {
		return errUsage("profile: say for how many seconds")
	}
	m, err := lab.Open(c.dir)
	if err != nil {
		return err
	}
	symbols := make(map[string]lab.Symbols)
	read := func(who string, text []byte, err error) error {
		if err == nil {
			symbols[who], err = lab.ReadSymbols(text)
		}
		return err
	}
	text, err := m.Dom0().Get(ctx, "/proc/kallsyms")
	if err := read(lab.InDom0, text, err); err != nil {
		return err
	}
	if *domU {
		text, err := m.DomU().Get(ctx, "/proc/kallsyms")
		if err := read(lab.InDomU, text, err); err != nil {
			return err
		}
	}
	if *xenMap != "" {
		text, err := os.ReadFile(*xenMap)
		if err := read(lab.InXen, text, err); err != nil {
			return err
		}
	}
	samples, err := m.Profile(ctx, *every, time.Duration(seconds*float64(time.Second)))
	if err != nil {
		return err
	}
	who, functions := lab.CountSamples(samples, symbols)
	if *asJSON {
		return json.NewEncoder(c.stdout).Encode(map[string]any{"samples": len(samples), "who": who, "functions": functions})
	}
	if err := lab.WriteCounts(c.stdout, who, len(who), len(samples)); err != nil {
		return err
	}
	return lab.WriteCounts(c.stdout, functions, mostFunctions, len(samples))
}
