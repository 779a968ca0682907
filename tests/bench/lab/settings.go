package main

import (
	"fmt"
	"slices"
	"time"
)

// The workloads.
const (
	Read      = "read"      // a large file, on a block device and in an image file
	Small     = "small"     // many small files
	Random    = "random"    // pages of a file like a database
	SQLite    = "sqlite"    // queries
	Web       = "web"       // a web server
	Tracking  = "tracking"  // what being tracked costs
	Neighbour = "neighbour" // another domU on the same disk
	Scale     = "scale"     // what a preserved page costs
)

// Names of all workloads, in the order in which they are run.
var Names = []string{Read, Small, Random, SQLite, Web, Tracking, Neighbour, Scale}

// variantsOf are the kinds of rounds, and the variants that each compares.
var variantsOf = map[string][]string{Recovery: reboots, Scale: {pages}, Tracking: {Stock, On, Off, Mapped}}

// Settings say what is run.
type Settings struct {
	Workloads   []string `json:"workloads"`
	Repetitions int      `json:"repetitions"`
	Disk        Disk     `json:"disk"`
	Sizes       Sizes    `json:"sizes"`
	// StatFirst has each of the many small files looked at by name before the
	// first pass over them.
	StatFirst bool `json:"stat_first,omitempty"`
	// SmallAlways has them read after each kind of reboot.
	SmallAlways bool `json:"small_always,omitempty"`
	// OneVariant has only the last variant of each kind of rounds run.
	OneVariant bool      `json:"one_variant,omitempty"`
	deadline   time.Time // no round is begun after it, unless it is zero
}

// variants are those that are run.
func (s Settings) variants(all []string) []string {
	if s.OneVariant {
		return all[len(all)-1:]
	}
	return all
}

// Disk is how fast the domU's disk and that with its image file are, by dom0's
// clock.
type Disk struct {
	MiBPerSecond      float64 `json:"mib_per_second"`
	RequestsPerSecond float64 `json:"requests_per_second"`
}

// Sizes say how much work there is.
type Sizes struct {
	MemoryMiB     int     `json:"memory_mib"` // of the domU
	VCPUs         int     `json:"vcpus"`
	FileBytes     int64   `json:"file_bytes"` // the large file, and that in the image file
	SmallFiles    int64   `json:"small_files"`
	SmallBytes    int64   `json:"small_bytes"` // of each
	DatabaseBytes int64   `json:"database_bytes"`
	RandomReads   int64   `json:"random_reads"`
	Rows          int64   `json:"rows"`    // of the SQLite database
	Queries       int64   `json:"queries"` // to it
	WebFiles      int64   `json:"web_files"`
	WebBytes      int64   `json:"web_bytes"` // of each
	Think         float64 `json:"think"`     // see hand.Drive
	Before        float64 `json:"before"`
	After         float64 `json:"after"`         // after a graceful warm reboot
	AfterOthers   float64 `json:"after_others"`  // after the others
	CachedPasses  int64   `json:"cached_passes"` // of the large file, where the cost of a cached read is measured
	// Stream is how long the neighbour reads, alone and with the other.
	Stream      float64 `json:"stream"`
	BesideBytes int64   `json:"beside_bytes"` // what the other reads meanwhile
	WriteBytes  int64   `json:"write_bytes"`
	SyncBytes   int64   `json:"sync_bytes"`  // page by page
	ChurnBytes  int64   `json:"churn_bytes"` // in files of 12 KiB
}

// Full is what `make bench` does, and Short what keeps it alive.
//
// The domU has as many vCPUs as the machine has processors.
//
// The emulated processor copies some 2 GiB of cached files per second, a third
// of what a real one does; the disk is as much slower than an SSD that shares
// its bandwidth among several domains. There is as little to do as still
// shows something: the host takes some seconds for each of the machine's.
var (
	Full = Settings{Workloads: Names, Repetitions: 5, Disk: Disk{64, 1500}, Sizes: Sizes{
		MemoryMiB: 768, VCPUs: 1, FileBytes: 64 << 20, SmallFiles: 20000, SmallBytes: 3000, DatabaseBytes: 16 << 20, RandomReads: 20000, Rows: 80000, Queries: 1500,
		WebFiles: 300, WebBytes: 64 << 10, Think: 0.04, Before: 10, After: 60, AfterOthers: 15, CachedPasses: 6,
		Stream: 1, BesideBytes: 32 << 20,
		WriteBytes: 16 << 20, SyncBytes: 256 << 10, ChurnBytes: 3 << 20,
	}}
	Short = Settings{Workloads: Names, Repetitions: 1, Disk: Disk{64, 1500}, Sizes: Sizes{
		MemoryMiB: 512, VCPUs: 1, FileBytes: 8 << 20, SmallFiles: 300, SmallBytes: 3000, DatabaseBytes: 4 << 20, RandomReads: 500, Rows: 2000, Queries: 100,
		WebFiles: 40, WebBytes: 64 << 10, Think: 0.02, Before: 1, After: 3, AfterOthers: 2, CachedPasses: 4,
		Stream: 1, BesideBytes: 8 << 20,
		WriteBytes: 2 << 20, SyncBytes: 64 << 10, ChurnBytes: 1 << 20,
	}}
)

func (s Settings) has(workload string) bool { return slices.Contains(s.Workloads, workload) }

// groups are the kinds of rounds that are run.
func (s Settings) groups() []string {
	var groups []string
	for _, w := range s.Workloads {
		if variantsOf[w] == nil {
			w = Recovery
		}
		if !slices.Contains(groups, w) {
			groups = append(groups, w)
		}
	}
	return groups
}

func (s Settings) check() error {
	for _, w := range s.Workloads {
		if !slices.Contains(Names, w) {
			return fmt.Errorf("unknown workload %q; there are %v", w, Names)
		}
	}
	if s.Repetitions < 1 || s.Disk.MiBPerSecond <= 0 || s.Disk.RequestsPerSecond <= 0 {
		return fmt.Errorf("nothing to do")
	}
	return nil
}

// rotated returns the variants, beginning with another one each time.
func rotated(variants []string, repetition int) []string {
	n := repetition % len(variants)
	return slices.Concat(variants[n:], variants[:n])
}
