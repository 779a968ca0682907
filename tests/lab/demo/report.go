package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
)

// Report is what build/demo/report.json holds.
type Report struct {
	Steps []Step `json:"steps"`
	// DatasetPages is how many pages of 4 KiB the served files fill, and
	// DatasetBytes how long they are together.
	DatasetPages int64 `json:"dataset_pages"`
	DatasetBytes int64 `json:"dataset_bytes"`
	// Missed lists the bounds that do not hold; the demo fails unless it is
	// empty.
	Missed []string `json:"missed"`
}

// Step is one measured pass over the served files.
type Step struct {
	Name           string           `json:"name"`
	Kind           string           `json:"kind"`    // cold or warm
	Trigger        string           `json:"trigger"` // of the boot before the pass
	Bytes          int64            `json:"bytes"`
	Seconds        float64          `json:"seconds"`
	VBDReadBytes   int64            `json:"vbd_read_bytes"`
	PagesBefore    uint64           `json:"pages_before"`
	PagesPreserved uint64           `json:"pages_preserved"`
	PagesApproved  uint64           `json:"pages_approved"`
	PagesRestored  uint64           `json:"pages_restored"`
	Refused        map[string]int64 `json:"refused"`
	SHA256OK       bool             `json:"sha256_ok"`
	Mismatches     int64            `json:"check_mismatches"`
	DownSeconds    float64          `json:"down_seconds"`
}

// take copies what the agent in dom0 said about the reboot before the step.
func (s *Step) take(r Reboot) {
	s.PagesBefore, s.PagesPreserved = r.PagesBefore, r.PagesPreserved
	s.PagesApproved, s.PagesRestored = r.PagesApproved, r.PagesRestored
	s.DownSeconds = r.DownSeconds
	for reason, pages := range r.Refused {
		if pages != 0 {
			s.Refused[reason] = pages
		}
	}
}

func (r *Report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "report.json"), append(text, '\n'), 0o644)
}

func (r *Report) print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "step\tread\tseconds\tfrom disk\tpreserved\tapproved\trestored\tdown\tSHA-256\tcheck\t")
	for _, s := range r.Steps {
		sums := "equal"
		if !s.SHA256OK {
			sums = "DIFFER"
		}
		fmt.Fprintf(table, "%s\t%.0f MiB\t%.3f\t%.1f MiB\t%d\t%d\t%d\t%.1f s\t%s\t%d\t\n", s.Name, mebibytes(s.Bytes), s.Seconds,
			mebibytes(s.VBDReadBytes), s.PagesPreserved, s.PagesApproved, s.PagesRestored, s.DownSeconds, sums, s.Mismatches)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, s := range r.Steps {
		if len(s.Refused) != 0 {
			fmt.Fprintf(out, "%s: pages not taken back: %v\n", s.Name, s.Refused)
		}
	}
	return nil
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }
