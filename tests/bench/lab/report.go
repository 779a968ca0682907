package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Report is what report.json holds.
type Report struct {
	Date     string   `json:"date"`
	Command  string   `json:"command"`
	Machine  string   `json:"machine"`
	Load     string   `json:"load_average"` // before the first measurement
	Settings Settings `json:"settings"`
	// State identifies what was measured: Xen, kernel, agent, and the programs that measure.
	State string `json:"state"`
	// Clock says what a second is in this report.
	Clock string `json:"clock"`
	// Summary has, for each group of rounds, variant and value, what it was.
	Summary map[string]map[string]map[string]Statistics `json:"summary"`
	Fits    []Fit                                       `json:"fits"`
	Targets []Target                                    `json:"targets"`
	Rounds  []Round                                     `json:"rounds"`
}

const clock = "Times are those of the emulated machine's clock: 2 ns for each instruction that its one processor executes, " +
	"and real time while all of it is idle. What the emulator itself takes, and what else its host does, is not in them."

// Statistics of a value over the repetitions.
type Statistics struct {
	Median  float64   `json:"median"`
	Minimum float64   `json:"minimum"`
	Maximum float64   `json:"maximum"`
	Values  []float64 `json:"values"`
}

func newReport(s Settings) *Report {
	load, _ := os.ReadFile("/proc/loadavg") // for people; absent where there is none
	return &Report{Date: time.Now().UTC().Format(time.RFC3339), Command: strings.Join(os.Args, " "), Machine: machine(),
		Load: strings.TrimSpace(string(load)), Settings: s, Clock: clock}
}

func machine() string {
	info, _ := os.ReadFile("/proc/cpuinfo") // as above
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return fmt.Sprintf("%d × %s", runtime.NumCPU(), strings.TrimSpace(value))
		}
	}
	return fmt.Sprintf("%d processors", runtime.NumCPU())
}

// resume takes over the rounds of an earlier report, if there is one.
func (r *Report) resume(dir string) error {
	earlier, err := readReport(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fmt.Sprint(earlier.Settings.Sizes, earlier.Settings.Disk) != fmt.Sprint(r.Settings.Sizes, r.Settings.Disk) {
		return errors.New("the report that is there was made with other sizes")
	}
	if earlier.State != r.State {
		return errors.New("the report that is there was made with another Xen, kernel, agent or benchmark; begin a new one")
	}
	r.Rounds, r.Date, r.Load = earlier.Rounds, earlier.Date, earlier.Load
	if earlier.Command != r.Command {
		r.Command = earlier.Command + "; " + r.Command
	}
	for _, w := range earlier.Settings.Workloads {
		if !slices.Contains(r.Settings.Workloads, w) {
			r.Settings.Workloads = append(r.Settings.Workloads, w)
		}
	}
	return nil
}

// has tells whether a round was measured already.
func (r *Report) has(group, variant string, repetition int) bool {
	return slices.ContainsFunc(r.Rounds, func(o Round) bool {
		return o.Group == group && o.Variant == variant && o.Repetition == repetition
	})
}

// summarise computes Summary, Fits and Targets.
func (r *Report) summarise() {
	r.Fits, r.Targets = r.fits(), r.targets()
	r.Summary = make(map[string]map[string]map[string]Statistics)
	for _, round := range r.Rounds {
		variants := entry(r.Summary, round.Group)
		values := entry(variants, round.Variant)
		for name, value := range round.Values {
			s := values[name]
			s.Values = append(s.Values, value)
			values[name] = s
		}
	}
	for _, variants := range r.Summary {
		for _, values := range variants {
			for name, s := range values {
				values[name] = statistics(s.Values)
			}
		}
	}
}

func entry[T any](m map[string]map[string]T, key string) map[string]T {
	if m[key] == nil {
		m[key] = make(map[string]T)
	}
	return m[key]
}

func statistics(values []float64) Statistics {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return Statistics{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Minimum: sorted[0], Maximum: sorted[n-1], Values: values}
}

// interval returns between which two of the sorted values the median lies of what
// they were drawn from, with nine chances in ten. That takes five values: then
// it is the least and the greatest.
func interval(sorted []float64) (low, high float64, ok bool) {
	n := len(sorted)
	chance := math.Pow(0.5, float64(n)) // that exactly k values are below the median
	below := chance                     // that at most k are
	k := 0
	for ; k < n/2 && 2*below <= 0.1; k++ {
		low, high, ok = sorted[k], sorted[n-1-k], true
		chance *= float64(n-k) / float64(k+1)
		below += chance
	}
	return low, high, ok
}

// write leaves report.json and report.html in dir.
func (r *Report) write(dir string) error {
	r.summarise()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	page, err := r.html()
	if err != nil {
		return err
	}
	return errors.Join(replace(filepath.Join(dir, "report.json"), append(text, '\n')), replace(filepath.Join(dir, "report.html"), page),
		replace(filepath.Join(dir, "first-read.svg"), []byte(r.firstRead())))
}

// draw makes the figures of the report that is there anew.
func draw(dir string) error {
	r, err := readReport(dir)
	if err != nil {
		return err
	}
	return r.write(dir)
}

// readReport reads the report that was written to a folder.
func readReport(dir string) (*Report, error) {
	text, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		return nil, err
	}
	r := new(Report)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s/report.json: %w", dir, err)
	}
	return r, nil
}

// replace writes a file so that whoever reads it sees all of the old one, or of
// the new one.
func replace(path string, content []byte) error {
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
