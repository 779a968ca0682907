package lab

import (
	"bytes"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab/agent"
)

// newClients returns a client of an agent in this process, and one that goes
// through it to itself, as the way to the domU goes through dom0.
func newClients(t *testing.T) map[string]*Client {
	t.Helper()
	server := httptest.NewServer(agent.Handler())
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	return map[string]*Client{"direct": newClient(server.URL), "via": newClient(server.URL + "/via/" + host)}
}

func TestClient(t *testing.T) {
	for name, c := range newClients(t) {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if err := c.Await(ctx); err != nil {
				t.Fatal(err)
			}
			output, err := c.Run(ctx, "sh", "-c", "echo out; echo err >&2; exit 3")
			var exit *ExitError
			if !errors.As(err, &exit) || exit.Code != 3 || exit.Stderr != "err\n" || string(output) != "out\n" {
				t.Errorf("got %q, %v", output, err)
			}
			if _, err := c.Run(ctx, "/no/such/program"); err == nil || errors.As(err, &exit) && exit.Code == 0 {
				t.Errorf("a program that does not exist ran: %v", err)
			}
			root := t.TempDir()
			want := bytes.Repeat([]byte("x"), 100_000)
			if err := c.PutBytes(ctx, want, filepath.Join(root, "a/b")); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Get(ctx, filepath.Join(root, "a/b")); err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes back, %v", len(got), err)
			}
		})
	}
}

func TestDatasetFollowsFromItsSeed(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	for _, root := range []string{first, second} {
		if err := (agent.Dataset{Seed: 7, Bytes: 5 << 20}).Write(root); err != nil {
			t.Fatal(err)
		}
	}
	a, errA := agent.SumTree(first)
	b, errB := agent.SumTree(second)
	if err := errors.Join(errA, errB); err != nil || len(a) < 2 || len(a.Differences(b)) != 0 {
		t.Errorf("%v and %v differ (%v)", a, b, err)
	}
}

func TestScenariosChangeEveryFile(t *testing.T) {
	root := t.TempDir()
	if err := agent.PrepareScenarios(root); err != nil {
		t.Fatal(err)
	}
	before, err := agent.SumTree(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.WriteScenarios(root); err != nil {
		t.Fatal(err)
	}
	after, err := agent.SumTree(root)
	if err != nil {
		t.Fatal(err)
	}
	if differ := before.Differences(after); len(differ) != len(before) {
		t.Errorf("only %d of %d files changed", len(differ), len(before))
	}
	if _, err := os.Stat(filepath.Join(root, "rename-over-synced.new")); err == nil {
		t.Error("the new file was not renamed")
	}
}

func TestBusyTicks(t *testing.T) {
	for line, want := range map[string]int64{
		"cpu  1858 0 8135 12251 15 0 210 13114 0 0": 1858 + 8135 + 210,
		"cpu 1 2 3 4 5 6 7 8":                       1 + 2 + 3 + 6 + 7,
		"cpu 1 2 3":                                 -1,
		"intr 1 2 3 4 5 6 7 8":                      -1,
		"cpu a 2 3 4 5 6 7 8":                       -1,
	} {
		got, err := busyTicks(line)
		if want == -1 && err == nil || want != -1 && (err != nil || got != want) {
			t.Errorf("%q: %d, %v, want %d", line, got, err, want)
		}
	}
}
