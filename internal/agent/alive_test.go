package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
)

// TestAlive: an agent of which one keeper is stuck is not alive, and says whose
// it is; it is alive again when that goes on.
func TestAlive(t *testing.T) {
	t.Parallel()
	w, a, _, _ := running(t, 20, api.Policy{})
	const limit = 3 * idleTick
	if err := a.Alive(limit); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()                    // Xen does not answer
	time.Sleep(limit + 3*idleTick) // it may have begun a step just now
	err := a.Alive(limit)
	w.mu.Unlock()
	if err == nil || !strings.Contains(err.Error(), "domU-web") {
		t.Errorf("stuck: %v", err)
	}
	for end := time.Now().Add(20 * time.Second); a.Alive(limit) != nil; {
		if time.Now().After(end) {
			t.Fatal("does not come back to life")
		}
		time.Sleep(10 * time.Millisecond)
	}
}
