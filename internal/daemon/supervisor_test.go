package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/apiserver"
)

// TestSupervisor: parts are stopped in the reverse order, each when those that use it
// have stopped.
func TestSupervisor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newSupervisor(slog.New(slog.NewTextHandler(&log, nil)))
		var order []string
		s.started("ground", func() { order = append(order, "ground") })
		s.started("nothing to stop", nil)
		s.run("slow", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(2 * slowStop)
			order = append(order, "slow")
			return errors.New("what it says when it is stopped is nothing wrong")
		})
		s.run("quick", func(ctx context.Context) error { <-ctx.Done(); order = append(order, "quick"); return nil })
		synctest.Wait()
		select {
		case err := <-s.failed:
			t.Fatal(err)
		default:
		}
		s.stop()
		if got := fmt.Sprint(order); got != "[quick slow ground]" {
			t.Error(got)
		}
		select {
		case err := <-s.failed:
			t.Error(err)
		default:
		}
		synctest.Wait() // for the timer's goroutine
		if n := strings.Count(log.String(), "takes long to stop"); n != 1 || !strings.Contains(log.String(), "op=slow") {
			t.Errorf("%s", log.String())
		}
		s.stop() // nothing is stopped twice
		if len(order) != 3 {
			t.Error(order)
		}
	})
}

// TestSupervisorFails: a part that ends is a reason for the daemon to end, the first
// one counts, and nobody is blocked by that.
func TestSupervisorFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervisor(slog.New(slog.NewTextHandler(io.Discard, nil)))
		defer s.stop()
		s.run("xenstore", func(context.Context) error { return errors.New("the connection has ended") })
		synctest.Wait()
		s.run("other", func(context.Context) error { return nil })
		synctest.Wait()
		if err := <-s.failed; err == nil || err.Error() != "xenstore: the connection has ended" {
			t.Error(err)
		}
		s.run("silent", func(context.Context) error { return nil })
		synctest.Wait()
		if err := <-s.failed; err == nil || !strings.HasPrefix(err.Error(), "silent: ") {
			t.Error(err)
		}
	})
}

// TestServeWaitsForHandlers: what a handler asks is there until it has returned, also
// one that does not end with its request.
func TestServeWaitsForHandlers(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	inside, leave := make(chan struct{}), make(chan struct{})
	var left atomic.Bool
	served := make(chan error, 1)
	go func() {
		served <- serve(ctx, l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(inside)
			<-leave
			left.Store(true)
		}))
	}()
	go api.NewClient(socket).List(context.Background())
	<-inside
	cancel()
	select {
	case err := <-served:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(stopWait + 200*time.Millisecond): // the server has given up, too
	}
	close(leave)
	if err := <-served; err != nil || !left.Load() {
		t.Errorf("%v", err)
	}
}

// TestDebug: pprof is on the socket that only root can open.
func TestDebug(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	mux := &apiserver.Router{}
	apiserver.ServeDebug()(mux)
	go func() { served <- serve(ctx, l, mux) }()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for path, want := range map[string]string{"/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=2": "TestDebug", "/debug/pprof/cmdline": "test",
		"/debug/pprof/heap?debug=1": "heap profile", "/debug/pprof/none": "Unknown profile"} {
		r, err := c.Get("http://x" + path)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || !strings.Contains(string(raw), want) {
			t.Errorf("%s: %d %.200q, %v", path, r.StatusCode, raw, err)
		}
	}
	c.CloseIdleConnections()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
