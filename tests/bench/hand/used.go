package hand

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Used is what has been used so far, as dom0 sees it.
type Used struct {
	Xen
	Agent float64         // seconds of processor time of warmrebootd
	Disks map[string]Read // by dom0's names: its own, the domUs', and loop devices on them
}

// Read is what was read from a disk.
type Read struct{ Requests, Bytes float64 }

// agentName is the process that is looked for, clockTick what /proc counts its
// time in, in seconds (USER_HZ).
const (
	agentName = "warmrebootd"
	clockTick = 0.01
)

// AskUsed is for dom0.
func AskUsed() (Used, error) {
	xen, err := AskXen()
	if err != nil {
		return Used{}, err
	}
	u := Used{Xen: xen}
	processes, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return Used{}, err
	}
	for _, p := range processes {
		if raw, err := os.ReadFile(p); err == nil { // else it has ended
			u.Agent += processTime(string(raw), agentName)
		}
	}
	raw, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		return Used{}, err
	}
	u.Disks, err = diskReads(string(raw))
	return u, err
}

// Since is what was used since an earlier moment, by name. Of a domain that was
// destroyed meanwhile nobody knows; all others but dom0 are together.
func (u Used) Since(was Used) map[string]float64 {
	d := map[string]float64{"agent_cpu_seconds": u.Agent - was.Agent}
	for domid, now := range u.Processor {
		who := "domU_cpu_seconds"
		if domid == "0" {
			who = "dom0_cpu_seconds"
		}
		d[who] += now - was.Processor[domid]
	}
	for name, now := range u.Disks {
		d[name+"_requests"], d[name+"_bytes"] = now.Requests-was.Disks[name].Requests, now.Bytes-was.Disks[name].Bytes
	}
	return d
}

// processTime parses /proc/PID/stat (proc_pid_stat(5)), and returns the time of
// a process with that name; 0 of another one.
func processTime(stat, name string) (seconds float64) {
	_, rest, _ := strings.Cut(stat, " ("+name+") ")
	if f := strings.Fields(rest); len(f) > 12 {
		user, err1 := strconv.ParseUint(f[11], 10, 64)
		system, err2 := strconv.ParseUint(f[12], 10, 64)
		if err1 == nil && err2 == nil {
			return float64(user+system) * clockTick
		}
	}
	return 0
}

// diskReads parses /proc/diskstats (Documentation/admin-guide/iostats.rst).
// Disks that nobody has read are left out.
func diskReads(text string) (map[string]Read, error) {
	all := make(map[string]Read)
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 6 {
			return nil, fmt.Errorf("/proc/diskstats: %q", line)
		}
		requests, err1 := strconv.ParseUint(f[3], 10, 64)
		sectors, err2 := strconv.ParseUint(f[5], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("/proc/diskstats: %w", err)
		}
		if requests > 0 {
			all[f[2]] = Read{float64(requests), float64(sectors) * 512}
		}
	}
	return all, nil
}
