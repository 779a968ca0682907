// Package samples looks, once a second, at what each kept domain reads, writes
// and sends, and keeps what is around its reboots: the curves of a report. It
// reads dom0's own counters, and needs nothing of the guest.
package samples

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

const (
	// Interval is the time between two samples.
	Interval = time.Second
	// ringLen samples are kept in memory for each domain.
	ringLen = 900
	// What is kept of a reboot begins so long before it and ends so long after
	// its restore.
	before = time.Minute
	after  = 2 * time.Minute
	// keptReboots is how many reboots of a domain have their samples kept.
	keptReboots = 8
)

// Sampler samples the domains of a source.
type Sampler struct {
	// Source lists the kept domains.
	Source interface {
		Kept(context.Context) ([]api.DomainStatus, error)
	}
	// Sys is where sysfs is mounted, Dir where samples of reboots are kept.
	Sys, Dir string
	Log      *slog.Logger

	mu      sync.Mutex
	domains map[ident.UUID]*domain
}

// domain is what is known of one.
type domain struct {
	ring []api.Sample
	last counters
	// save are the reboots whose samples are to be kept: when they began, and
	// when there are enough.
	save map[time.Time]time.Time
}

// counters are in bytes, and count since a domid has its devices.
type counters struct {
	at                            time.Time
	domid                         ident.Domid
	read, written, sent, received uint64
}

var _ api.Samples = (*Sampler)(nil)

// Run samples until ctx ends; what is to be kept is kept then as it is.
func (s *Sampler) Run(ctx context.Context) {
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.keep(time.Time{})
			return
		case now := <-tick.C:
			s.sample(ctx, now)
			s.keep(now)
		}
	}
}

// sample takes a sample of each domain.
func (s *Sampler) sample(ctx context.Context, now time.Time) {
	all, err := s.Source.Kept(ctx)
	if err != nil {
		s.Log.Debug("samples", "op", "list", "err", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.domains == nil {
		s.domains = map[ident.UUID]*domain{}
	}
	seen := map[ident.UUID]bool{}
	for i := range all {
		st := &all[i]
		if !st.Managed {
			continue
		}
		seen[st.UUID] = true
		d := s.domains[st.UUID]
		if d == nil {
			d = &domain{save: map[time.Time]time.Time{}}
			s.domains[st.UUID] = d
		}
		d.add(s.read(st.Domid, now), st)
	}
	for uuid, d := range s.domains {
		if !seen[uuid] && len(d.save) == 0 {
			delete(s.domains, uuid)
		}
	}
}

// add enters a reading. The first one has nothing to be compared with.
func (d *domain) add(c counters, st *api.DomainStatus) {
	last := d.last
	d.last = c
	if last.at.IsZero() {
		return
	}
	v := api.Sample{At: c.at, Seconds: c.at.Sub(last.at).Seconds(), Domid: c.domid, Reusable: st.Committed}
	if last.domid != c.domid {
		last = counters{} // other devices, which count from 0
	}
	// A device that was taken away takes its count with it.
	v.DiskRead, v.DiskWritten = less(c.read, last.read), less(c.written, last.written)
	v.NetSent, v.NetReceived = less(c.sent, last.sent), less(c.received, last.received)
	if st.Report != nil {
		v.Restored = st.Report.Restored
	}
	if len(d.ring) == ringLen {
		d.ring = slices.Delete(d.ring, 0, 1)
	}
	d.ring = append(d.ring, v)
}

func less(a, b uint64) uint64 { return a - min(a, b) }

// read reads the counters of a domain's backends. Those that are not there count
// nothing: QEMU's disks have none.
func (s *Sampler) read(domid ident.Domid, now time.Time) counters {
	c := counters{at: now, domid: domid}
	if domid == 0 {
		return c
	}
	sum := func(pattern string, unit uint64, to *uint64) {
		paths, _ := filepath.Glob(filepath.Join(s.Sys, pattern)) // the pattern is right
		for _, p := range paths {
			raw, err := os.ReadFile(p)
			if err != nil {
				continue // gone just now
			}
			if v, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64); err == nil {
				*to += v * unit
			}
		}
	}
	vbd := fmt.Sprintf("bus/xen-backend/devices/vbd-%d-*/statistics/", domid)
	sum(vbd+"rd_sect", 512, &c.read)
	sum(vbd+"wr_sect", 512, &c.written)
	vif := fmt.Sprintf("class/net/vif%d.*/statistics/", domid)
	sum(vif+"rx_bytes", 1, &c.sent) // dom0 receives what the guest sends
	sum(vif+"tx_bytes", 1, &c.received)
	return c
}

// Finished has the samples around a reboot kept once there are enough.
func (s *Sampler) Finished(r api.Summary) {
	if r.Started.IsZero() {
		return // it never went down
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.domains[r.UUID]; d != nil {
		d.save[r.Started] = time.Now().Add(after)
	}
}

// keep writes what is due; with the zero time, all.
func (s *Sampler) keep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for uuid, d := range s.domains {
		for down, due := range d.save {
			if !now.IsZero() && now.Before(due) {
				continue
			}
			delete(d.save, down)
			if err := s.write(uuid, down, around(d.ring, down, due)); err != nil {
				s.Log.Warn("samples of a reboot cannot be kept", "uuid", uuid, "err", err)
			}
		}
	}
}

// around returns the samples from before down until end.
func around(ring []api.Sample, down, end time.Time) []api.Sample {
	found := []api.Sample{}
	for _, v := range ring {
		if !v.At.Before(down.Add(-before)) && !v.At.After(end) {
			found = append(found, v)
		}
	}
	return found
}

func (s *Sampler) dir(uuid ident.UUID) string { return filepath.Join(s.Dir, uuid.String()) }

// A file is named by the time of the shutdown, in milliseconds.
func fileName(down time.Time) string { return fmt.Sprintf("%015d.json", down.UnixMilli()) }

func (s *Sampler) write(uuid ident.UUID, down time.Time, v []api.Sample) error {
	if len(v) == 0 {
		return nil
	}
	dir := s.dir(uuid)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, fileName(down))
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	kept, err := filepath.Glob(filepath.Join(dir, "*.json")) // in order of time
	if err != nil {
		return err
	}
	var errs []error
	for len(kept) > keptReboots {
		errs = append(errs, os.Remove(kept[0]))
		kept = kept[1:]
	}
	return errors.Join(errs...)
}

// Samples implements api.Samples.
func (s *Sampler) Samples(_ context.Context, uuid ident.UUID, down time.Time) ([]api.Sample, error) {
	if !down.IsZero() {
		raw, err := os.ReadFile(filepath.Join(s.dir(uuid), fileName(down)))
		if err == nil {
			v := []api.Sample{}
			return v, json.Unmarshal(raw, &v)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return []api.Sample{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.domains[uuid]
	switch {
	case d == nil:
		return []api.Sample{}, nil
	case down.IsZero():
		return slices.Clone(d.ring), nil
	}
	return around(d.ring, down, down.Add(ringLen*Interval)), nil
}
