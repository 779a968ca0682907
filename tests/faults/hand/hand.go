// Package hand is what the fault injection does inside the machines of the lab:
// in the domU it makes the work during which the faults happen; in dom0 it
// compares the pages that came back with the disk. It is used by the fault
// injection only.
package hand

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Program is where the hand lies in dom0 and in the domU: in memory, so that
// no fault can reach it through the disk.
const Program = "/tmp/faulthand"

// Main runs one of the subcommands. Each but work prints one JSON object.
//
//	prepare ROOT WORK            create the files below WORK, read those below ROOT
//	work ROOT WORK SEED SECONDS  Work
//	pages DOMID PRISTINE INODES  Pages; INODES is a file of its own
func Main(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("no command")
	}
	command, args := args[0], args[1:]
	if need := map[string]int{"prepare": 2, "work": 4, "pages": 3}[command]; len(args) != need {
		return fmt.Errorf("%s: wants %d arguments", command, need)
	}
	switch command {
	case "prepare":
		return printJSON(out)(Prepare(args[0], args[1]))
	case "work":
		seed, err := strconv.ParseUint(args[2], 10, 64)
		if err != nil {
			return err
		}
		seconds, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		return Work(args[0], args[1], seed, time.Duration(seconds)*time.Second)
	case "pages":
		domid, err := strconv.ParseUint(args[0], 10, 16)
		if err != nil {
			return err
		}
		return printJSON(out)(pages(ctx, uint16(domid), args[1], args[2]))
	}
	return fmt.Errorf("unknown command %q", command)
}

func printJSON(out io.Writer) func(value any, err error) error {
	return func(value any, err error) error {
		if err != nil {
			return err
		}
		return json.NewEncoder(out).Encode(value)
	}
}
