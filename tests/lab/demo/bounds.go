package demo

import "fmt"

// What has to hold. See README.md for why these figures.
const (
	leastRestored   = 0.98 // of the served files' pages, after a warm reboot
	mostRead        = 0.01 // of the served bytes, from disk, in the first pass after it
	mostTime        = 1.2  // times the reference, for that pass
	leastRead       = 0.95 // of the served bytes, from disk, after a normal reboot
	referenceStep   = "reference"
	triggerNormal   = "normal"
	triggerGraceful = "graceful"
	triggerCrash    = "crash"
	triggerForce    = "force"
)

// missed lists the bounds that the report does not keep.
func (r *Report) missed() []string {
	var missed []string
	var reference float64
	miss := func(step Step, format string, args ...any) {
		missed = append(missed, step.Name+": "+fmt.Sprintf(format, args...))
	}
	for _, s := range r.Steps {
		if !s.SHA256OK {
			miss(s, "files differ from the truth")
		}
		if s.Mismatches != 0 {
			miss(s, "check found %d mismatches", s.Mismatches)
		}
		if s.Bytes < r.DatasetBytes {
			miss(s, "read %d bytes, want %d", s.Bytes, r.DatasetBytes)
		}
		read := float64(s.VBDReadBytes) / float64(s.Bytes)
		switch s.Trigger {
		case triggerNormal:
			if read < leastRead {
				miss(s, "%.1f %% came from disk, want at least %.0f %%: the comparison is empty", 100*read, 100*leastRead)
			}
		case triggerGraceful, triggerCrash, triggerForce:
			if share := float64(s.PagesRestored) / float64(r.DatasetPages); share < leastRestored {
				miss(s, "%.1f %% of the pages restored, want at least %.0f %%", 100*share, 100*leastRestored)
			}
			if read > mostRead {
				miss(s, "%.2f %% came from disk, want at most %.0f %%", 100*read, 100*mostRead)
			}
			if s.Seconds > mostTime*reference {
				miss(s, "%.3f s, want at most %.1f times the reference of %.3f s", s.Seconds, mostTime, reference)
			}
		}
		if s.Name == referenceStep {
			reference = s.Seconds
		}
	}
	return missed
}
