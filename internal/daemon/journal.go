package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
)

// logHandler logs key=value to w. If that is the journal, as journalStream has it
// (the variable JOURNAL_STREAM, systemd.exec(5)), each line begins with its
// priority as <N> (sd-daemon(3)), for `journalctl -p warning`.
func logHandler(w io.Writer, journalStream string, level slog.Level) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	if !isJournal(w, journalStream) {
		return slog.NewTextHandler(w, o)
	}
	return newJournalHandler(w, o)
}

// isJournal reports whether w is the stream that systemd has connected to the
// journal, and not one to which it was redirected since.
func isJournal(w io.Writer, journalStream string) bool {
	f, ok := w.(*os.File)
	if !ok || journalStream == "" {
		return false
	}
	st, err := f.Stat()
	if err != nil {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && fmt.Sprintf("%d:%d", sys.Dev, sys.Ino) == journalStream
}

// journalHandler writes what a slog.TextHandler makes, with priorities. A record is
// one line: the TextHandler quotes values, and escapes what is not printable in
// them.
type journalHandler struct {
	out  *lineBuffer
	text slog.Handler
}

// lineBuffer is shared by all handlers that were derived from one.
type lineBuffer struct {
	mu  sync.Mutex
	w   io.Writer
	buf bytes.Buffer // what the TextHandler has written
}

func newJournalHandler(w io.Writer, o *slog.HandlerOptions) journalHandler {
	out := &lineBuffer{w: w}
	return journalHandler{out, slog.NewTextHandler(&out.buf, o)}
}

// priority is that of syslog(3).
func priority(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 6
	}
	return 7
}

// Enabled implements slog.Handler.
func (h journalHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.text.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (h journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.buf.Reset()
	fmt.Fprintf(&h.out.buf, "<%d>", priority(r.Level))
	if err := h.text.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.out.w.Write(h.out.buf.Bytes())
	return err
}

// WithAttrs implements slog.Handler.
func (h journalHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return journalHandler{h.out, h.text.WithAttrs(a)}
}

// WithGroup implements slog.Handler.
func (h journalHandler) WithGroup(name string) slog.Handler {
	return journalHandler{h.out, h.text.WithGroup(name)}
}
