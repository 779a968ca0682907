package api

// Cache is the warm cache of a domain in two words.
func (s DomainStatus) Cache() string {
	switch {
	case !s.Enabled && !s.Managed:
		return "off"
	case s.State == "down":
		return "preserved"
	case !s.Enabled:
		return "not in Xen"
	case !s.Attached:
		return "on, not tracked"
	case !s.Armed:
		return "on, not armed"
	}
	return "on"
}

// Coverage is the share of the domain's memory that is reusable, in percent.
func (s DomainStatus) Coverage() float64 {
	if s.MemoryPages == 0 {
		return 0
	}
	return 100 * float64(s.Committed) / float64(s.MemoryPages)
}

// InForce says which configuration is, where the files are wrong: what was read before,
// or nothing at all if they were so when the daemon was started.
func (c ConfigStatus) InForce() string {
	if c.Loaded.IsZero() {
		return "none is in force: no schedule is done, and no window, group or limit is obeyed"
	}
	return "that of " + c.Loaded.Local().Format("2006-01-02 15:04:05 MST") + " is in force"
}
