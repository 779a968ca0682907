package agent

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/logonce"
)

// unreadable are disks whose counters cannot be read.
type unreadable struct {
	Disks
	err error
}

func (u unreadable) Read(disk.Backing, disk.Backend) (disk.Reading, error) {
	return disk.Reading{}, u.err
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

// TestLogIsNotFlooded: two disks whose counters cannot be read are two lines an hour.
func TestLogIsNotFlooded(t *testing.T) {
	bubble(func(t *testing.T) {
		w := newWorld(t)
		w.create("domU-web", webUUID)
		var out lockedBuffer
		a := w.start("kept", func(o *Options) {
			o.Disks = unreadable{o.Disks, errors.New("no such file or directory")}
			o.Log = slog.New(logonce.New(slog.NewTextHandler(&out, nil)))
		})
		if _, err := a.Enable(ctx(t, time.Second), "domU-web", api.Policy{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		a.Stop()
		if n := strings.Count(out.String(), "counters of the disk cannot be read"); n != 2 {
			t.Errorf("%d lines:\n%.2000s", n, out.String())
		}
	})(t)
}
