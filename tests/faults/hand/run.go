package hand

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/tests/faults/guest"
)

// Ending is how the guest went down.
type Ending string

// Endings.
const (
	Crashed  Ending = "crashed"  // of the faults
	Panicked Ending = "panicked" // it was made to, after its time
	Forced   Ending = "forced"   // it was hanging, and taken down from dom0
)

// Outcome is what a run gave.
type Outcome struct {
	Ending Ending `json:"ending"`
	// Up: the guest came up after the reboot.
	Up     bool        `json:"up"`
	Reboot api.Summary `json:"reboot"`
	// Pages is what dom0 found, Seen what the guest did.
	Pages Pages      `json:"pages"`
	Seen  guest.Seen `json:"seen"`
	Note  string     `json:"note,omitempty"`
	// Console is what the guest printed.
	Console string `json:"console,omitempty"`
	Phases  Phases `json:"phases"`
}

// Phases are how long each took, in seconds of the machine's clock.
type Phases struct {
	Work    float64 `json:"work"`
	Reboot  float64 `json:"reboot"`
	Compare float64 `json:"compare"` // in dom0
	See     float64 `json:"see"`     // in the guest
}

// How long things may take on the machine's clock.
const (
	grace    = 4 * time.Second  // to panic, and to be up again, once the time is over
	comeback = 15 * time.Second // to be up again for one that has gone down, at the first or a later attempt
	patience = time.Minute      // for everything else
)

// prepare fills the domU's cache.
func prepare(ctx context.Context, order guest.Order) error {
	d, err := openDomU(order.Domain, true)
	if err != nil {
		return err
	}
	defer d.close()
	if _, ok := d.await(guest.SayUp, patience); !ok {
		return fmt.Errorf("the guest is not up: %s", d.text)
	}
	if err := d.tell(ctx, "prepare", order); err != nil {
		return err
	}
	var inodes []uint64
	if err := d.awaitJSON(guest.SayPrepared, patience+guest.Watched, &inodes); err != nil {
		return fmt.Errorf("%w: %s", err, d.text)
	}
	text, err := json.Marshal(inodes)
	if err != nil {
		return err
	}
	return os.WriteFile(inodesPath, text, 0o644)
}

// supervision is of one run.
type supervision struct {
	*domU
	order guest.Order
	agent *api.Client
	Outcome
}

// run makes a run. An error means that nothing can be said about it.
func run(ctx context.Context, order guest.Order) (Outcome, error) {
	d, err := openDomU(order.Domain, false)
	if err != nil {
		return Outcome{}, err
	}
	defer d.close()
	s := &supervision{domU: d, order: order, agent: api.NewClient(api.DefaultSocket)}
	before := time.Now()
	phase := func(took *float64) {
		*took = time.Since(before).Round(time.Millisecond).Seconds()
		before = time.Now()
	}
	if err := s.tell(ctx, "work", order); err != nil {
		return Outcome{}, err
	}
	s.awaitReboot(ctx)
	phase(&s.Phases.Work)
	s.awaitRestore(ctx)
	phase(&s.Phases.Reboot)
	err = s.compare(ctx)
	phase(&s.Phases.Compare)
	s.see(ctx)
	phase(&s.Phases.See)
	if _, why, failed := strings.Cut(s.text, guest.SayFailed); failed {
		err = errors.Join(err, fmt.Errorf("the guest failed: %s", why))
	}
	s.Console = s.text
	return s.Outcome, err
}

// note keeps what cannot be said.
func (s *supervision) note(what string, err error) {
	if err != nil {
		s.Note += fmt.Sprintf("%s: %v; ", what, err)
	}
}

// awaitReboot waits until the guest is up again, which panics by itself when
// its time is over. One that does not is hanging, and taken down.
func (s *supervision) awaitReboot(ctx context.Context) {
	s.Ending = Crashed
	_, s.Up = s.await(guest.SayUp, time.Duration(s.order.Seconds)*time.Second+grace)
	if !s.Up && s.hangs(ctx) {
		s.Ending = Forced
		ctx, cancel := context.WithTimeout(ctx, 2*patience)
		defer cancel()
		_, err := s.agent.Reboot(ctx, s.order.Domain, api.Force)
		s.note("forced", err)
	}
	if !s.Up {
		_, s.Up = s.await(guest.SayUp, comeback)
	}
	if s.Ending == Crashed && strings.Contains(s.text, guest.SayTimeOver) {
		s.Ending = Panicked
	}
}

// hangs reports whether the domain in which the run began is still up.
func (s *supervision) hangs(ctx context.Context) bool {
	status, err := s.agent.Status(ctx, s.order.Domain, false)
	s.note("status", err)
	return err == nil && status.Current == nil && status.Last == nil
}

// awaitRestore waits until the agent has its account of the reboot; for a guest that
// does not come up there may never be one.
func (s *supervision) awaitRestore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	status, err := s.agent.Status(ctx, s.order.Domain, s.Up)
	s.note("restore", err)
	if status.Last != nil {
		s.Reboot = *status.Last
	}
	if !s.Reboot.Done {
		s.Up = false
		s.Note += "the reboot did not end; "
	}
}

// compare compares what came back with the disk, in dom0. A domain that goes up
// and down all the time can't be compared.
func (s *supervision) compare(ctx context.Context) error {
	domid, err := s.domid(ctx)
	if err == nil {
		s.Pages, err = pages(ctx, domid)
	}
	if s.Up {
		return err
	}
	s.note("pages", err)
	return nil
}

// see has the guest compare what it sees with the disk.
func (s *supervision) see(ctx context.Context) {
	if !s.Up {
		return
	}
	err := s.tell(ctx, "see", s.order)
	if err == nil {
		err = s.awaitJSON(guest.SaySeen, patience, &s.Seen)
	}
	s.note("files", err)
}
