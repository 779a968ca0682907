// Package hand is what the fault injection does inside the machines of the lab.
// In the domU it is the only process: it makes the work during which the faults
// happen. In dom0 it supervises a run, and compares the pages that came back
// with the disk. All times are of the machine's own clock. The two talk over
// the domU's console. It is used by the fault injection only.
package hand

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
)

// Where things are.
const (
	Program      = "/tmp/faulthand"                    // in dom0 and in the domU: in memory, where no fault gets at it through the disk
	GuestProgram = "/usr/local/sbin/faulthand"         // the domU's init, which goes on as Program
	GuestModule  = "/usr/local/lib/faults.ko"          // the injector
	Pristine     = "/tmp/pristine"                     // in dom0: the Sum of each block of the disk, 8 bytes each
	inodesPath   = "/tmp/inodes.json"                  // in dom0: of the served files
	console      = "/var/log/xen/console/guest-%s.log" // in dom0: what a domU prints
)

// Order is what a run is to do.
type Order struct {
	Domain  string `json:"domain"`
	Served  string `json:"served"` // folders of files that are never written, separated by commas
	Work    string `json:"work"`   // folder that is written to
	Seen    string `json:"seen"`   // folder of served files that the guest compares with the disk
	Type    string `json:"type"`   // of the faults
	Seed    uint64 `json:"seed"`
	Faults  int    `json:"faults"`
	Seconds int    `json:"seconds"` // that the guest works, with the faults spread over the first half
}

// Main runs one of the subcommands. All but guest are for dom0, and take an
// Order as JSON.
//
//	guest          be the domU's init
//	prepare ORDER  fill the domU's cache
//	run ORDER      make a run; prints an Outcome as JSON
func Main(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 1 && args[0] == "guest" {
		return Guest()
	}
	if len(args) != 2 {
		return fmt.Errorf("want a command and an order")
	}
	var order Order
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
