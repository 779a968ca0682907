package disk

import "testing"

func TestFirstEvent(t *testing.T) {
	const head = "# tracer: nop\n#\n# entries-in-buffer/entries-written: 1/1   #P:1\n"
	if got, err := firstEvent(head, "1.xvda-"); got != "" || err != nil {
		t.Errorf("empty trace: %q, %v", got, err)
	}
	const line = "              dd-501     [000] .....    93.118: block_bio_queue: 254,16 WS 800 + 8 [dd]\n"
	got, err := firstEvent(head+line+line, "1.xvda-")
	if want := "written to by another process: 254,16 WS 800 + 8 [dd]"; got != want || err != nil {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	const own = "        1.xvda-0-501     [000] .....    93.118: block_bio_queue: 254,16 WS 800 + 8 [1.xvda-0]\n"
	if got, err := firstEvent(head+own, "1.xvda-"); got != "" || err == nil {
		t.Errorf("the backend's own event: %q, %v", got, err)
	}
}
