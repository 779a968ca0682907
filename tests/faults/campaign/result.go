package campaign

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/warmreboot/warmreboot/tests/faults/hand"
)

// Result is all that is known of a run: one line of the results file.
type Result struct {
	Key
	Faults   int `json:"faults"`   // asked for
	Injected int `json:"injected"` // according to the guest's console; fewer if it crashed before the last
	Seconds  int `json:"seconds"`  // that the guest worked, unless it crashed
	// State identifies what the run began with: hypervisor, kernel, programs,
	// injector and disks. A campaign may be carried out over several of them.
	State string `json:"state,omitempty"`
	// Class is the judgement on the outcome.
	Class Class `json:"class"`
	hand.Outcome
	// Took is how long the run took on the host, in seconds; Processor is what
	// the emulator took of it.
	Took      float64 `json:"took"`
	Processor float64 `json:"processor"`
}

// Store keeps results, a line of JSON each, so that a campaign can go on where
// it was broken off.
type Store struct {
	path    string
	Results []Result
}

// OpenStore reads what there is. A last line that is not whole is what an
// interruption leaves; it is cut off.
func OpenStore(path string) (*Store, error) {
	s := &Store{path: path}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	whole := int64(0)
	for reader := bufio.NewReader(file); ; {
		line, err := reader.ReadBytes('\n')
		if err != nil { // no end of line: not whole
			break
		}
		var r Result
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("%s: byte %d: %w", path, whole, err)
		}
		whole += int64(len(line))
		r.Class = Classify(r) // it follows from the rest; a better judgement is for all runs
		s.Results = append(s.Results, r)
	}
	return s, os.Truncate(path, whole)
}

// Has reports whether a run has been made.
func (s *Store) Has(key Key) bool {
	for _, r := range s.Results {
		if r.Key == key {
			return true
		}
	}
	return false
}

// Missing returns those of the runs that have not been made.
func (s *Store) Missing(keys []Key) []Key {
	var missing []Key
	for _, key := range keys {
		if !s.Has(key) {
			missing = append(missing, key)
		}
	}
	return missing
}

// Add keeps the result of a run.
func (s *Store) Add(r Result) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(s.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(append(line, '\n'))
	s.Results = append(s.Results, r)
	return errors.Join(err, file.Sync(), file.Close())
}
