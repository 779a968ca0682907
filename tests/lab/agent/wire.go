// Package agent is the lab's hand inside dom0 and inside the domU: it runs
// commands, moves files, and does the reading and writing that the demo
// measures. It is used by the lab only and knows nothing of Xen.
package agent

import "encoding/json"

// Port is where the agent listens, in dom0 and in the domU alike.
const Port = 7

// Program is where the agent's program lies in dom0 and in the domU.
const Program = "/usr/local/sbin/labagent"

// ExecRequest asks for one command to be run to its end.
type ExecRequest struct {
	Args  []string `json:"args"`
	Stdin []byte   `json:"stdin,omitempty"`
}

// Frame is one piece of a running command's output; the last one carries the
// exit code. Frames travel as one JSON object per line.
type Frame struct {
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
	Exit   *int   `json:"exit,omitempty"`
	Error  string `json:"error,omitempty"`
}

// ReadResult is what one pass over all files of a tree cost.
type ReadResult struct {
	Files   int     `json:"files"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
	// Disks holds, for each block device named, how much it read meanwhile.
	Disks map[string]DiskReads `json:"disks"`
}

// DiskReads counts a block device's reads, from its stat file in sysfs.
type DiskReads struct {
	Requests int64 `json:"requests"`
	Bytes    int64 `json:"bytes"`
}

// FolioCount tells how the pages of a file lie in memory.
type FolioCount struct {
	Pages int `json:"pages"`
	Large int `json:"large"` // of these, how many are part of a large folio
}

// Sums maps a path, relative to the tree's root, to its SHA-256 in hex.
type Sums map[string]string

// Differences lists the paths whose sums differ between s and other, or that
// only one of them has.
func (s Sums) Differences(other Sums) []string {
	var paths []string
	for path, sum := range s {
		if other[path] != sum {
			paths = append(paths, path)
		}
	}
	for path := range other {
		if _, ok := s[path]; !ok {
			paths = append(paths, path)
		}
	}
	return paths
}

// Decode reads the JSON that one of the agent's subcommands printed.
func Decode[T any](output []byte) (T, error) {
	var value T
	err := json.Unmarshal(output, &value)
	return value, err
}
