package cli

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAnyArgument: whatever a domain is called, it is that domain that is meant,
// and what is no name is said to be none.
func TestAnyArgument(t *testing.T) {
	for _, name := range []string{".", "..", "a/b", "a b", "%", "?", "ümlaut", "caf\xe9", "a\nb", "plan", "-"} {
		for _, args := range [][]string{{"status"}, {"enable"}, {"disable"}, {"drop"}, {"lock"}, {"unlock"}, {"reboot"}} {
			s := &fakeService{}
			r := runCLI(s, nil, append(args, name)...)
			want := args[0] + " " + name
			if args[0] == "reboot" {
				want += " graceful"
			}
			if r.code != 0 || !slices.Contains(s.asked, want) {
				t.Errorf("%s %q: %+v, asked %q", args[0], name, r, s.asked)
			}
		}
	}
	// After "--" all are names, wherever it comes.
	for _, args := range [][]string{{"status", "--", "--all"}, {"--socket", "x", "status", "-o", "json", "--", "--all"}, {"disable", "--dry-run", "--", "--all"}, {"--", "--all"},
		{"--force", "--", "--all"}, {"reboot", "--", "--all"}, {"--", "status"}, {"lock", "--ttl", "1h", "--", "-h"}, {"status", "--", "--"}} {
		s := &fakeService{}
		name := args[len(args)-1]
		r := runCLI(s, nil, args...)
		if r.code != 0 || len(s.asked) == 0 || !slices.ContainsFunc(s.asked, func(q string) bool { return strings.Contains(q+" ", " "+name+" ") }) {
			t.Errorf("%q: %+v, asked %q", args, r, s.asked)
		}
	}
	for _, args := range [][]string{{"--all"}, {"status", "--all"}, {"status", "web", "--", "db"}, {"--"}} {
		s := &fakeService{}
		if r := runCLI(s, nil, args...); r.code != ExitUsage || len(s.asked) != 0 {
			t.Errorf("%q: %+v, asked %q", args, r, s.asked)
		}
	}
	for _, args := range [][]string{{""}, {"status", ""}, {"enable", ""}, {"disable", ""}, {"drop", ""}, {"history", ""}, {"plan", ""}, {"lock", ""}, {"resume", ""},
		{"check", ""}, {"report", ""}, {"doctor", ""}, {"reboot", ""}, {"reboot"}, {"", "--force"}} {
		s := &fakeService{}
		if r := runCLI(s, nil, args...); r.code != ExitUsage || len(s.asked) != 0 || len(args) != 1 && !strings.Contains(r.stderr, "is empty") && args[len(args)-1] == "" {
			t.Errorf("%q: %+v, asked %q", args, r, s.asked)
		}
	}
}

// TestCalledLikeAnOption: a domain that is called like an option comes after --, and
// is never taken for one; nor is an option taken for a domain.
func TestCalledLikeAnOption(t *testing.T) {
	for _, name := range []string{"-web", "--force", "--", "-o", "--socket=/x", "-"} {
		for _, args := range [][]string{{"status", "--"}, {"enable", "--"}, {"enable", "--ttl", "2d", "--"}, {"drop", "--"}, {"lock", "--owner", "ann", "--"}, {"reboot", "--"}, {"--"}, {"reboot", "--cold", "--"}, {"--cold", "--"}} {
			s := &fakeService{}
			r := runCLI(s, nil, append(args, name)...)
			want := args[0] + " " + name
			if args[0] == "reboot" || args[0][0] == '-' {
				want = "reboot " + name + " graceful"
				if slices.Contains(args, "--cold") {
					want = "reboot " + name + " cold"
				}
			}
			if r.code != 0 || !slices.Contains(s.asked, want) {
				t.Errorf("%q %q: %+v, asked %q", args, name, r, s.asked)
			}
		}
		if name == "-" {
			continue
		}
		for _, args := range [][]string{{"drop", name, "web", "again"}, {"drop", "web", "--", name}, {"drop", "--", name, "--force"}} {
			s := &fakeService{}
			if r := runCLI(s, nil, args...); r.code != ExitUsage || len(s.asked) != 0 {
				t.Errorf("%q: %+v, asked %q", args, r, s.asked)
			}
		}
	}
	s := &fakeService{}
	if r := runCLI(s, nil, "reboot", "web", "--force", "--"); r.code != 0 || !slices.Equal(s.asked, []string{"reboot web force"}) {
		t.Errorf("%+v, asked %q", r, s.asked)
	}
	s = &fakeService{}
	if r := runCLI(s, nil, "drop", "web", "-x"); r.code != ExitUsage || !strings.Contains(r.stderr, "comes after --") {
		t.Errorf("%+v", r)
	}
}

// TestCalledLikeACommand: every domain can be rebooted, be it called like a
// command.
func TestCalledLikeACommand(t *testing.T) {
	for _, c := range (&env{}).app().Commands {
		s := &fakeService{}
		if r := runCLI(s, nil, "reboot", c.Name, "--force"); r.code != 0 || !slices.Equal(s.asked, []string{"reboot " + c.Name + " force"}) {
			t.Errorf("%s: %+v, asked %q", c.Name, r, s.asked)
		}
	}
	s := &fakeService{}
	if r := runCLI(s, nil, "reboot", "web", "--dry-run", "--cold"); r.code != 0 || !slices.Equal(s.asked, []string{"plan web cold"}) {
		t.Errorf("%+v, asked %q", r, s.asked)
	}
}

// TestDurations: a time is given in the same way everywhere.
func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "2d": 48 * time.Hour, "1d12h": 36 * time.Hour, "1w": 7 * 24 * time.Hour, "0s": 0} {
		for _, args := range [][]string{{"enable", "web", "--ttl", text}, {"enable", "--ttl", text, "web"}, {"enable", "--ttl=" + text, "web"}} {
			s := &fakeService{}
			if r := runCLI(s, nil, args...); r.code != 0 || s.policy.TTLSeconds != uint32(want/time.Second) {
				t.Errorf("%q: %+v, %+v", args, r, s.policy)
			}
		}
		s := &fakeService{}
		if r := runCLI(s, nil, "lock", "web", "--ttl", text); want != 0 && (r.code != 0 || s.lock.TTLSeconds != want.Seconds()) || want == 0 && r.code != ExitUsage {
			t.Errorf("lock for %s: %+v, %+v", text, r, s.lock)
		}
		s = &fakeService{}
		if r := runCLI(s, nil, "web", "--timeout", text); want != 0 && (r.code != 0 || s.deadline != want) || want == 0 && r.code != ExitUsage {
			t.Errorf("timeout of %s: %+v, %v", text, r, s.deadline)
		}
	}
	for _, args := range [][]string{{"enable", "web", "--ttl", "1500ms"}, {"enable", "web", "--ttl", "100y"}, {"enable", "web", "--ttl", "99999w"}, {"lock", "web", "--ttl", ""},
		{"web", "--timeout", "-1s"}, {"top", "--interval", "2"}, {"enable", "--ttl", "2x", "web"}} {
		if r := runCLI(&fakeService{}, nil, args...); r.code != ExitUsage {
			t.Errorf("%q: %+v", args, r)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", 5 * time.Minute: "5m", time.Hour: "1h", 90 * time.Second: "1m30s", 100 * time.Millisecond: "100ms", 10 * time.Second: "10s", time.Hour + time.Second: "1h0m1s"} {
		v := duration(d)
		if v.String() != want {
			t.Errorf("%v: %s, want %s", d, v.String(), want)
		}
	}
}

// TestConfigCheckOfNothing: a program gets JSON whatever is wrong.
func TestConfigCheckOfNothing(t *testing.T) {
	dir := t.TempDir() + "/none"
	r := runCLI(&fakeService{}, nil, "config", "check", dir, "-o", "json")
	var c checked
	r.json(t, &c)
	if r.code != ExitFailure || c.OK || len(c.Problems) != 1 || c.Problems[0].File != dir || c.Files == nil {
		t.Errorf("%+v, %+v", r, c)
	}
	if r := runCLI(&fakeService{}, nil, "config", "check", dir); r.code != ExitFailure || !strings.Contains(r.out, dir) || !strings.Contains(r.stderr, "1 problems") {
		t.Errorf("%+v", r)
	}
}

// TestZone: a time is shown with the zone that it is in.
func TestZone(t *testing.T) {
	old := time.Local
	t.Cleanup(func() { time.Local = old })
	time.Local = time.FixedZone("CEST", 7200)
	if got := clock(time.Date(2026, 7, 1, 10, 0, 0, 0, time.UTC)); got != "2026-07-01 12:00:00 CEST" {
		t.Error(got)
	}
}
