// Package logonce keeps a log from being flooded by what goes wrong again and again:
// it is logged once, and again when it changes.
package logonce

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// quiet is how long something must not have gone wrong to be news again. What is
// tried at every look goes wrong every second.
const quiet = 5 * time.Minute

// most is how many things that go wrong are remembered. The oldest is forgotten, and
// may be logged once more.
const most = 10000

// Handler hands on what is logged, but not the same warning or error twice. The same
// is one with the same message and values, err among them: warnings without an err
// tell of something that has happened, and each of them counts. Once it has not been
// logged for a while, it may be.
type Handler struct {
	next slog.Handler
	with string // attributes and groups that the logger has
	*seen
}

type seen struct {
	mu   sync.Mutex
	last map[string]time.Time // when it was to be logged
}

// New returns a Handler before next.
func New(next slog.Handler) *Handler {
	return &Handler{next: next, seen: &seen{last: map[string]time.Time{}}}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	b.WriteString(h.with)
	for _, a := range attrs {
		write(&b, a)
	}
	return &Handler{h.next.WithAttrs(attrs), b.String(), h.seen}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.next.WithGroup(name), h.with + "\x00" + name, h.seen}
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return h.next.Handle(ctx, r)
	}
	var b strings.Builder
	b.WriteString(h.with)
	b.WriteString(r.Message)
	failed := false
	r.Attrs(func(a slog.Attr) bool {
		failed = failed || a.Key == "err" && a.Value.Any() != nil
		write(&b, a)
		return true
	})
	if failed && h.again(b.String(), r.Time) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// again reports whether what is to be logged at a time is the same as before.
func (s *seen) again(what string, at time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.last[what]
	if !known && len(s.last) >= most {
		oldest := what
		for k, v := range s.last {
			if oldest == what || v.Before(s.last[oldest]) {
				oldest = k
			}
		}
		delete(s.last, oldest)
	}
	s.last[what] = at
	return known && at.Sub(last).Abs() < quiet // whichever way the clock was set
}

func write(b *strings.Builder, a slog.Attr) {
	b.WriteString("\x00" + a.Key + "\x00" + a.Value.String())
}
