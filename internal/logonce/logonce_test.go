package logonce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestOnce: a warning that is logged each second for a day is one line; another
// disk's, another error and one after a pause are news.
func TestOnce(t *testing.T) {
	var out bytes.Buffer
	h := New(slog.NewTextHandler(&out, nil))
	now := time.Unix(1e9, 0)
	lines := func() int { defer out.Reset(); return strings.Count(out.String(), "\n") }
	warn := func(domain, vbd string, err error) {
		t.Helper()
		r := slog.NewRecord(now, slog.LevelWarn, "the counters of the disk cannot be read", 0)
		r.Add("op", "counters", "vbd", vbd, "err", err)
		if err := h.WithAttrs([]slog.Attr{slog.String("domain", domain)}).Handle(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	gone := errors.New("no such file or directory")
	for range 86400 {
		now = now.Add(time.Second)
		warn("web", "51712", gone)
		warn("web", "51728", fmt.Errorf("%w", gone)) // the same words
		warn("db", "51712", gone)
	}
	if n := lines(); n != 3 {
		t.Errorf("%d lines a day of three disks", n)
	}
	for range 10 { // in turn
		warn("web", "51712", errors.New("input/output error"))
		warn("web", "51712", gone)
	}
	if n := lines(); n != 1 {
		t.Errorf("another error: %d lines", n)
	}
	now = now.Add(quiet + time.Second)
	warn("web", "51712", gone)
	now = now.Add(-time.Hour)
	warn("web", "51712", gone) // the clock was set back
	if n := lines(); n != 2 {
		t.Errorf("after a pause: %d lines", n)
	}
}

// TestEvents: what is no error is something that has happened, and counts each time.
func TestEvents(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(New(slog.NewTextHandler(&out, nil)))
	for range 3 {
		log.Warn("pages dropped", "dropped", 20)
		log.Warn("pages dropped", "dropped", 20, "err", nil)
		log.Info("cannot", "err", errors.New("x"))
		log.WithGroup("g").Error("cannot", "err", errors.New("x"))
	}
	if n := strings.Count(out.String(), "\n"); n != 10 {
		t.Errorf("%d lines:\n%s", n, &out)
	}
}

// TestBound: of however many things that go wrong, so many are remembered.
func TestBound(t *testing.T) {
	s := New(slog.DiscardHandler).seen
	at := time.Unix(0, 0)
	for i := range most + 5 {
		at = at.Add(time.Millisecond)
		if s.again(fmt.Sprint(i), at) {
			t.Fatal(i)
		}
	}
	if len(s.last) != most || !s.again(fmt.Sprint(most), at) || s.again("0", at) {
		t.Errorf("%d remembered", len(s.last))
	}
}
