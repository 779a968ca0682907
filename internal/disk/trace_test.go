package disk

import (
	"strings"
	"testing"
)

func TestOthers(t *testing.T) {
	const (
		head   = "# tracer: nop\n#\n# entries-in-buffer/entries-written: 1/1   #P:1\n"
		dd     = "              dd-501     [000] .....    93.118: block_bio_queue: 254,16 WS 800 + 8 [dd]\n"
		dd2    = "              dd-501     [000] .....    93.119: block_bio_queue: 254,16 WS 808 + 8 [dd]\n"
		worker = "     kworker/0:1-12      [000] .....    93.118: block_bio_queue: 254,16 WS 800 + 8 [kworker/0:1]\n"
		own    = "        1.xvda-0-501     [000] .....    93.118: block_bio_queue: 254,16 WS 800 + 8 [1.xvda-0]\n"

		isDD     = "written to by another process: 254,16 WS 800 + 8 [dd]"
		isWorker = "written to by a worker of dom0's kernel"
	)
	for _, c := range []struct{ name, trace, doubt, breach, err string }{
		{"empty", head, "", "", ""},
		{"a process", head + dd + dd2, "", isDD, ""},
		{"a worker", head + worker + worker, isWorker, "", ""},
		{"a process among a worker's", head + worker + dd + worker, isWorker, isDD, ""},
		{"the backend itself", head + own, "", "", "does not filter"},
	} {
		doubt, breach, err := others(c.trace, "1.xvda-")
		if !strings.HasPrefix(doubt, c.doubt) || (doubt == "") != (c.doubt == "") || breach != c.breach ||
			(err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %q, %v", c.name, doubt, breach, err)
		}
	}
}
