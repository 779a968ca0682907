package metrics

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var metricName = regexp.MustCompile(`\bwarmreboot_[a-z0-9_]+`)

// exported returns the names of all series of a domain that has everything.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, d := range descs {
		name, _, _ := strings.Cut(strings.TrimPrefix(d.String(), `Desc{fqName: "`), `"`)
		if !metricName.MatchString(name) {
			t.Fatalf("no name in %s", d)
		}
		found[name] = true
		if d == downTime || d == restoreTime {
			for _, s := range []string{"_bucket", "_sum", "_count"} {
				found[name+s] = true
			}
		}
	}
	return found
}

// TestDocumentsNameMetrics: each metric that the dashboard, the alert rules and
// the operator's guide name exists, and the guide names all.
func TestDocumentsNameMetrics(t *testing.T) {
	have := exported(t)
	for path, least := range map[string]int{"../../docs/monitoring/dashboard.json": 15, "../../docs/monitoring/alerts.yml": 8,
		"../../docs/operations.md": 30} {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		named := metricName.FindAllString(string(raw), -1)
		slices.Sort(named)
		named = slices.Compact(named)
		if len(named) < least {
			t.Errorf("%s names only %d metrics", path, len(named))
		}
		for _, n := range named {
			if !have[n] {
				t.Errorf("%s: there is no metric %s", path, n)
			}
		}
	}
	guide, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for n := range have {
		base := n
		for _, s := range []string{"_bucket", "_sum", "_count"} {
			base = strings.TrimSuffix(base, s)
		}
		if !strings.Contains(string(guide), base) {
			t.Errorf("docs/operations.md does not name %s", base)
		}
	}
}

// TestDashboard: it is what Grafana imports, panels do not lie on each other, and
// nothing is by domid.
func TestDashboard(t *testing.T) {
	raw, err := os.ReadFile("../../docs/monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		UID, Title string
		Panels     []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, RefID string }
		}
		Templating struct {
			List []struct{ Name, Query string }
		}
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || len(d.Templating.List) == 0 {
		t.Errorf("%+v", d)
	}
	seen := map[int]bool{}
	used := map[[2]int]string{}
	for _, p := range d.Panels {
		if seen[p.ID] || p.Title == "" || len(p.Targets) == 0 || p.GridPos.W+p.GridPos.X > 24 {
			t.Errorf("%+v", p)
		}
		seen[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if used[at] != "" {
					t.Fatalf("%s lies on %s", p.Title, used[at])
				}
				used[at] = p.Title
			}
		}
		for _, q := range p.Targets {
			if !metricName.MatchString(q.Expr) || strings.Count(q.Expr, "(") != strings.Count(q.Expr, ")") {
				t.Errorf("%s: %q", p.Title, q.Expr)
			}
		}
	}
	if strings.Contains(string(raw), "domid") {
		t.Error("domid in the dashboard")
	}
}
