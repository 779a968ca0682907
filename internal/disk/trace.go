package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// tracefs is where the kernel's tracing is, tracePrefix how our own instances
// in it are named.
const (
	tracefs     = "/sys/kernel/tracing"
	tracePrefix = "warmreboot-"
)

// Trace notices every write, discard and the like to a block device that is
// not the guest's: a kernel tracing instance of our own records the requests
// that somebody else than the backend's thread submits. Nothing is recorded,
// and next to nothing spent, while there are none.
//
// The instance stays when the agent ends, so that one that is started again
// finds what happened meanwhile.
type Trace struct {
	dir    string
	own    string // what the backend's threads are called, up to the ring
	fresh  bool
	filter func() (string, error) // as it should be now

	mu            sync.Mutex
	doubt, breach string
}

// Trace starts tracing writes to a block device by others than a backend, or
// finds the trace that is on already. ErrUnsupported if the backing is no
// block device used by blkback.
func (b Backing) Trace(be Backend) (*Trace, error) {
	if b.device == "" || be.Kind != "vbd" || be.DevName == "" {
		return nil, fmt.Errorf("trace of %s: %w", b.Name, ErrUnsupported)
	}
	if _, err := os.Stat(filepath.Join(tracefs, "instances")); errors.Is(err, fs.ErrNotExist) {
		if err := unix.Mount("nodev", tracefs, "tracefs", 0, ""); err != nil {
			return nil, fmt.Errorf("mount tracefs: %w", err)
		}
	}
	filter, err := b.traceFilter(be)
	if err != nil {
		return nil, err
	}
	t := &Trace{dir: filepath.Join(tracefs, "instances", fmt.Sprintf("%s%d-%d", tracePrefix, be.Domid, be.VBD)), own: threadName(be),
		filter: func() (string, error) { return b.traceFilter(be) }}
	event := t.event()
	if t.isOn(event, filter) {
		return t, nil
	}
	_ = os.Remove(t.dir)
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		return nil, err
	}
	for _, w := range []struct{ file, value string }{
		{filepath.Join(t.dir, "buffer_size_kb"), "16"},
		{filepath.Join(event, "filter"), filter},
		{filepath.Join(event, "enable"), "1"},
		{filepath.Join(t.dir, "tracing_on"), "1"},
	} {
		if err := os.WriteFile(w.file, []byte(w.value), 0); err != nil {
			t.Close()
			return nil, err
		}
	}
	if !t.isOn(event, filter) {
		t.Close()
		return nil, fmt.Errorf("trace of %s: the kernel did not take it", b.Name)
	}
	t.fresh = true
	return t, nil
}

func threadName(be Backend) string { return fmt.Sprintf("%d.%s-", be.Domid, be.DevName) }

// traceFilter selects the requests of others. The backend's threads are named
// "<domid>.<device>-<ring>"; flushes, which write nothing of their own, have no
// sectors. Partitions have device numbers of their own.
func (b Backing) traceFilter(be Backend) (string, error) {
	dir := filepath.Join(b.sys.Sys, "dev/block", b.device)
	devices := []string{b.device}
	for _, pattern := range []string{filepath.Join(dir, "*/partition"), filepath.Join(dir, "partition")} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		for _, p := range found {
			other := filepath.Join(filepath.Dir(p), "dev") // of a partition of it
			if pattern == filepath.Join(dir, "partition") {
				real, err := filepath.EvalSymlinks(dir)
				if err != nil {
					return "", err
				}
				other = filepath.Join(filepath.Dir(real), "dev") // of the disk it is on
			}
			raw, err := os.ReadFile(other)
			if err != nil {
				return "", err
			}
			devices = append(devices, strings.TrimSpace(string(raw)))
		}
	}
	thread := threadName(be)
	if len(thread) > 15 { // of which the kernel would cut off the end
		return "", fmt.Errorf("trace of %s: thread name %s*: %w", b.Name, thread, ErrUnsupported)
	}
	// A pattern that begins with a digit is taken for something else: put the
	// digit into brackets.
	pattern := "[" + thread[:1] + "]" + thread[1:] + "*"
	var terms []string
	for _, d := range devices {
		var major, minor uint32
		if _, err := fmt.Sscanf(d, "%d:%d", &major, &minor); err != nil {
			return "", fmt.Errorf("device number %q: %w", d, err)
		}
		terms = append(terms, fmt.Sprintf("dev == %d", major<<20|minor))
	}
	// All that is no read: the kernel has no letter for requests that write
	// zeroes, and may get others.
	return fmt.Sprintf(`(%s) && nr_sector > 0 && !(rwbs ~ "R*" || rwbs ~ "FR*") && !(comm ~ "%s")`,
		strings.Join(terms, " || "), pattern), nil
}

func (t *Trace) event() string { return filepath.Join(t.dir, "events/block/block_bio_queue") }

// Holds returns why the trace cannot be trusted to have recorded all: it was
// tampered with, or there are partitions now that were not there when it began.
func (t *Trace) Holds() error {
	filter, err := t.filter()
	if err != nil {
		return err
	}
	if !t.isOn(t.event(), filter) {
		return fmt.Errorf("%s: not on, or not for all of the disk's partitions", t.dir)
	}
	return nil
}

// Fresh reports whether the trace was started by this process: what happened
// before is not in it.
func (t *Trace) Fresh() bool { return t.fresh }

func (t *Trace) isOn(event, filter string) bool {
	have, err1 := os.ReadFile(filepath.Join(event, "filter"))
	on, err2 := os.ReadFile(filepath.Join(event, "enable"))
	running, err3 := os.ReadFile(filepath.Join(t.dir, "tracing_on"))
	return errors.Join(err1, err2, err3) == nil && strings.TrimSpace(string(have)) == filter &&
		strings.HasPrefix(string(on), "1") && strings.HasPrefix(string(running), "1")
}

// Ask returns what is known by now: breach is the first request of somebody else,
// doubt that a worker of the kernel has written, which does so for others; both "" if
// there is neither, and an error if it can no longer be told.
func (t *Trace) Ask() (doubt, breach string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.breach != "" {
		return t.doubt, t.breach, nil
	}
	// Reading "trace" consumes nothing. The ring keeps the last requests; the
	// first of those that are left will do.
	raw, err := os.ReadFile(filepath.Join(t.dir, "trace"))
	if err != nil {
		return t.doubt, "", err
	}
	doubt, t.breach, err = others(string(raw), t.own)
	if t.doubt == "" {
		t.doubt = doubt
	}
	return t.doubt, t.breach, err
}

// others returns what the requests of a trace say; an error if there is one of the
// backend's own, which the filter should have kept out: others may have been lost
// among them.
//
// A worker submits what somebody else has asked for: the guest, if dom0 throttles
// the backend (blk-throttle holds its requests back), or a process that has written
// to dom0's page cache. The trace cannot tell which, but the counters can.
func others(trace, own string) (doubt, breach string, err error) {
	for line := range strings.SplitSeq(trace, "\n") {
		_, event, ok := strings.Cut(line, "block_bio_queue: ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		by := event[strings.LastIndexByte(event, '[')+1:]
		switch {
		case strings.Contains(event, "["+own):
			return doubt, breach, fmt.Errorf("the trace does not filter: %s", event)
		case strings.HasPrefix(by, "kworker/"):
			if doubt == "" {
				doubt = "written to by a worker of dom0's kernel, for the guest (which is throttled) or for somebody else: " + event
			}
		case breach == "":
			breach = "written to by another process: " + event
		}
	}
	return doubt, breach, nil
}

// Close ends the trace and forgets what it recorded.
func (t *Trace) Close() error {
	_ = os.WriteFile(filepath.Join(t.event(), "enable"), []byte("0"), 0)
	return os.Remove(t.dir)
}

// CloseTraces ends all traces of this program but those that keep says are
// still wanted.
func CloseTraces(keep func(domid, vbd uint32) bool) error {
	dirs, err := filepath.Glob(filepath.Join(tracefs, "instances", tracePrefix+"*"))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		var domid, vbd uint32
		if n, _ := fmt.Sscanf(filepath.Base(d), tracePrefix+"%d-%d", &domid, &vbd); n == 2 && keep(domid, vbd) {
			continue
		}
		err = errors.Join(err, (&Trace{dir: d}).Close())
	}
	return err
}
