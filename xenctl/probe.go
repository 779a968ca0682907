package xenctl

import (
	"errors"

	"github.com/warmreboot/warmreboot/xenctl/internal/abi"
)

// Feature is the answer to whether Xen can do something.
type Feature int

// Answers. A caller that gets Unknown must not conclude either way.
const (
	Unknown Feature = iota
	No
	Yes
)

func (f Feature) String() string {
	switch f {
	case No:
		return "no"
	case Yes:
		return "yes"
	}
	return "cannot tell"
}

// ProbeWarmcache asks Xen whether it has the warm cache, by an operation whose
// answer no other one gives: a Xen may have assigned its number to something
// else. Version numbers of Xen are not looked at. With Unknown, err says why it
// could not be told.
func (h *Handle) ProbeWarmcache() (Feature, error) {
	arg := abi.DomctlWarmcacheProbe{Cmd: abi.WarmcacheProbe, Version: version}
	err := domctl(h, abi.DomctlWarmcache, abi.DomidInvalid, &arg)
	return probed(arg.Magic, wrap(err, imageErrors, "warmcache_probe", ""))
}

// probed is what an answer to the probe means.
func probed(magic uint64, err error) (Feature, error) {
	switch {
	case err == nil && magic == abi.WarmcacheMagic:
		return Yes, nil
	case err == nil, errors.Is(err, ErrNotSupported):
		return No, nil
	}
	return Unknown, err
}
