package agent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/reboot"
	"github.com/warmreboot/warmreboot/xenctl"
)

// TestImpatientCallers: whoever asks and hangs up at any moment leaves no trace in
// what the agent does: the reboot beside it is warm, with custody certain.
func TestImpatientCallers(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(context.Context, *Agent){
		"status": func(c context.Context, a *Agent) { _, _ = a.Status(c, "domU-web", true) },
		"plan":   func(c context.Context, a *Agent) { _, _ = a.Plan(c, "domU-web", api.Force) },
		"enable": func(c context.Context, a *Agent) { _, _ = a.Enable(c, "domU-web", api.Policy{}) },
		"reboot": func(c context.Context, a *Agent) { _, _ = a.Reboot(c, "domU-web", api.Graceful) },
	} {
		t.Run(name, bubble(func(t *testing.T) {
			w, a, d, _ := running(t, 20, api.Policy{})
			time.Sleep(100 * time.Millisecond)
			w.store.Late(func(path string) {
				if strings.HasPrefix(path, "/local/domain/0/backend/") { // which keepers alone ask for
					t.Errorf("a keeper reads %s for somebody who has hung up", path)
				}
			})
			defer w.store.Late(nil) // when it stops
			w.mu.Lock()
			w.slow = func() { time.Sleep(400 * time.Microsecond) } // in which they may
			w.mu.Unlock()
			w.set(&w.deaf, true) // once it is back it is not to go again
			w.die(d, xenctl.ShutdownCrash)
			done := make(chan struct{})
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for n := i; ; n++ {
						select {
						case <-done:
							return
						default:
						}
						// From one that has ended to one that is long enough.
						c, cancel := context.WithTimeout(context.Background(), time.Duration(n%7)*time.Millisecond/2)
						ask(c, a)
						cancel()
						time.Sleep(time.Millisecond)
					}
				}()
			}
			s := status(t, a)
			close(done)
			wg.Wait()
			if s.Last == nil || s.Last.Outcome != "warm" || s.Last.PagesApproved != 40 || s.Last.Sequence != 1 {
				t.Fatalf("%+v", s.Last)
			}
			for _, v := range s.Last.VBDs {
				if v.Custody != "certain" {
					t.Errorf("%+v", v)
				}
			}
		}))
	}
}

// TestDisksAreLookedForAgain: that xenstore fails once costs nothing, also without
// an event afterwards.
func TestDisksAreLookedForAgain(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{Uncertain: "refuse"})
		time.Sleep(100 * time.Millisecond)
		w.die(d, xenctl.ShutdownCrash)
		failed := false
		w.store.Fail(func(path string) error {
			if strings.HasPrefix(path, "/local/domain/0/backend/vbd/2") && !failed {
				failed = true
				return errors.New("resource temporarily unavailable")
			}
			return nil
		})
		s := status(t, a)
		w.store.Fail(nil)
		if !failed || s.Last == nil || s.Last.Outcome != "warm" || s.Last.PagesApproved != 40 {
			t.Fatalf("failed: %v, %+v", failed, s.Last)
		}
	})(t)
}

// TestHangsUp: a cold reboot that was asked for is a cold one, although the one who
// asked did not wait until the guest had gone.
func TestHangsUp(t *testing.T) {
	bubble(func(t *testing.T) {
		w, a, d, _ := running(t, 20, api.Policy{})
		w.set(&w.deaf, true)
		if s, err := a.Reboot(ctx(t, 50*time.Millisecond), "domU-web", api.Cold); code(err) != api.TimedOut {
			t.Fatalf("%+v, %v", s, err)
		}
		w.load(d, 20) // until it is down, it works on
		w.die(d, xenctl.ShutdownReboot)
		a.Wake()
		soon(t, w, a, "it is back", func() bool { return len(w.domains) == 1 && w.domains[0].info.Domid == 2 })
		s := status(t, a)
		if s.Last == nil || s.Last.Trigger != api.Cold || s.Last.By != api.ByOperator || s.Last.PagesRestored != 0 {
			t.Errorf("%+v", s.Last)
		}
	})(t)
}

// TestStopped: an agent that is stopping keeps no further domain, whoever asks at
// that moment.
func TestStopped(t *testing.T) {
	bubble(func(t *testing.T) {
		w := newWorld(t)
		a := w.agent("kept")
		for i := range 20 {
			w.mu.Lock()
			w.create("", ident.UUID{byte(i + 1)})
			w.mu.Unlock()
		}
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				_, err := a.Enable(ctx(t, 10*time.Second), ident.UUID{byte(i + 1)}.String(), api.Policy{})
				if err != nil && code(err) != api.Failed {
					t.Error(err)
				}
			}()
		}
		a.Stop()
		wg.Wait()
		// No goroutine begins that Stop, which may be waiting, would have to wait for.
		if _, err := a.keep(&Record{State: reboot.State{UUID: webUUID}}); code(err) != api.Failed {
			t.Errorf("one more: %v", err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.keepers) != 0 {
			t.Errorf("%d domains are still kept", len(a.keepers))
		}
	})(t)
}
