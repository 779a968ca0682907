package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

// pace is when progress is shown first, and how often then.
type pace struct{ after, every time.Duration }

// humanPace is what people are shown: nothing of what is quickly done.
var humanPace = pace{2 * time.Second, 500 * time.Millisecond}

// progress shows on a terminal how far a reboot is, if it takes long, until the
// returned function is called.
func (e *env) progress(ctx context.Context, s api.Service, domain string) (stop func()) {
	if !e.terminal {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		shown := false
		start := time.Now()
		timer := time.NewTimer(e.pace.after)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				if shown {
					fmt.Fprint(e.rawErr, "\r\033[K")
				}
				return
			case <-timer.C:
			}
			if st, err := s.Status(ctx, domain, false); err == nil {
				fmt.Fprintf(e.rawErr, "\r\033[K%s: %s (%.0f s)", ident.Printable(st.Domain), phase(st), time.Since(start).Seconds())
				shown = true
			}
			timer.Reset(e.pace.every)
		}
	}()
	return func() { cancel(); <-ended }
}

// phase says in a few words where a reboot is.
func phase(s api.DomainStatus) string {
	switch {
	case s.Current == nil && s.Last == nil, s.Current == nil:
		return "waiting for the guest to go down"
	case s.Current.DomidAfter == 0:
		return fmt.Sprintf("down, %d pages preserved", s.ImagePages)
	case s.Report != nil && s.Report.Restored > 0:
		return fmt.Sprintf("restored %d of %d pages", s.Report.Restored, s.Current.PagesApproved)
	case len(s.Current.VBDs) == 0:
		return "checking its disks"
	}
	return "booting"
}
