package scheduler

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/config"
	"github.com/warmreboot/warmreboot/internal/health"
	"github.com/warmreboot/warmreboot/internal/schedule"
)

type figureKey struct {
	schedule.Key
	trigger int
}

// figure is the samples of a trigger's figure since the domain's boot.
type figure struct {
	source  string // as text: another one has other figures
	samples []schedule.Sample
	trend   schedule.Trend
	next    time.Duration // uptime of the next reading
	reading bool
	gone    bool // the domain has been rebooted meanwhile
	// last is what the source itself has to remember.
	last sourceMemory
}

// sourceMemory is a source's last reading.
type sourceMemory struct {
	at      time.Duration
	sectors float64
	known   bool
	offset  int64 // in the console's log
	lines   float64
}

func (r *Runner) trend(k figureKey) schedule.Trend {
	if f := r.figures[k]; f != nil {
		return f.trend
	}
	return schedule.Trend{}
}

func (r *Runner) dropFigures(uuid ident.UUID) {
	for k, f := range r.figures {
		if k.UUID == uuid {
			f.gone = true
			delete(r.figures, k)
		}
	}
}

// mostReadings is how many figures are read at once: commands among them, in a
// dom0 that may have one processor.
const mostReadings = 8

// sample begins the readings that are due, each in a goroutine of its own: they
// take as long as a guest wants them to, but not longer than their limit.
func (r *Runner) sample(ctx context.Context, all []api.DomainStatus) {
	up := r.Uptime()
	r.mu.Lock()
	defer r.mu.Unlock()
	wanted := map[figureKey]bool{}
	for _, s := range r.conf.Schedules {
		for _, d := range all {
			if !s.Match.Of(d.Domain, d.UUID) {
				continue
			}
			for i, src := range s.Sources {
				k := figureKey{schedule.Key{Rule: s.Name, UUID: d.UUID}, i}
				wanted[k] = true
				f := r.figures[k]
				if f == nil || f.source != src.String() {
					f = &figure{source: src.String(), next: up}
					r.figures[k] = f
				}
				if d.State != "running" || d.Current != nil || f.reading || up < f.next {
					continue
				}
				every := max(src.Every, s.Triggers[i].Over/config.MostSamples)
				f.next, f.reading = up+every, true
				r.wg.Add(1)
				go r.read(ctx, f, src, d, s.Triggers[i].Over)
			}
		}
	}
	for k, f := range r.figures {
		if !wanted[k] {
			f.gone = true
			delete(r.figures, k)
		}
	}
}

func (r *Runner) read(ctx context.Context, f *figure, src config.Source, d api.DomainStatus, over time.Duration) {
	defer r.wg.Done()
	select {
	case r.reading <- struct{}{}:
		defer func() { <-r.reading }()
	case <-ctx.Done():
		return
	}
	limited, cancel := context.WithTimeout(ctx, src.Timeout)
	defer cancel()
	last := f.last // only one reading at a time
	v, ok, err := r.value(limited, src, d, &last)
	now := r.Uptime()
	r.mu.Lock()
	f.reading = false
	if err != nil {
		f.trend.Failed = err.Error()
	}
	if f.gone || err != nil {
		r.mu.Unlock()
		return
	}
	f.last = last
	if !ok {
		r.mu.Unlock()
		return
	}
	f.samples = append(f.samples, schedule.Sample{At: now, Value: v})
	for len(f.samples) > 0 && now-f.samples[0].At > over {
		f.samples = f.samples[1:]
	}
	samples := slices.Clone(f.samples)
	r.mu.Unlock()
	trend := schedule.TrendOf(samples) // of up to 30 000 pairs
	r.mu.Lock()
	defer r.mu.Unlock()
	f.trend = trend
}

// value takes a reading; false if there is none yet.
func (r *Runner) value(ctx context.Context, src config.Source, d api.DomainStatus, last *sourceMemory) (v float64, ok bool, err error) {
	expand := func(s string) string { return config.Expand(s, d.Domain, d.UUID.String()) }
	switch {
	case src.URL != "":
		begun := time.Now()
		status, err := health.Get(ctx, expand(src.URL))
		if err == nil && status >= 400 {
			err = fmt.Errorf("it answers %d", status)
		}
		return float64(time.Since(begun).Microseconds()) / 1000, err == nil, err
	case len(src.Args) > 0:
		out, output, err := health.Command(ctx, health.ExpandAll(src.Args, expand),
			[]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
				"WARMREBOOT_DOMAIN=" + d.Domain, "WARMREBOOT_UUID=" + d.UUID.String()}, src.Timeout)
		if err != nil {
			return 0, false, fmt.Errorf("%w: %s", err, health.LastLine(output))
		}
		return number(out)
	case src.Xenstore != "":
		text, err := r.Store.Read(ctx, fmt.Sprintf("/local/domain/%d/%s", d.Domid, src.Xenstore))
		if err != nil {
			return 0, false, err
		}
		return number(text)
	case src.SwapVBD != 0:
		return r.swapRate(src.SwapVBD, d, last)
	}
	return r.consoleLines(src, d, last)
}

func number(text string) (float64, bool, error) {
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, false, fmt.Errorf("%.60q is not a number", text)
	}
	return v, true, nil
}

// swapRate is the sectors per second since the last reading.
func (r *Runner) swapRate(vbd ident.VBD, d api.DomainStatus, last *sourceMemory) (float64, bool, error) {
	total := 0.0
	for _, file := range []string{"rd_sect", "wr_sect"} {
		raw, err := os.ReadFile(filepath.Join(r.Sys, "bus/xen-backend/devices", fmt.Sprintf("vbd-%d-%d", d.Domid, vbd), "statistics", file))
		if err != nil {
			return 0, false, err
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(string(raw)), 64)
		if err != nil {
			return 0, false, err
		}
		total += v
	}
	before, now := *last, r.Uptime()
	*last = sourceMemory{at: now, sectors: total, known: true}
	if !before.known || now <= before.at || total < before.sectors {
		return 0, false, nil
	}
	return (total - before.sectors) / (now - before.at).Seconds(), true, nil
}

// maxConsole is how much of a console's log is read at once, in bytes. A guest
// that writes more loses lines to itself.
const maxConsole = 1 << 20

// consoleLines counts the lines that match, from when it was first looked at.
func (r *Runner) consoleLines(src config.Source, d api.DomainStatus, last *sourceMemory) (float64, bool, error) {
	if strings.ContainsRune(d.Domain, '/') {
		return 0, false, errors.New("the domain's name is no file name")
	}
	f, err := os.Open(filepath.Join(r.Console, "guest-"+d.Domain+".log"))
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, false, err
	}
	switch {
	case !last.known:
		last.known, last.offset = true, size // before: of earlier boots, perhaps
	case size < last.offset:
		last.offset = 0 // it was rotated, and all that is in it came since
	}
	if size-last.offset > maxConsole {
		last.offset = size - maxConsole
	}
	b := bufio.NewReader(io.NewSectionReader(f, last.offset, size-last.offset))
	for {
		line, err := b.ReadString('\n')
		if err != nil { // the rest is read when it is whole
			break
		}
		last.offset += int64(len(line))
		if src.Console.MatchString(line) {
			last.lines++
		}
	}
	return last.lines, true, nil
}
