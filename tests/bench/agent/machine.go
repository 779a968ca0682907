package main

import (
	"os"
	"runtime"
	"strings"
)

// machine is what the figures depend on.
type machine struct {
	Processor string `json:"processor"`
	Cores     int    `json:"cores"`
	Go        string `json:"go"`
	// LoadAverage is the kernel's, before the first measurement: how much else
	// was running.
	LoadAverage string `json:"load_average"`
}

func thisMachine(cores int) machine {
	m := machine{Cores: cores, Go: runtime.Version()}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for _, line := range strings.Split(string(info), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.Processor = strings.TrimSpace(value)
			break
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	m.LoadAverage = strings.TrimSpace(string(load))
	return m
}
