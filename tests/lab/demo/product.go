package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab"
)

// Reboot is the summary of a reboot, as warmreboot prints it.
type Reboot struct {
	DomidBefore    int              `json:"domid_before"`
	DomidAfter     int              `json:"domid_after"`
	Sequence       int              `json:"sequence"`
	Trigger        string           `json:"trigger"`
	Outcome        string           `json:"outcome"`
	Reason         string           `json:"reason"`
	PagesBefore    uint64           `json:"pages_before"`
	PagesPreserved uint64           `json:"pages_preserved"`
	PagesApproved  uint64           `json:"pages_approved"`
	PagesRestored  uint64           `json:"pages_restored"`
	Refused        map[string]int64 `json:"refused"`
	VBDs           []struct {
		Name    string `json:"name"`
		Verdict string `json:"verdict"`
		Reason  string `json:"reason"`
	} `json:"vbds"`
	DownSeconds     float64 `json:"down_seconds"`
	RestoredSeconds float64 `json:"restored_seconds"`
	Done            bool    `json:"done"`
}

// Status is what `warmreboot status` says, as far as it is needed here.
type Status struct {
	Enabled bool    `json:"enabled"`
	Last    *Reboot `json:"last"`
}

// Product drives warmreboot and warmrebootd in dom0.
type Product struct {
	Dom0 *lab.Client
	// RebootSeconds is how long, by dom0's clock, a domain may take to become
	// another one; 0 for half a minute, of which a reboot takes a fifth where the
	// machine's clock counts instructions.
	RebootSeconds int
}

// StartAgent starts warmrebootd with the given flags and returns when it answers.
func (p Product) StartAgent(ctx context.Context, flags ...string) error {
	_, err := p.Dom0.Shell(ctx, "setsid warmrebootd "+strings.Join(flags, " ")+" >>/var/log/warmrebootd.log 2>&1 </dev/null & echo $! >/run/warmrebootd.pid")
	if err != nil {
		return err
	}
	err = poll(ctx, func() error {
		// What schedules will do only the agent knows; status asks Xen without it.
		_, err := p.Dom0.Run(ctx, "warmreboot", "plan")
		return err
	})
	if err != nil {
		log, _ := p.Dom0.Shell(context.WithoutCancel(ctx), "tail -n 20 /var/log/warmrebootd.log") // for the message only
		return fmt.Errorf("start warmrebootd: %w\n%s", err, log)
	}
	return nil
}

// StopAgent ends warmrebootd with the given signal and returns when it is gone.
func (p Product) StopAgent(ctx context.Context, signal string) error {
	if _, err := p.Dom0.Shell(ctx, "kill -"+signal+" $(pidof warmrebootd)"); err != nil {
		return err
	}
	return poll(ctx, func() error {
		if _, err := p.Dom0.Shell(ctx, "pidof warmrebootd"); err == nil {
			return errors.New("warmrebootd still runs")
		}
		return nil
	})
}

// Reboot runs `warmreboot domU-web` and returns its summary.
func (p Product) Reboot(ctx context.Context, flags ...string) (Reboot, error) {
	return lab.JSON[Reboot](ctx, p.Dom0, append([]string{"warmreboot", "-o", "json", "--timeout", patience.String()}, append(flags, lab.Domain)...)...)
}

// Status runs `warmreboot status domU-web`.
func (p Product) Status(ctx context.Context, flags ...string) (Status, error) {
	args := append([]string{"warmreboot", "status", "-o", "json"}, flags...)
	return lab.JSON[Status](ctx, p.Dom0, append(args, lab.Domain)...)
}

// Check runs `warmreboot check domU-web` and returns how many pages differ
// from their disk block.
func (p Product) Check(ctx context.Context) (int64, error) {
	result, err := lab.JSON[struct {
		Pages      int64 `json:"pages"`
		Mismatches int64 `json:"mismatches"`
	}](ctx, p.Dom0, "warmreboot", "check", "-o", "json", lab.Domain)
	var exit *lab.ExitError
	if errors.As(err, &exit) && exit.Code == exitMismatches && result.Mismatches > 0 {
		return result.Mismatches, nil
	}
	return result.Mismatches, err
}

// patience is how long one reboot may take; it is generous, as others may be
// using the machine's processors too.
const patience = 10 * time.Minute

// exitMismatches is the exit code of `warmreboot check` that found some.
const exitMismatches = 9

// AwaitNewDomid waits until the domU is another domain than the one with the id
// old, for RebootSeconds. dom0 itself waits: the clock of a machine that is asked
// again and again goes slowly.
func (p Product) AwaitNewDomid(ctx context.Context, old string) error {
	seconds := strconv.Itoa(cmp.Or(p.RebootSeconds, 30))
	_, err := p.Dom0.Shell(ctx, "for i in $(seq "+seconds+"); do now=$(xl domid "+lab.Domain+" 2>/dev/null) && [ $now != "+old+" ] && exit 0; sleep 1; done; exit 1")
	if err != nil {
		return fmt.Errorf("%s has not become another domain than %s: %w", lab.Domain, old, err)
	}
	return nil
}

// sequence is the number of the last reboot that the agent knows.
func (p Product) sequence(ctx context.Context) (int, error) {
	status, err := p.Status(ctx)
	if err != nil || status.Last == nil {
		return 0, err
	}
	return status.Last.Sequence, nil
}

// awaitReboot returns the summary of the first reboot after the given one,
// which nobody has asked warmreboot for, when its restore has ended.
func (p Product) awaitReboot(ctx context.Context, after int) (Reboot, error) {
	err := poll(ctx, func() error {
		now, err := p.sequence(ctx)
		if err == nil && now <= after {
			err = errors.New("the agent has not seen a reboot")
		}
		return err
	})
	if err != nil {
		return Reboot{}, err
	}
	status, err := p.Status(ctx, "--wait", "--timeout", patience.String())
	if err != nil {
		return Reboot{}, err
	}
	return *status.Last, nil
}

// poll tries again and again what nothing reports as an event, at least not to
// this side of the emulator; not too often, for the machine's clock goes slowly
// while it answers.
func poll(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", ctx.Err(), err)
		case <-ticker.C:
		}
	}
}
