package sdnotify

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// listen plays the service manager.
func listen(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func receive(t *testing.T, l *net.UnixConn, wait time.Duration) string {
	t.Helper()
	if err := l.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := l.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestSend(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "s"), "@warmreboot-test-" + strconv.Itoa(os.Getpid())} {
		l := listen(t, name)
		t.Setenv("NOTIFY_SOCKET", name)
		m, err := FromEnvironment()
		if err != nil || m.Interval != 0 {
			t.Fatal(m, err)
		}
		if v, ok := os.LookupEnv("NOTIFY_SOCKET"); ok {
			t.Errorf("children would find %q", v)
		}
		if err := m.Send(Ready, Status("two\nlines")); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, l, 10*time.Second); got != "READY=1\nSTATUS=two lines" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestNobodyAsks(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "1000000")
	m, err := FromEnvironment()
	if err != nil || m.Interval != 0 || m.Send(Ready) != nil {
		t.Error(m, err)
	}
	m.Watch(context.Background(), func() error { t.Error("asked"); return nil }, nil) // returns
}

func TestNobodyListens(t *testing.T) {
	m := Manager{address: filepath.Join(t.TempDir(), "none")}
	if err := m.Send(Ready); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestInterval(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
		fails     bool
	}{
		{"2000000", own, 2 * time.Second, false},
		{"2000000", "", 2 * time.Second, false},
		{"2000000", "1", 0, false}, // meant for somebody else
		{"", own, 0, false},
		{"soon", own, 0, true},
		{"-1", own, 0, true},
		{"9223372036854775807", own, 0, true},
	} {
		t.Setenv("NOTIFY_SOCKET", "/somewhere")
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		m, err := FromEnvironment()
		if m.Interval != c.want || (err != nil) != c.fails {
			t.Errorf("%+v: %v, %v", c, m.Interval, err)
		}
	}
}

// TestWatch: signs of life come only while what is watched is alive.
func TestWatch(t *testing.T) {
	l := listen(t, filepath.Join(t.TempDir(), "s"))
	m := Manager{address: l.LocalAddr().String(), Interval: 40 * time.Millisecond}
	dead := errors.New("it hangs")
	var alive atomic.Bool
	alive.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	reported := make(chan error, 1000)
	go func() {
		defer close(ended)
		m.Watch(ctx, func() error {
			if alive.Load() {
				return nil
			}
			return dead
		}, func(err error) { reported <- err })
	}()
	for range 3 {
		if got := receive(t, l, 10*time.Second); got != watchdog {
			t.Fatalf("%q", got)
		}
	}
	alive.Store(false)
	if err := <-reported; err != dead {
		t.Error(err)
	}
	for receive(t, l, 200*time.Millisecond) != "" { // what was sent before
	}
	if got := receive(t, l, 200*time.Millisecond); got != "" {
		t.Errorf("a sign of life of a dead one: %q", got)
	}
	cancel()
	<-ended
}
