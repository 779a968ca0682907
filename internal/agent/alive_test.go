package agent

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
)

// TestAlive: an agent of which one keeper is stuck is not alive, and says whose
// it is; it is alive again when that goes on.
func TestAlive(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		const limit = 3 * idleTick
		time.Sleep(limit)
		if err := a.Alive(limit); err != nil {
			t.Fatal(err)
		}
		hung := make(chan struct{}) // Xen does not answer
		goesOn := sync.OnceFunc(func() { close(hung) })
		t.Cleanup(goesOn)
		w.mu.Lock()
		w.slow = func() { <-hung }
		w.mu.Unlock()
		w.die(d, 0)
		time.Sleep(w.downTime + limit + 3*idleTick)
		if err := a.Alive(limit); err == nil || !strings.Contains(err.Error(), "domU-web") {
			t.Errorf("stuck: %v", err)
		}
		goesOn()
		time.Sleep(limit)
		if err := a.Alive(limit); err != nil {
			t.Errorf("does not come back to life: %v", err)
		}
	})(t)
}
