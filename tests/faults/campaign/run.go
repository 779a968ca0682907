package campaign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/tests/faults/hand"
	"github.com/warmreboot/warmreboot/tests/lab"
)

// Settings are the same for all runs of a campaign.
type Settings struct {
	Faults  int `json:"faults"`  // per run
	Seconds int `json:"seconds"` // that the guest works, with the faults spread over the first half
}

// How long things may take, in the machine's time. The emulator shares its
// processor with whatever else runs there.
const (
	patience      = 5 * time.Minute  // for a reboot
	crashPatience = 20 * time.Second // for a guest to panic when asked to
)

// exitDown is the exit code of warmreboot for a domain that is down.
const exitDown = 3

// guestLog is what the domU prints on its console.
const guestLog = "/var/log/xen/console/guest-" + lab.Domain + ".log"

// Run makes one run. An error means that nothing can be said about it. The lab
// takes no processor between runs.
func (b *Bench) Run(ctx context.Context, key Key, s Settings) (result Result, err error) {
	start := time.Now()
	r := Result{Key: key, Faults: s.Faults, Seconds: s.Seconds}
	if key.Mode != b.mode {
		return r, fmt.Errorf("run %v: this lab is %s", key, b.mode)
	}
	phase := func(took *float64) {
		*took = time.Since(start).Round(100*time.Millisecond).Seconds() - r.Took
		r.Took += *took
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
	phase(&r.Phases.Load)
	if err := b.inject(ctx, key, s); err != nil {
		return r, err
	}
	b.bringDown(ctx, &r, time.Duration(s.Seconds)*time.Second)
	phase(&r.Phases.Work)
	b.awaitReboot(ctx, &r)
	phase(&r.Phases.Reboot)
	err = b.examine(ctx, &r)
	err = errors.Join(err, b.readLog(ctx, &r))
	phase(&r.Phases.Examine)
	r.Class = Classify(r)
	return r, err
}

// inject starts the work and the faults in the domU. The guest may not live to
// say that it has done so.
func (b *Bench) inject(ctx context.Context, key Key, s Settings) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	line := fmt.Sprintf("setsid %s work %s %s %d %d >/tmp/work.log 2>&1 </dev/null & "+
		"insmod %s type=%s seed=%d count=%d milliseconds=%d lookup=0x%s", hand.Program, Served, WorkRoot, key.Seed, s.Seconds,
		modulePath, key.Type, key.Seed, s.Faults, s.Seconds*1000/2, b.saved.Lookup)
	_, err := b.DomU().Shell(ctx, line)
	if err != nil && errors.As(err, new(*lab.ExitError)) && b.alive(ctx) {
		return fmt.Errorf("run %v: the injector did not start: %w", key, err)
	}
	return nil
}

// alive reports whether the domain in which the run began is up. The agent
// knows at once, while a dead domain takes its time to go.
func (b *Bench) alive(ctx context.Context) bool {
	status, err := lab.JSON[struct {
		Current *struct{} `json:"current"`
		Last    *struct{} `json:"last"`
	}](ctx, b.Product.Dom0, "warmreboot", "status", "-o", "json", lab.Domain)
	return err != nil || status.Current == nil && status.Last == nil
}

// awaitEnd waits until the domain is down, at most for so long.
func (b *Bench) awaitEnd(ctx context.Context, most time.Duration) bool {
	ticker := time.NewTicker(time.Second) // nobody outside the emulator is told
	defer ticker.Stop()
	for deadline := time.After(most); b.alive(ctx); {
		select {
		case <-ctx.Done():
			return false
		case <-deadline:
			return false
		case <-ticker.C:
		}
	}
	return true
}

// bringDown waits for the guest to crash, then makes it panic, then takes it
// down.
func (b *Bench) bringDown(ctx context.Context, r *Result, work time.Duration) {
	if r.Ending = Crashed; b.awaitEnd(ctx, work) {
		return
	}
	asked, cancel := context.WithTimeout(ctx, crashPatience)
	// In the background, as an answer would never come.
	_, _ = b.DomU().Shell(asked, "setsid sh -c 'sleep 1; echo c >/proc/sysrq-trigger' >/dev/null 2>&1 </dev/null &")
	cancel()
	if r.Ending = Panicked; b.awaitEnd(ctx, crashPatience) {
		return
	}
	r.Ending = Forced
	ctx, cancel = context.WithTimeout(ctx, 2*patience)
	defer cancel()
	_, err := b.Reboot(ctx, "--force")
	if exit := new(lab.ExitError); errors.As(err, &exit) && exit.Code == exitDown {
		r.Ending = Panicked // at last
	} else if err != nil {
		r.Note = "forced: " + err.Error()
	}
}

// awaitReboot waits until the guest is up again and its restore has ended.
func (b *Bench) awaitReboot(ctx context.Context, r *Result) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		status, err := b.Status(ctx, "--wait", "--timeout", "20s")
		if status.Last != nil && status.Last.Sequence > b.saved.Before && status.Last.Done {
			r.Reboot = *status.Last
		}
		if r.Reboot.Done && b.DomU().Ping(ctx) == nil {
			r.Up = true
			return
		}
		if ctx.Err() != nil {
			r.Note = fmt.Sprintf("%s the guest did not come up; status: %v", r.Note, err)
			return
		}
		time.Sleep(500 * time.Millisecond) // nobody outside the emulator is told
	}
}

// examine compares what came back with the disk, in dom0 and in the guest.
func (b *Bench) examine(ctx context.Context, r *Result) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dom0 := b.Product.Dom0
	domid, err := dom0.Shell(ctx, "xl domid "+lab.Domain)
	if err != nil && !r.Up {
		r.Note += "; there is no domain"
		return nil
	}
	if err != nil {
		return err
	}
	r.Pages, err = lab.JSON[hand.Pages](ctx, dom0, hand.Program, "pages", domid, pristinePath, inodesPath)
	if err != nil && !r.Up {
		// A domain that goes up and down all the time.
		r.Note += "; pages: " + err.Error()
		return nil
	}
	if err != nil || !r.Up {
		return err
	}
	if r.Seen, err = b.see(ctx); err != nil {
		r.Note += "; files: " + err.Error()
	}
	return nil
}

// see compares, in the guest, what files hold when read through the page cache
// with what they hold when read past it.
func (b *Bench) see(ctx context.Context) (Seen, error) {
	const line = "cd " + seenRoot + " && for f in *; do dd if=$f iflag=direct bs=256k status=none | cmp -s - $f && echo equal || echo $f; done"
	output, err := b.DomU().Shell(ctx, line)
	seen := Seen{Differ: []string{}}
	for _, word := range strings.Fields(output) {
		seen.Files++
		if word != "equal" {
			seen.Differ = append(seen.Differ, word)
		}
	}
	return seen, err
}

var injectedLine = regexp.MustCompile(`fault [a-z-]+: (\d+) of \d+ injected`)

// readLog keeps the guest's console and counts the faults.
func (b *Bench) readLog(ctx context.Context, r *Result) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	text, err := b.Product.Dom0.Get(ctx, guestLog)
	if err != nil {
		return err
	}
	r.Injected = countInjected(text)
	return os.WriteFile(filepath.Join(b.logs, r.Key.String()+".log"), text, 0o644)
}

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
