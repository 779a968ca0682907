// Package proc reads what the kernel tells of processes (proc_pid_stat(5)).
package proc

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// TicksPerSecond is USER_HZ.
const TicksPerSecond = 100

// Time is the processor time that a process has used, in seconds.
func Time(pid int) (float64, error) {
	fields, err := read(pid)
	if err != nil {
		return 0, err
	}
	return used(fields)
}

// Start is field 22, which tells a process from a later one with the same number;
// fs.ErrNotExist if it has ended.
func Start(pid int) (uint64, error) {
	fields, err := read(pid)
	if err != nil {
		return 0, err
	}
	if fields[0] == "Z" {
		return 0, fs.ErrNotExist
	}
	var start uint64
	_, err = fmt.Sscan(fields[19], &start)
	return start, err
}

func read(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	return split(text)
}

// split returns the fields of /proc/PID/stat from the third on.
func split(text []byte) ([]string, error) {
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return nil, fs.ErrNotExist
	}
	return fields, nil
}

func used(fields []string) (float64, error) {
	var user, system int64
	_, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	return float64(user+system) / TicksPerSecond, err
}
