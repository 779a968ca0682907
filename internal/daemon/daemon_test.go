package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(path); err == nil || !strings.Contains(err.Error(), "another warmrebootd") {
		t.Errorf("second lock: %v", err)
	}
	unlock()
	again, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// TestServe: only root may open the socket, a dead daemon's is replaced, and
// requests under way are ended when the daemon stops.
func TestServe(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "run", "s")
	if err := os.Mkdir(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	dead, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	l, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(socket); err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", st, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	started := make(chan struct{}, 1)
	go func() {
		served <- serve(ctx, l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			started <- struct{}{}
			<-r.Context().Done()
		}))
	}()
	go api.NewClient(socket).List(context.Background())
	<-started
	cancel()
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("does not stop")
	}
}

// TestListenTakesNothingAway: what is no dead socket stays what it is.
func TestListenTakesNothingAway(t *testing.T) {
	dir := t.TempDir()
	file, folder, link, live := filepath.Join(dir, "important.conf"), filepath.Join(dir, "folder"), filepath.Join(dir, "link"), filepath.Join(dir, "live")
	if err := errors.Join(os.WriteFile(file, []byte("x"), 0o644), os.Mkdir(folder, 0o755), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", live)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for path, want := range map[string]string{file: "no socket", folder: "no socket", link: "no socket", live: "somebody listens"} {
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if l, err := listen(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v", path, l, err)
		}
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: %v, %v", path, after, err)
		}
	}
}

// TestListenMode: the socket is root's alone from its first moment, whatever the
// umask, which is not touched: files that are made meanwhile keep their mode.
func TestListenMode(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := t.TempDir()
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			path := filepath.Join(dir, fmt.Sprint("f", i%10))
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				t.Error(err)
			}
			if st, err := os.Stat(path); err != nil || st.Mode() != 0o644 {
				t.Errorf("%v, %v", st, err)
			}
			_ = os.Remove(path)
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for i := range 50 {
		socket := filepath.Join(dir, fmt.Sprint("s", i))
		l, err := listen(socket)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(socket); err != nil || st.Mode() != os.ModeSocket|0o600 {
			t.Errorf("%v, %v", st, err)
		}
		l.Close()
	}
	close(stop)
	<-ended
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]int{"--bogus": 2, "extra": 2, "--help": 0, "--version": 0} {
		var stderr bytes.Buffer
		if got := Main([]string{args}, &stderr); got != want || stderr.Len() == 0 {
			t.Errorf("%s: %d, %q", args, got, stderr.String())
		}
	}
}
