package cli

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/apiserver"
	"github.com/warmreboot/warmreboot/internal/web/webtest"
)

// asProgram makes the test's own program be warmreboot.
const asProgram = "WARMREBOOT_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(runAt(pace{100 * time.Millisecond, 50 * time.Millisecond}, os.Args, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// daemonFor serves s and returns a socket.
func daemonFor(t *testing.T, s *fakeService) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: apiserver.Handler(s, apiserver.ServeOperations(s), apiserver.ServeHistory(s), apiserver.ServeSamples(s))}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return socket
}

func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], args...)
	c.Env = append(os.Environ(), asProgram+"=1")
	return c
}

// terminal is a pseudo-terminal with the program on it, and all that was shown.
type terminal struct {
	t     *testing.T
	file  *os.File
	cmd   *exec.Cmd
	shown string
}

func onTerminal(t *testing.T, width, height int, args ...string) *terminal {
	t.Helper()
	c := program(t, args...)
	f, err := pty.StartWithSize(c, &pty.Winsize{Rows: uint16(height), Cols: uint16(width)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &terminal{t: t, file: f, cmd: c}
}

// until reads until the pattern occurs.
func (m *terminal) until(pattern string) string {
	m.t.Helper()
	re := regexp.MustCompile(pattern)
	buf := make([]byte, 64<<10)
	for end := time.Now().Add(20 * time.Second); !re.MatchString(m.shown); {
		if err := m.file.SetReadDeadline(end); err != nil {
			m.t.Fatal(err)
		}
		n, err := m.file.Read(buf)
		m.shown += string(buf[:n])
		if err != nil && !re.MatchString(m.shown) {
			m.t.Fatalf("%v before %q; shown: %q", err, pattern, m.shown)
		}
	}
	return m.shown
}

// end waits for the program and returns its exit code.
func (m *terminal) end() int {
	m.t.Helper()
	buf := make([]byte, 64<<10)
	for {
		n, err := m.file.Read(buf)
		m.shown += string(buf[:n])
		if err != nil {
			break // the other end was closed
		}
	}
	_ = m.cmd.Wait() // the code says it
	return m.cmd.ProcessState.ExitCode()
}

// lastScreen returns the lines of what was drawn last.
func lastScreen(shown string) []string {
	_, last, _ := cutLast(shown, "\033[H")
	last, _, _ = strings.Cut(last, "\033[J")
	return strings.Split(strings.NewReplacer("\033[K", "", "\033[7m", "", "\033[0m", "").Replace(last), "\r\n")
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func topService() *fakeService {
	s := exampleService()
	s.list = append(s.list, api.DomainStatus{Domain: "evil\033[2J\nname", Domid: 9, State: "running"})
	return s
}

// TestTopOnTerminal: the screen is drawn anew within its size, names cannot steer
// it, and Ctrl-C gives the terminal back as it was.
func TestTopOnTerminal(t *testing.T) {
	s := topService()
	for range 60 {
		s.list = append(s.list, api.DomainStatus{Domain: "one of many", State: "down"})
	}
	m := onTerminal(t, 70, 20, "top", "--interval", "100ms", "--socket", daemonFor(t, s))
	shown := m.until(`(?s)\x1b\[H.*\x1b\[H.*\x1b\[H.*\x1b\[J`)
	if !strings.HasPrefix(shown, "\033[?1049h\033[?25l") {
		t.Errorf("begins with %q", shown[:min(40, len(shown))])
	}
	if strings.Contains(shown, "\033[2J") || strings.Contains(shown, "warmreboot:") {
		t.Errorf("%q", shown)
	}
	lines := lastScreen(shown)
	if len(lines) != 20 || !strings.HasPrefix(lines[2], "DOMAIN") || !strings.HasPrefix(lines[3], "web<script>") || !strings.HasPrefix(lines[4], "evil\\x1b[2J\\x0aname") {
		t.Errorf("%q", lines)
	}
	for _, l := range lines {
		if len([]rune(l)) > 70 {
			t.Errorf("too wide: %q", l)
		}
	}
	if _, err := m.file.Write([]byte{3}); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	if code := m.end(); code != 0 || !strings.HasSuffix(m.shown, "\033[?25h\033[?1049l") {
		t.Errorf("code %d, ends with %q", code, m.shown[max(0, len(m.shown)-40):])
	}
}

// TestTopRates: what grew since the last time is shown per second, and an agent
// that does not answer leaves the screen, not the program.
func TestTopRates(t *testing.T) {
	m := onTerminal(t, 200, 30, "top", "--interval", "100ms", "--count", "3", "--socket", filepath.Join(t.TempDir(), "none"))
	m.until("is warmrebootd running")
	if code := m.end(); code != 0 {
		t.Errorf("code %d: %q", code, m.shown)
	}
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{{"one two three", 8, "one two\nthree"}, {"abcdefgh", 3, "abc\ndef\ngh"}, {"ä ö ü", 3, "ä ö\nü"}, {"", 5, ""}, {"x", 0, "x"}} {
		if got := wrap(c.text, c.width); got != c.want {
			t.Errorf("%q at %d: %q", c.text, c.width, got)
		}
	}
	a := webtest.New().Domain
	b := a
	b.WriteFaults, b.Hypercalls, b.Committed = a.WriteFaults+30, a.Hypercalls+10, a.Committed-20
	now := time.Now()
	last := view{At: now, Domains: []api.DomainStatus{a}}
	if r := last.ratesOf(b, now.Add(2*time.Second)); r == nil || r.WriteFaults != 15 || r.Hypercalls != 5 || r.Committed != -10 {
		t.Errorf("%+v", r)
	}
	b.Domid++
	if r := last.ratesOf(b, now.Add(2*time.Second)); r != nil {
		t.Errorf("of another domain: %+v", r)
	}
}

// TestTopInPipe: lines that a program can read, without anything for a terminal.
func TestTopInPipe(t *testing.T) {
	socket := daemonFor(t, topService())
	raw, err := program(t, "top", "--interval", "100ms", "--count", "2", "--socket", socket).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	if len(lines) != 4 || strings.Contains(string(raw), "\033") || !strings.Contains(lines[0], ` domid=4 state=running cache="on" reusable=64592 coverage=49.3% `) {
		t.Errorf("%q", lines)
	}
	raw, err = program(t, "top", "--interval", "100ms", "--count", "2", "-o", "json", "--socket", socket).Output()
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	for range 2 {
		var v view
		if err := d.Decode(&v); err != nil || len(v.Domains) != 2 || len(v.Rates) != 2 {
			t.Fatalf("%v: %s", err, raw)
		}
	}
	err = program(t, "top", "--socket", filepath.Join(t.TempDir(), "none")).Run()
	if x, ok := err.(*exec.ExitError); !ok || x.ExitCode() != ExitAgentDown {
		t.Errorf("no agent: %v", err)
	}
}

// TestProgressOnTerminal: how far a reboot is, is shown on a terminal only, and taken away
// again; Ctrl-C ends the waiting with the code that shells know.
func TestProgressOnTerminal(t *testing.T) {
	s := exampleService()
	s.takes(500 * time.Millisecond)
	s.summary = warmSummary()
	socket := daemonFor(t, s)
	m := onTerminal(t, 100, 30, "web", "--socket", socket)
	m.until(`waiting for the guest to go down \(\d s\)`)
	if code := m.end(); code != 0 || !strings.Contains(m.shown, "\r\033[K") || !strings.Contains(m.shown, "came back warm") {
		t.Errorf("code %d: %q", code, m.shown)
	}
	c := program(t, "web", "--socket", socket)
	raw, err := c.CombinedOutput()
	if err != nil || strings.Contains(string(raw), "\033") || !strings.Contains(string(raw), "came back warm") {
		t.Errorf("%v: %q", err, raw)
	}
	s.takes(time.Minute)
	m = onTerminal(t, 100, 30, "web", "--socket", socket)
	m.until("waiting for the guest")
	if _, err := m.file.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if code := m.end(); code != ExitInterrupted || !strings.Contains(m.shown, "interrupted") {
		t.Errorf("code %d: %q", code, m.shown)
	}
}
