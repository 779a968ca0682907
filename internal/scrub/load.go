package scrub

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// waiting is the share of the last ten seconds, in percent, for which some process of
// dom0 may have waited for a processor before dom0 counts as loaded.
const waiting = 20

// Load tells whether dom0 needs its processors itself, by what is below proc, as
// /proc.
func Load(proc string) func() bool {
	return func() bool {
		raw, err := os.ReadFile(filepath.Join(proc, "pressure/cpu"))
		if err == nil {
			share, err := pressure(string(raw))
			return err == nil && share > waiting
		}
		// A kernel without pressure stall information.
		raw, err = os.ReadFile(filepath.Join(proc, "loadavg"))
		if err != nil {
			return false
		}
		first, _, _ := strings.Cut(string(raw), " ")
		load, err := strconv.ParseFloat(first, 64)
		return err == nil && load > float64(runtime.NumCPU())
	}
}

// pressure parses /proc/pressure/cpu (Documentation/accounting/psi.rst) and returns the
// share of the last ten seconds, in percent, for which somebody waited.
func pressure(text string) (float64, error) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "some ")
		if !ok {
			continue
		}
		for field := range strings.FieldsSeq(rest) {
			if v, ok := strings.CutPrefix(field, "avg10="); ok {
				share, err := strconv.ParseFloat(v, 64)
				if err != nil || !(share >= 0 && share <= 100) {
					return 0, fmt.Errorf("pressure: avg10=%s", v)
				}
				return share, nil
			}
		}
	}
	return 0, errors.New("pressure: no avg10")
}
