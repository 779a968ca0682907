package xenctl

import (
	"errors"

	"github.com/warmreboot/warmreboot/ident"
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

// ProbeWarmcache asks Xen whether it has the warm cache, by using it: it asks
// for the first image. Version numbers are not looked at. With Unknown, err
// says why it could not be told.
func (h *Handle) ProbeWarmcache() (Feature, error) {
	_, err := h.image(ident.UUID{}, 0)
	switch {
	case err == nil, errors.Is(err, ErrNoImage):
		return Yes, nil
	case errors.Is(err, ErrNotSupported):
		return No, nil
	}
	return Unknown, err
}
