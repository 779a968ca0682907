package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unicode"
)

// TestPriorities: journalctl -p finds what is logged as what it is.
func TestPriorities(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stderr")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	for _, c := range []struct {
		stream string
		want   []string
	}{
		{fmt.Sprintf("%d:%d", sys.Dev, sys.Ino), []string{"<7>time=", "<6>time=", "<4>time=", "<3>time=", "<6>time="}},
		{fmt.Sprintf("%d:%d", sys.Dev, sys.Ino+1), []string{"time=", "time=", "time=", "time=", "time="}}, // stderr was redirected
		{"", []string{"time=", "time=", "time=", "time=", "time="}},
	} {
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		log := slog.New(logHandler(f, c.stream, slog.LevelDebug))
		log.Debug("a")
		log.Info("b", "domain", "web")
		log.Warn("c")
		log.Error("d", "err", errors.New("two\nlines"))
		log.With("uuid", "u").WithGroup("g").Info("e", "k", 1)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
		if len(lines) != len(c.want) {
			t.Fatalf("%q: %q", c.stream, lines)
		}
		for i, l := range lines {
			if !strings.HasPrefix(l, c.want[i]) {
				t.Errorf("%q: %q, want %s", c.stream, l, c.want[i])
			}
		}
		if !strings.Contains(lines[4], "uuid=u") || !strings.Contains(lines[4], "g.k=1") {
			t.Errorf("%q", lines[4])
		}
	}
	if h := logHandler(f, "", slog.LevelInfo); h.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug without --debug")
	}
}

// TestLogValues: whatever a name brings along, a record is one printable line, in
// the journal and elsewhere.
func TestLogValues(t *testing.T) {
	for _, name := range []string{"a\nlevel=ERROR msg=forged", "\x1b[2J", "caf\xe9", "\u202e", "<3>x", "\x00", "a=b \"c\""} {
		var b bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), newJournalHandler(&b, nil)} {
			b.Reset()
			slog.New(h).With("domain", name).Warn(name, "err", errors.New(name))
			line, ok := strings.CutSuffix(b.String(), "\n")
			if !ok || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
				t.Errorf("%q: %q", name, line)
			}
		}
	}
}

// TestLogAtOnce: lines of several goroutines stay lines.
func TestLogAtOnce(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(newJournalHandler(&b, nil))
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 100 {
				log.With("k", "v").Warn("x")
			}
		}()
	}
	wg.Wait()
	n := 0
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, "<4>time=") || !strings.HasSuffix(line, " k=v\n") {
			t.Fatalf("%q", line)
		}
		n++
	}
	if n != 800 {
		t.Errorf("%d lines", n)
	}
}
