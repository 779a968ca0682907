package agent

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl"
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

// TestSlowDisk: a disk that takes minutes to write out what dom0 has of it is no agent
// that is stuck, and there is a verdict when it has.
func TestSlowDisk(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		const limit = 90 * time.Second // a half of the unit's WatchdogSec
		written := make(chan struct{})
		ends := sync.OnceFunc(func() { close(written) })
		t.Cleanup(ends)
		w.mu.Lock()
		w.flush = func() { <-written }
		w.mu.Unlock()
		time.Sleep(time.Second)
		w.die(d, xenctl.ShutdownReboot)
		for range 5 {
			time.Sleep(time.Minute)
			if err := a.Alive(limit); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := a.Status(ctx(t, time.Minute), "domU-web", false); err != nil || s.Current == nil {
			t.Errorf("%+v, %v", s, err)
		}
		ends()
		time.Sleep(2 * time.Second)
		if s, err := a.Status(ctx(t, time.Minute), "domU-web", false); err != nil || s.Current == nil || s.Current.PagesApproved != 40 {
			t.Errorf("%+v, %v", s, err)
		}
	})(t)
}

// TestWakeOf: what happens to one domain's disks is no reason to look at another's.
func TestWakeOf(t *testing.T) {
	a := &Agent{Options: Options{Log: testLog(t)}, keepers: map[ident.UUID]*keeper{}}
	for i, s := range []api.DomainStatus{{Domid: 7}, {Domid: 8}, {}, {Domid: 9, Current: &api.Summary{}}} {
		k := newKeeper(a, &Record{})
		k.shown = s
		a.keepers[ident.UUID{byte(i)}] = k
	}
	for _, c := range []struct {
		wake func()
		want string
	}{
		{func() { a.WakeOf([]ident.Domid{7, 70}) }, "7 0 9"},
		{func() { a.WakeOf(nil) }, "0 9"},
		{a.Wake, "7 8 0 9"},
	} {
		c.wake()
		var woken []string
		for i := range byte(4) {
			k := a.keepers[ident.UUID{i}]
			select {
			case <-k.wake:
				woken = append(woken, fmt.Sprint(k.shown.Domid))
			default:
			}
		}
		if got := strings.Join(woken, " "); got != c.want {
			t.Errorf("woken: %s, want %s", got, c.want)
		}
	}
}
