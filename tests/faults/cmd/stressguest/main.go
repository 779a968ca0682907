// Command stressguest is what TestSMPStress runs in the domU.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/warmreboot/warmreboot/tests/faults/guest"
)

const usage = `usage: stressguest [-seed N] [-for TIME] [-workers N] stress SERVED WORK[,WORK...]
       stressguest compare FOLDER[,FOLDER...]
`

func main() {
	seed := flag.Uint64("seed", 1, "")
	duration := flag.Duration("for", time.Minute, "")
	workers := flag.Int("workers", 2, "")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	if flag.NArg() < 2 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Args(), *seed, *duration, *workers); err != nil {
		fmt.Fprintln(os.Stderr, "stressguest:", err)
		os.Exit(1)
	}
}

func run(args []string, seed uint64, duration time.Duration, workers int) error {
	var result any
	var err error
	switch {
	case len(args) == 3 && args[0] == "stress":
		result, err = guest.Stress(args[1], args[2], seed, duration, workers)
	case len(args) == 2 && args[0] == "compare":
		result, err = guest.Compare(args[1])
	default:
		return errors.New("wrong arguments")
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}
