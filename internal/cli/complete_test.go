package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/api"
)

func TestComplete(t *testing.T) {
	s := &fakeService{list: []api.DomainStatus{{Domain: "web"}, {Domain: "db"}, {}}}
	for _, c := range []struct {
		words string // the last is to be completed
		want  string
	}{
		{"w", "web"},
		{"en", "enable"},
		{"__", ""}, // what is hidden is not for people
		{"enable w", "web"},
		{"enable web ", ""}, // one domain is enough
		{"web d", ""},
		{"web --fo", "--force"},
		{"--force w", "web"},
		{"--co", "--cold"},
		{"enable --co", "--content"},
		{"enable --content ", "none sample= full"},
		{"enable --content=full d", "db"},
		{"enable --uncertain r", "refuse"},
		{"-o ", "text json"},
		{"-o j", "json"},
		{"-o json db", "db"},
		{"-o json disa", "disable"},
		{"status --wait ", "web db"},
		{"status --socket /x w", "web"},
	} {
		r := runCLI(s, nil, append([]string{"__complete"}, strings.Split(c.words, " ")...)...)
		got := strings.Fields(r.out)
		if want := strings.Fields(c.want); r.code != 0 || r.stderr != "" || !sameSet(got, want) {
			t.Errorf("%q: %+v, want %q", c.words, r, want)
		}
	}
	if r := runCLI(s, nil, "__complete"); !strings.Contains(r.out, "status\n") || !strings.Contains(r.out, "web\n") {
		t.Errorf("nothing yet: %+v", r)
	}
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// TestCompleteWithoutAgent: commands are completed though nobody knows domains,
// and nothing is said about it.
func TestCompleteWithoutAgent(t *testing.T) {
	r := runCLI(&fakeService{err: api.Errorf(api.AgentDown, "down")}, nil, "__complete", "dr")
	if r.code != 0 || r.out != "drop\n" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
}
