package health

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestBothStreams: what comes on both streams at once is kept without damage.
// The race detector sees it if they share anything without a lock.
func TestBothStreams(t *testing.T) {
	out, output, err := Command(context.Background(), []string{"/bin/sh", "-c",
		"i=0; while [ $i -lt 300 ]; do echo out; i=$((i+1)); done & i=0; while [ $i -lt 300 ]; do echo err >&2; i=$((i+1)); done; wait"}, nil, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if out != strings.TrimSpace(strings.Repeat("out\n", 300)) {
		t.Errorf("stdout has %d bytes", len(out))
	}
	if n, m := strings.Count(output, "out"), strings.Count(output, "err"); n != 300 || m != 300 {
		t.Errorf("%d lines of one stream, %d of the other", n, m)
	}
}
