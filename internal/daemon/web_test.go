package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/settings"
	"github.com/warmreboot/warmreboot/internal/web/webtest"
	"github.com/warmreboot/warmreboot/internal/webserver"
)

func TestWebAddress(t *testing.T) {
	for s, want := range map[string]string{"unix:/run/w.sock": "unix /run/w.sock", "127.0.0.1:9816": "tcp 127.0.0.1:9816",
		"[::1]:80": "tcp [::1]:80", "localhost:80": "tcp localhost:80"} {
		network, address, err := webAddress(s)
		if got := network + " " + address; err != nil || got != want {
			t.Errorf("%s: %s, %v", s, got, err)
		}
	}
	for _, s := range []string{":80", "0.0.0.0:80", "[::]:80", "10.0.0.1:80", "example.org:80", "127.0.0.1", "unix:w.sock", "unix:", "x"} {
		if _, _, err := webAddress(s); err == nil || !strings.Contains(err.Error(), "--listen") {
			t.Errorf("%s: %v", s, err)
		}
		var stderr bytes.Buffer
		if code := Main([]string{"--listen", s}, &stderr); code != 2 || !strings.Contains(stderr.String(), "--listen") {
			t.Errorf("%s: %d, %s", s, code, stderr.String())
		}
	}
}

// TestServeWeb: over a UNIX socket, which only root can open.
func TestServeWeb(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "web.sock")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		serveWeb(ctx, "unix:"+socket, webserver.Options{Source: webtest.New(), Host: func() api.Host { return api.Host{} },
			Metrics: http.NotFoundHandler(), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	}()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	var r *http.Response
	var err error
	for range 500 { // it is being started
		if r, err = c.Get("http://localhost/"); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil || r.StatusCode != http.StatusOK || !strings.Contains(string(text), "<h1>Domains</h1>") {
		t.Errorf("%d %s %v", r.StatusCode, text, err)
	}
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	c.CloseIdleConnections()
	cancel()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("does not stop")
	}
}

type fakeHistory []api.HistoryEntry

func (f *fakeHistory) Add(e api.HistoryEntry) (uint64, error) { *f = append(*f, e); return 7, nil }

// TestForgotten: of a domain that is gone for good, nobody who shows reboots keeps
// anything.
func TestForgotten(t *testing.T) {
	web, dir := ident.UUID{7}, t.TempDir()
	r := &recorder{History: new(fakeHistory)}
	_, pages := show(nil, nil, r, nil, nil, settings.Daemon{StateDir: dir}, nil, nil, slog.New(slog.DiscardHandler))
	if pages.Metrics == nil || len(r.forget) != 2 {
		t.Fatalf("%d are told", len(r.forget))
	}
	if err := os.MkdirAll(filepath.Join(dir, "samples", web.String()), 0o700); err != nil {
		t.Fatal(err)
	}
	r.forgot(web)
	if _, err := os.Stat(filepath.Join(dir, "samples", web.String())); !os.IsNotExist(err) {
		t.Error(err)
	}
}

// TestWoken: an event wakes the keepers that it may concern.
func TestWoken(t *testing.T) {
	for _, c := range []struct {
		paths []string
		many  bool
		want  string
	}{
		{[]string{"/local/domain/0/backend/vbd/7/51712/state", "/local/domain/0/backend/qdisk/12"}, false, "[7 12]"},
		{[]string{"@releaseDomain"}, false, "all"},
		{[]string{"/local/domain/0/backend/vbd"}, false, "all"},
		{[]string{"/local/domain/0/backend/vbd/7/51712", "/local/domain/0/backend/vbd"}, false, "all"},
		{[]string{"/local/domain/0/backend/vbd/99999/1"}, false, "all"},
		{[]string{"/local/domain/0/backend/vbd/7/51712"}, true, "all"},
	} {
		var got woken
		wakeBy(&got, c.paths, c.many)
		if string(got) != c.want {
			t.Errorf("%v, %v: %s, want %s", c.paths, c.many, got, c.want)
		}
	}
}

type woken string

func (w *woken) Wake()                    { *w = "all" }
func (w *woken) WakeOf(all []ident.Domid) { *w = woken(fmt.Sprint(all)) }

// TestRecorder: whoever shows reboots hears of each that is entered.
func TestRecorder(t *testing.T) {
	var entries fakeHistory
	var heard []uint64
	r := recorder{History: &entries, tell: []func(api.Summary){func(s api.Summary) { heard = append(heard, s.Sequence) }}}
	id, err := r.Add(api.HistoryEntry{Summary: api.Summary{Sequence: 3}})
	if id != 7 || err != nil || len(entries) != 1 || len(heard) != 1 || heard[0] != 3 {
		t.Errorf("%d, %v, %v, %v", id, err, entries, heard)
	}
}
