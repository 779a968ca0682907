// Package monitoring has Prometheus' own tool read the alert rules and the
// dashboard's expressions. It runs with the flag -promtool only: `make
// test-monitoring` fetches Debian's and gives it. That the metrics exist is
// tested with internal/metrics, without it.
package monitoring

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var promtool = flag.String("promtool", "", "the promtool to test with")

func TestMain(m *testing.M) {
	flag.Parse()
	if *promtool == "" {
		fmt.Println("there is no promtool: no test of this package was run; `make test-monitoring` runs them")
		return
	}
	os.Exit(m.Run())
}

const docs = "../../docs/monitoring/"

func run(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), *promtool, args...).CombinedOutput()
	t.Logf("%s\n%s", strings.Join(args, " "), out)
	if err != nil {
		t.Error(err)
	}
}

// TestAlerts: each rule fires when it should, and names whom it is about.
func TestAlerts(t *testing.T) {
	run(t, "check", "rules", docs+"alerts.yml")
	run(t, "test", "rules", "alerts_test.yml")
	tests, err := os.ReadFile("alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := os.ReadFile(docs + "alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, line := range strings.Split(string(rules), "\n") {
		if _, name, ok := strings.Cut(line, "- alert: "); ok {
			n++
			if !strings.Contains(string(tests), "alertname: "+name+"\n") {
				t.Errorf("%s is not tested", name)
			}
		}
	}
	if n < 8 {
		t.Errorf("%d rules", n)
	}
}

// TestDashboard: its expressions are PromQL.
func TestDashboard(t *testing.T) {
	raw, err := os.ReadFile(docs + "dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	var rules []map[string]string
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			rules = append(rules, map[string]string{"record": fmt.Sprintf("panel:%d", len(rules)), "expr": strings.ReplaceAll(q.Expr, "$domain", ".*")})
		}
	}
	if len(rules) < 20 {
		t.Errorf("%d expressions", len(rules))
	}
	// JSON is YAML.
	out, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(path, out, 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "check", "rules", path)
}
