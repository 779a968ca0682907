// Package hand is what the fault injection does in dom0: it supervises a run,
// and compares the pages that came back with the disk. In the domU package guest
// does the work. All times are of the machine's own clock.
package hand

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/warmreboot/warmreboot/tests/faults/guest"
)

// Where things are in dom0.
const (
	Program    = "/tmp/faulthand"
	Pristine   = "/tmp/pristine"                     // the Sum of each block of the disk, 8 bytes each
	inodesPath = "/tmp/inodes.json"                  // of the served files
	console    = "/var/log/xen/console/guest-%s.log" // what a domU prints
)

// Main runs one of the subcommands, which take a guest.Order as JSON.
//
//	prepare ORDER  fill the domU's cache
//	run ORDER      make a run; prints an Outcome as JSON
func Main(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 2 {
		return fmt.Errorf("want a command and an order")
	}
	var order guest.Order
	if err := json.Unmarshal([]byte(args[1]), &order); err != nil {
		return err
	}
	switch args[0] {
	case "prepare":
		return prepare(ctx, order)
	case "run":
		outcome, err := run(ctx, order)
		if err != nil {
			return err
		}
		return json.NewEncoder(out).Encode(outcome)
	}
	return fmt.Errorf("unknown command %q", args[0])
}
