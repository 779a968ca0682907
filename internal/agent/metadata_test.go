package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/cachemap"
)

// TestMetadataInFull: pages of no file have nobody else to look after them, so a sample
// has all of them, and one of them that is stale is always found.
func TestMetadataInFull(t *testing.T) {
	const pages, metadata = 50, 30
	for _, c := range []struct {
		policy  string
		checked uint64
		approve bool
	}{{"none", 0, true}, {"sample=1", metadata, false}, {"full", pages, false}} {
		for _, stale := range []int{0, metadata / 2, metadata - 1} {
			t.Run(fmt.Sprint(c.policy, " ", stale), bubble(func(t *testing.T) {
				w, a, d, _ := running(t, pages, api.Policy{Content: c.policy})
				w.mu.Lock()
				for p := range metadata { // of xvda, whose pages come first
					d.entries[p].Cookie = cachemap.File{Index: uint32(p)}.Cookie()
				}
				w.disks[xvda].data[stale*4096]++
				w.mu.Unlock()
				s, err := a.Reboot(ctx(t, 20*time.Second), "domU-web", api.Graceful)
				if err != nil {
					t.Fatal(err)
				}
				if v := vbd(t, s, xvda); v.Checked != c.checked || (v.Verdict == "approved") != c.approve || !c.approve && v.Mismatches != 1 {
					t.Errorf("%+v", v)
				}
			}))
		}
	}
}
