package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/toolstack"
)

type fakeOwner toolstack.Owner

func (f *fakeOwner) Ends(ident.Domid, ident.UUID) (toolstack.Ends, error) {
	return toolstack.Ends{Poweroff: "destroy", Reboot: f.OnReboot, Crash: f.OnReboot, Watchdog: f.OnReboot}, nil
}

func (f *fakeOwner) Owner(ident.Domid, ident.UUID, string) (toolstack.Owner, error) {
	return toolstack.Owner(*f), nil
}

// TestWouldNotComeBack: a domain that would not come back is not taken down, in
// whatever way; one that would is.
func TestWouldNotComeBack(t *testing.T) {
	bubble(func(t *testing.T) {
		w := newWorld(t)
		owner := &fakeOwner{Toolstack: toolstack.Libvirt}
		a := w.start("kept", func(o *Options) { o.Owners = owner })
		w.create("domU-web", webUUID)
		if _, err := a.Enable(ctx(t, 5*time.Second), "domU-web", api.Policy{}); err != nil {
			t.Fatal(err)
		}
		s, err := a.Status(ctx(t, 5*time.Second), "domU-web", false)
		if err != nil || s.Toolstack != "libvirt" {
			t.Fatalf("%+v, %v", s, err)
		}
		for _, mode := range []api.Trigger{api.Graceful, api.Force, api.Cold} {
			if _, err := a.Reboot(ctx(t, 5*time.Second), "domU-web", mode); code(err) != api.Failed || !strings.Contains(err.Error(), "start libvirtd") {
				t.Errorf("%s: %v", mode, err)
			}
			if _, err := a.Plan(ctx(t, 5*time.Second), "domU-web", mode); code(err) != api.Failed {
				t.Errorf("plan, %s: %v", mode, err)
			}
		}
		w.mu.Lock()
		asked := w.asked
		w.mu.Unlock()
		if asked != 0 {
			t.Errorf("the toolstack was asked %d times", asked)
		}
		*owner = fakeOwner{Toolstack: toolstack.Libvirt, Process: "libvirtd (3)", OnReboot: "restart"}
		if got, err := a.Reboot(ctx(t, 30*time.Second), "domU-web", api.Cold); err != nil || !got.Done {
			t.Errorf("%+v, %v", got, err)
		}
	})(t)
}
