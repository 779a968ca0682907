package daemon

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
	if err := os.WriteFile(socket, nil, 0o666); err != nil {
		t.Fatal(err)
	}
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

func TestUsage(t *testing.T) {
	for args, want := range map[string]int{"--bogus": 2, "extra": 2, "--help": 0, "--version": 0} {
		var stderr bytes.Buffer
		if got := Main([]string{args}, &stderr); got != want || stderr.Len() == 0 {
			t.Errorf("%s: %d, %q", args, got, stderr.String())
		}
	}
}
