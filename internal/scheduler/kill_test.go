package scheduler

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
)

// killer ends the daemon after an effect: whatever of it goes on afterwards ends as
// soon as it has an effect.
type killer struct {
	mu      sync.Mutex
	effects int
	at      int
	dead    bool
	cancel  context.CancelFunc
}

func (k *killer) effect() {
	k.mu.Lock()
	if !k.dead {
		k.effects++
		if k.dead = k.effects == k.at; k.dead {
			k.cancel() // for those who wait
		}
	}
	dead := k.dead
	k.mu.Unlock()
	if dead {
		runtime.Goexit()
	}
}

// TestRunKilledAfterEveryEffect: whatever the daemon was doing, the next one ends the
// run: one reboot at most, no hook twice, one entry in the history, no lock left, and
// what is not known to have been done is reported.
func TestRunKilledAfterEveryEffect(t *testing.T) {
	dir := t.TempDir()
	for at := 1; ; at++ {
		out := filepath.Join(dir, fmt.Sprint(at))
		hook := func(word string) string {
			return fmt.Sprintf("command = [\"/bin/sh\", \"-c\", \"echo %s >>%s\"]\n", word, out)
		}
		h := newHost(t, cronNoon+"[[schedule.before]]\n"+hook("before")+"[[schedule.after]]\n"+hook("after")+"always = true\n[schedule.alert]\n"+hook("alert")+
			"[schedule.health]\ncommand = [\"/bin/true\"]\n")
		h.create("web", 10*day)
		ctx, cancel := context.WithCancel(context.Background())
		k := &killer{at: at, cancel: cancel}
		h.effect = k.effect
		h.ctx, h.step = ctx, func(string) error { k.effect(); return nil }
		r := h.runner(nil)
		h.pass(day - time.Minute)
		h.look(r)
		h.pass(time.Minute)
		done := make(chan struct{})
		go func() { defer close(done); r.Look(ctx) }()
		<-done
		wait(r)
		cancel()
		k.mu.Lock()
		died := k.dead
		k.at, k.dead = 0, false
		k.mu.Unlock()
		if died {
			h.ctx = context.Background()
			r = h.runner(nil)
			for range 3 {
				h.pass(5 * time.Second)
				h.look(r)
			}
		}
		raw, _ := os.ReadFile(out)
		count := func(word string) int { return strings.Count(string(raw), word+"\n") }
		all, asked := h.history(), len(h.asked())
		what := fmt.Sprintf("killed after effect %d: %q, asked %d times, history %+v", at, raw, asked, all)
		if asked > 1 || count("before") > 1 || count("after") > 1 || count("alert") > 1 {
			t.Errorf("twice: %s", what)
		}
		if locks, left := h.kept.Locks(h.moment()), r.atWork(underWay); len(locks) != 0 || len(left) != 0 {
			t.Errorf("left: %v, %v: %s", locks, left, what)
		}
		ops := r.Operations.List()
		if len(ops) == 0 { // it was not journalled yet: nothing was begun
			if asked+len(all)+len(raw) > 0 {
				t.Errorf("not journalled: %s", what)
			}
		} else if len(all) != 1 || !ops[0].Done || len(ops) != 1 {
			t.Errorf("%s, %+v", what, ops)
		} else {
			e := all[0]
			hooks := map[string]api.StepResult{}
			for _, s := range e.Hooks {
				hooks[s.Name] = s
			}
			rebooted := e.Outcome == "warm"
			switch {
			case rebooted != (asked == 1):
				t.Errorf("does not tell the truth: %s", what)
			case hooks["after"].Name == "" || hooks["after"].OK && count("after") != 1 || hooks["before"].OK && count("before") != 1:
				t.Errorf("hooks: %s", what)
			case !hooks["after"].OK && !strings.Contains(hooks["after"].Detail, "nobody knows"):
				t.Errorf("hook after it: %s", what)
			case !rebooted && (count("alert") != 1 && !died || e.Error == ""):
				t.Errorf("not rebooted, not reported: %s", what)
			}
		}
		h.kept.Close()
		if !died {
			if at < 60 || asked != 1 || count("before") != 1 || count("after") != 1 || len(all) != 1 || all[0].Error != "" {
				t.Errorf("without being killed: %s", what)
			}
			return
		}
	}
}
