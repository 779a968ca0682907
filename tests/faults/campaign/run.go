package campaign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/warmreboot/warmreboot/tests/faults/hand"
	"github.com/warmreboot/warmreboot/tests/lab"
)

// Settings are the same for all runs of a campaign.
type Settings struct {
	Faults  int `json:"faults"`  // per run
	Seconds int `json:"seconds"` // of the machine's clock that the guest works, with the faults spread over the first half
}

// patience is how long the host waits for a run, which has its own limits on
// the machine's clock.
const patience = 20 * time.Minute

// Run makes one run. An error means that nothing can be said about it. The lab
// takes no processor between runs.
func (b *Bench) Run(ctx context.Context, key Key, s Settings) (result Result, err error) {
	start := time.Now()
	r := Result{Key: key, Faults: s.Faults, Seconds: s.Seconds, State: readKey(b.Dir)}
	if key.Mode != b.mode {
		return r, fmt.Errorf("run %v: this lab is %s", key, b.mode)
	}
	if err := b.load(ctx); err != nil {
		return r, err
	}
	defer func() {
		// Not to be ended by whatever ends the campaign.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, b.Quit(ctx))
	}()
	order := order
	order.Type, order.Seed, order.Faults, order.Seconds = key.Type, key.Seed, s.Faults, s.Seconds
	text, err := json.Marshal(order)
	if err != nil {
		return r, err
	}
	running, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r.Outcome, err = lab.JSON[hand.Outcome](running, b.Product.Dom0, hand.Program, "run", string(text))
	if err != nil {
		return r, fmt.Errorf("run %v: %w", key, err)
	}
	console := []byte(r.Console)
	r.Console = ""
	r.Injected = countInjected(console)
	r.Class = Classify(r)
	r.Took = time.Since(start).Round(100 * time.Millisecond).Seconds()
	if r.Processor, err = b.ProcessorTime(); err != nil {
		return r, err
	}
	return r, os.WriteFile(filepath.Join(b.logs, r.Key.String()+".log"), console, 0o644)
}

var injectedLine = regexp.MustCompile(`fault [a-z-]+: (\d+) of \d+ injected`)

// startedLine is logged by each fault once, whatever else it logs.
var startedLine = regexp.MustCompile(`fault [a-z-]+: number \d+`)

// countInjected counts the faults on the guest's console.
func countInjected(console []byte) int {
	if match := injectedLine.FindSubmatch(console); match != nil {
		n, _ := strconv.Atoi(string(match[1])) // digits
		return n
	}
	return len(startedLine.FindAll(console, -1))
}
