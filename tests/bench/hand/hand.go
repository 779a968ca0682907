// Package hand is what the benchmark does inside dom0 and the domU: it makes
// files, reads and writes them, asks a web server for them, and says what that
// took. Times are those of the machine it runs in.
package hand

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Main runs one of the hand's subcommands; each prints one JSON object.
//
//	make ROOT COUNT BYTES       Make
//	pass ROOT COUNT DISK        Pass: each file, in order, so often
//	stat ROOT DISK              Stat
//	fill ROOT                   Fill: has all files cached
//	evict ROOT                  Evict: no file is cached any more
//	random PATH COUNT SEED DISK Random: pages of one file, in no order
//	write NAME ROOT BYTES DISK  Write
//	database PATH ROWS          MakeDatabase
//	query PATH ROWS COUNT SEED DISK  Query
//	stream DEVICE MILLISECONDS  Stream
//	loop-direct DEVICE          LoopDirect, in dom0 only
//	memcpy PAGES                Memcpy
//	sleep MILLISECONDS          nothing
//	run COMMAND ...             a command of the machine, for what it prints
//	serve                       Serve
//	steps JSON                  Plan, in dom0 only
//	xen                         AskXen, in dom0 only
//	spread DOMID                SpreadOf, in dom0 only
//	memory                      MemoryTotal
//	await ADDRESS SECONDS       Await
//	drive JSON                  Drive: a web server's clients, during a reboot
func Main(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("no command")
	}
	command, args := args[0], args[1:]
	if need := map[string]int{"make": 3, "pass": 3, "stat": 2, "evict": 1, "fill": 1, "random": 4, "write": 4, "database": 2, "query": 5, "stream": 2, "loop-direct": 1, "memcpy": 1, "sleep": 1, "steps": 1, "spread": 1, "await": 2, "drive": 1}[command]; command != "run" && len(args) != need {
		return fmt.Errorf("%s: want %d arguments", command, need)
	}
	value, err := perform(ctx, command, args)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(value)
}

func perform(ctx context.Context, command string, args []string) (any, error) {
	var numbers []int64
	for _, arg := range args {
		n, _ := strconv.ParseInt(arg, 10, 64) // a name is 0, which no number may be
		numbers = append(numbers, n)
	}
	switch command {
	case "make":
		return struct{}{}, Make(args[0], numbers[1], numbers[2])
	case "pass":
		return Pass(args[0], numbers[1], args[2])
	case "stat":
		return Stat(args[0], args[1])
	case "fill":
		return struct{}{}, Fill(args[0])
	case "evict":
		return struct{}{}, Evict(args[0])
	case "random":
		return Random(args[0], numbers[1], uint64(numbers[2]), args[3])
	case "write":
		return Write(args[0], args[1], numbers[2], args[3])
	case "database":
		return struct{}{}, MakeDatabase(args[0], numbers[1])
	case "query":
		return Query(args[0], numbers[1], numbers[2], uint64(numbers[3]), args[4])
	case "stream":
		return Stream(args[0], float64(numbers[1])/1000)
	case "loop-direct":
		return struct{}{}, LoopDirect(args[0])
	case "memcpy":
		return Memcpy(numbers[0])
	case "sleep":
		time.Sleep(time.Duration(numbers[0]) * time.Millisecond)
		return struct{}{}, nil
	case "run":
		return run(ctx, args)
	case "serve":
		return nil, Serve(ctx)
	case "steps":
		var p Plan
		if err := json.Unmarshal([]byte(args[0]), &p); err != nil {
			return nil, err
		}
		return p.Run(ctx)
	case "xen":
		return AskXen()
	case "spread":
		return SpreadOf(numbers[0])
	case "await":
		return struct{}{}, Await(ctx, args[0], time.Duration(numbers[1])*time.Second)
	case "memory":
		return MemoryTotal()
	case "drive":
		var d Drive
		if err := json.Unmarshal([]byte(args[0]), &d); err != nil {
			return nil, err
		}
		return d.Run(ctx)
	}
	return nil, fmt.Errorf("unknown command %q", command)
}
