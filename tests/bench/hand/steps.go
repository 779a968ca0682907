package hand

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl"
)

// Plan is a list of things to do, one after the other, by one program in dom0.
type Plan struct {
	// Domid is of the domain whose warm cache's counters are wanted, or 0.
	Domid int    `json:"domid"`
	Steps []Step `json:"steps"`
}

// Step is one of them.
type Step struct {
	At    string   `json:"at,omitempty"` // where a Serve runs; "" is here
	Args  []string `json:"args"`         // of Main
	Quiet bool     `json:"quiet"`        // it is begun when nothing else is going on
	// Beside is done at the same time, elsewhere; all of its fields but At and Args
	// are ignored.
	Beside *Step `json:"beside,omitempty"`
}

// Outcome is what a step's command has answered, and what was used meanwhile:
// by the clock, and of the processor, which Xen accounts for.
type Outcome struct {
	Value     json.RawMessage `json:"value"`
	Beside    json.RawMessage `json:"beside,omitempty"` // the answer of the step beside
	Seconds   float64         `json:"seconds"`
	Dom0      float64         `json:"dom0"`       // seconds of processor time
	DomU      float64         `json:"domU"`       // of all others together
	FreePages float64         `json:"free_pages"` // that Xen has gained
	Counters  Counters        `json:"counters"`
	// Busy is the share of the processor that was used just before, if that was
	// to be quiet.
	Busy float64 `json:"busy"`
}

// Counters are those of a domain's warm cache.
type Counters struct {
	Hypercalls  float64 `json:"hypercalls"`
	WriteFaults float64 `json:"write_faults"`
	Registered  float64 `json:"registered"`
	Commits     float64 `json:"commits"`
	Committed   float64 `json:"committed"` // pages, at the end
}

// What is quiet: the agents look around once a second, and a tick comes now and
// then.
const (
	quietShare   = 0.04
	quietWindow  = 300 * time.Millisecond
	quietWindows = 100 // then it is begun all the same, and Busy says so
)

// state is what has been used and counted so far.
type state struct {
	at        time.Time
	processor map[ident.Domid]uint64
	free      uint64
	counters  Counters
}

// Run does what the plan says.
func (p Plan) Run(ctx context.Context) ([]Outcome, error) {
	xen, err := xenctl.Open()
	if err != nil {
		return nil, err
	}
	servants := make(servants)
	var all []Outcome
	for _, s := range p.Steps {
		var at, beside *servant
		if at, err = servants.at(ctx, s.At); err != nil {
			break
		}
		if s.Beside != nil {
			if beside, err = servants.at(ctx, s.Beside.At); err != nil {
				break
			}
		}
		var o Outcome
		if o, err = p.step(ctx, xen, s, at, beside); err != nil {
			err = fmt.Errorf("%v: %w", s.Args, err)
			break
		}
		all = append(all, o)
	}
	for _, s := range servants {
		err = errors.Join(err, s.conn.Close())
	}
	return all, errors.Join(err, xen.Close())
}

// servants are the connections that there are, by address.
type servants map[string]*servant

// at is nil for this very machine.
func (s servants) at(ctx context.Context, address string) (*servant, error) {
	if address == "" || s[address] != nil {
		return s[address], nil
	}
	c, err := connect(ctx, address)
	if err == nil {
		s[address] = c
	}
	return c, err
}

func (p Plan) step(ctx context.Context, xen *xenctl.Handle, s Step, at, beside *servant) (Outcome, error) {
	var o Outcome
	var err error
	if s.Quiet {
		if o.Busy, err = quiet(ctx, xen); err != nil {
			return o, err
		}
	}
	before, err := p.look(xen)
	if err != nil {
		return o, err
	}
	var aside sync.WaitGroup
	var asideErr error
	if beside != nil {
		aside.Add(1)
		go func() {
			defer aside.Done()
			o.Beside, asideErr = beside.ask(s.Beside.Args)
		}()
	}
	if at != nil {
		o.Value, err = at.ask(s.Args)
	} else {
		var value any
		if value, err = perform(ctx, s.Args[0], s.Args[1:]); err == nil {
			o.Value, err = json.Marshal(value)
		}
	}
	aside.Wait()
	if err := errors.Join(err, asideErr); err != nil {
		return o, err
	}
	after, err := p.look(xen)
	if err != nil {
		return o, err
	}
	o.Seconds = after.at.Sub(before.at).Seconds()
	o.Dom0, o.DomU = after.since(before)
	o.FreePages = float64(after.free) - float64(before.free)
	o.Counters = after.counters
	o.Counters.Hypercalls -= before.counters.Hypercalls
	o.Counters.WriteFaults -= before.counters.WriteFaults
	o.Counters.Registered -= before.counters.Registered
	o.Counters.Commits -= before.counters.Commits
	return o, nil
}

// since is the processor time of dom0, and of all other domains that are there.
func (s state) since(was state) (dom0, others float64) {
	for domid, now := range s.processor {
		used := float64(now-was.processor[domid]) / 1e9
		if domid == 0 {
			dom0 += used
		} else {
			others += used
		}
	}
	return dom0, others
}

func (p Plan) look(xen *xenctl.Handle) (state, error) {
	s := state{processor: make(map[ident.Domid]uint64)}
	all, err := xen.Domains()
	if err != nil {
		return s, err
	}
	for _, d := range all {
		s.processor[d.Domid] = d.CPUTime
	}
	memory, err := xen.Memory()
	if err != nil {
		return s, err
	}
	s.free = memory.Free
	if p.Domid != 0 {
		w, err := xen.WarmcacheStatus(ident.Domid(p.Domid))
		if err == nil { // it is not enabled, or gone
			s.counters = Counters{float64(w.Hypercalls), float64(w.WriteFaults), float64(w.Registered), float64(w.Commits), float64(w.Committed)}
		}
	}
	s.at = time.Now()
	return s, nil
}

// quiet waits until little is going on, and returns how much.
func quiet(ctx context.Context, xen *xenctl.Handle) (float64, error) {
	var share float64
	for range quietWindows {
		before, err := Plan{}.look(xen)
		if err != nil {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(quietWindow): // nothing tells that a machine has become idle
		}
		after, err := Plan{}.look(xen)
		if err != nil {
			return 0, err
		}
		dom0, others := after.since(before)
		if share = (dom0 + others) / after.at.Sub(before.at).Seconds(); share < quietShare {
			break
		}
	}
	return share, nil
}
