// Package samples looks, once a second, at what each kept domain reads, writes
// and sends, and keeps what is around its reboots: the curves of a report. It
// reads dom0's own counters, and needs nothing of the guest.
package samples

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/store"
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
	// keptReboots is how many reboots of a domain have their samples kept, keptDomains
	// of how many domains: some 200 KB each.
	keptReboots = 8
	keptDomains = 256
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

	files sync.Mutex // held while something below Dir is changed; not under mu
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

// keep writes what is due; with the zero time, all. Nobody waits for the disk
// meanwhile: the keepers tell of their reboots under the same lock.
func (s *Sampler) keep(now time.Time) {
	type due struct {
		uuid    ident.UUID
		down    time.Time
		samples []api.Sample
	}
	var all []due
	s.mu.Lock()
	for uuid, d := range s.domains {
		for down, end := range d.save {
			if !now.IsZero() && now.Before(end) {
				continue
			}
			delete(d.save, down)
			all = append(all, due{uuid, down, around(d.ring, down, end)})
		}
	}
	s.mu.Unlock()
	for _, d := range all {
		if err := s.write(d.uuid, d.down, d.samples); err != nil {
			s.Log.Warn("samples of a reboot cannot be kept: its report has no curves", "op", "samples", "uuid", d.uuid, "err", err, "next", "make room in the state directory")
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

// kind is what is in a file: the samples around a reboot, some 180.
var kind = store.Kind{Name: "samples", Version: 1, Limit: 1 << 20}

const suffix = ".json"

func (s *Sampler) dir(uuid ident.UUID) store.Dir {
	return store.Dir{Path: filepath.Join(s.Dir, uuid.String())}
}

// A file is named by the time of the shutdown, in milliseconds.
func fileName(down time.Time) string { return fmt.Sprintf("%015d%s", down.UnixMilli(), suffix) }

func (s *Sampler) write(uuid ident.UUID, down time.Time, v []api.Sample) error {
	if len(v) == 0 {
		return nil
	}
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	s.files.Lock()
	defer s.files.Unlock()
	dir := s.dir(uuid)
	if err := dir.Make(); err != nil {
		return err
	}
	if err := dir.Write(fileName(down), kind, body); err != nil {
		return err
	}
	return errors.Join(dir.Trim(suffix, keptReboots), s.bound())
}

// bound forgets the domains whose last reboot was before that of keptDomains others:
// each `xl create` of a configuration without a UUID makes a new one.
func (s *Sampler) bound() error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil || len(entries) <= keptDomains {
		return err
	}
	last := map[ident.UUID]string{}
	for _, e := range entries {
		uuid, err := ident.ParseUUID(e.Name())
		if err != nil {
			continue // nobody of ours has made it
		}
		names, err := s.dir(uuid).Names(suffix)
		if err != nil {
			return err
		}
		last[uuid] = ""
		if len(names) > 0 {
			last[uuid] = names[len(names)-1]
		}
	}
	uuids := slices.SortedFunc(maps.Keys(last), func(a, b ident.UUID) int { return strings.Compare(last[a], last[b]) })
	for ; len(uuids) > keptDomains; uuids = uuids[1:] {
		if err := os.RemoveAll(s.dir(uuids[0]).Path); err != nil {
			return err
		}
	}
	return nil
}

// Forget forgets a domain that will not come back.
func (s *Sampler) Forget(uuid ident.UUID) {
	s.mu.Lock()
	delete(s.domains, uuid)
	s.mu.Unlock()
	s.files.Lock()
	defer s.files.Unlock()
	if err := os.RemoveAll(s.dir(uuid).Path); err != nil {
		s.Log.Warn("samples of a domain that is gone cannot be removed", "op", "samples", "uuid", uuid, "err", err, "next", "remove them by hand")
	}
}

// saved are the samples that were kept of a reboot.
func (s *Sampler) saved(uuid ident.UUID, down time.Time) ([]api.Sample, error) {
	dir, name := s.dir(uuid), fileName(down)
	_, body, err := dir.Read(name, kind)
	if errors.Is(err, store.ErrDamaged) { // or written by 0.1.0: just the samples
		if raw, readErr := os.ReadFile(filepath.Join(dir.Path, name)); readErr == nil && bytes.HasPrefix(raw, []byte("[")) {
			body, err = raw, nil
		}
	}
	v := []api.Sample{}
	if err == nil {
		err = json.Unmarshal(body, &v)
	}
	return v, err
}

// Samples implements api.Samples.
func (s *Sampler) Samples(_ context.Context, uuid ident.UUID, down time.Time) ([]api.Sample, error) {
	if !down.IsZero() {
		v, err := s.saved(uuid, down)
		if !errors.Is(err, fs.ErrNotExist) {
			return v, err
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
