package disk

import (
	"testing"

	"github.com/warmreboot/warmreboot/xenctl"
)

// TestTraceJudges: who may have been the guest, and who not.
func TestTraceJudges(t *testing.T) {
	const (
		head    = "# tracer: nop\n#\n# entries-in-buffer/entries-written: 1/1   #P:1\n"
		line    = "              dd-501     [000] .....    93.118: block_bio_queue: "
		dd      = "254,16 WS 800 + 8 [dd]"
		worker  = "254,16 WS 800 + 8 [kworker/0:1]"
		written = "written to by another process: "
	)
	whole := &Trace{name: "xvda", own: "1.xvda-", device: "254,16"}
	partition := &Trace{name: "xvda", own: "1.xvda-"} // its counters do not have all
	for name, c := range map[string]struct {
		of              *Trace
		events          []string
		successor       xenctl.Domid
		unclear, breach string
		fails           bool
	}{
		"empty":                                     {of: whole},
		"a process":                                 {of: whole, events: []string{dd, dd}, breach: written + dd},
		"the backend itself":                        {of: whole, events: []string{dd[:18] + " [1.xvda-0]"}, fails: true},
		"a kernel worker":                           {of: whole, events: []string{worker, worker}, unclear: worker},
		"with a flush before":                       {of: whole, events: []string{"254,16 FWFS 800 + 8 [kworker/u8:3]"}, unclear: "254,16 FWFS 800 + 8 [kworker/u8:3]"},
		"and then a process":                        {of: whole, events: []string{worker, dd}, unclear: worker, breach: written + dd},
		"a kernel worker, a partition":              {of: partition, events: []string{worker}, breach: written + worker},
		"a kernel worker, to another device":        {of: whole, events: []string{"254,17 WS 800 + 8 [kworker/0:1]"}, breach: written + "254,17 WS 800 + 8 [kworker/0:1]"},
		"a kernel worker discards":                  {of: whole, events: []string{"254,16 DS 800 + 8 [kworker/0:1]"}, breach: written + "254,16 DS 800 + 8 [kworker/0:1]"},
		"a kernel worker writes zeroes":             {of: whole, events: []string{"254,16 N 800 + 8 [kworker/0:1]"}, breach: written + "254,16 N 800 + 8 [kworker/0:1]"},
		"the successor":                             {of: whole, events: []string{"254,16 WS 800 + 8 [2.xvda-0]"}, successor: 2, unclear: "254,16 WS 800 + 8 [2.xvda-0]"},
		"another disk of the successor's":           {of: whole, events: []string{"254,16 WS 800 + 8 [2.xvdb-0]"}, successor: 2, breach: written + "254,16 WS 800 + 8 [2.xvdb-0]"},
		"another domain":                            {of: whole, events: []string{"254,16 WS 800 + 8 [3.xvda-0]"}, successor: 2, breach: written + "254,16 WS 800 + 8 [3.xvda-0]"},
		"one whose domid begins alike":              {of: whole, events: []string{"254,16 WS 800 + 8 [21.xvda-0]"}, successor: 2, breach: written + "254,16 WS 800 + 8 [21.xvda-0]"},
		"another domain, there is no successor":     {of: whole, events: []string{"254,16 WS 800 + 8 [2.xvda-0]"}, breach: written + "254,16 WS 800 + 8 [2.xvda-0]"},
		"a name in which there is a kernel worker":  {of: whole, events: []string{"254,16 WS 800 + 8 [a kworker/0:1]"}, breach: written + "254,16 WS 800 + 8 [a kworker/0:1]"},
		"something else than a request is recorded": {of: whole, events: []string{"?"}, breach: written + "?"},
	} {
		trace := head
		for _, e := range c.events {
			trace += line + e + "\n"
		}
		unclear, breach, err := c.of.judge(trace, c.successor)
		if unclear != c.unclear || breach != c.breach || (err != nil) != c.fails {
			t.Errorf("%s: unclear %q, breach %q, %v", name, unclear, breach, err)
		}
	}
}
