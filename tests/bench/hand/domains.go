package hand

import (
	"errors"
	"strconv"

	"github.com/warmreboot/warmreboot/xenctl"
)

// Domains returns the processor time that Xen says each domain has used, in
// seconds, by domid. Time in hypercalls and faults is its caller's.
func Domains() (map[string]float64, error) {
	xen, err := xenctl.Open()
	if err != nil {
		return nil, err
	}
	all, err := xen.Domains()
	used := make(map[string]float64, len(all))
	for _, d := range all {
		used[strconv.Itoa(int(d.Domid))] = float64(d.CPUTime) / 1e9
	}
	return used, errors.Join(err, xen.Close())
}
