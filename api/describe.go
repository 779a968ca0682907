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
