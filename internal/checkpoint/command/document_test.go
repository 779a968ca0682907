package command

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestManPage: it names every command and option.
func TestManPage(t *testing.T) {
	page, err := ManPage()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range (&env{}).app().Commands {
		if has := strings.Contains(page, ".SH "+c.Name+"\n"); has == c.Hidden {
			t.Errorf("command %s: %v", c.Name, has)
		}
		for _, f := range c.Flags {
			name := f.Names()[0]
			if name = strings.Repeat("-", min(len(name), 2)) + name; !strings.Contains(page, name) {
				t.Errorf("no option %s of %s", name, c.Name)
			}
		}
	}
}

func TestComplete(t *testing.T) {
	b, _ := ten(t)
	t.Setenv(rootVariable, b.root)
	var checkpoints []string
	for n := range 10 {
		checkpoints = append(checkpoints, "web@"+string(rune('1'+n)))
	}
	checkpoints[9] = "web@10"
	checkpoints = append(checkpoints, "web@last")
	for _, c := range []struct {
		words string // the last is to be completed
		want  []string
	}{
		{"im", []string{"import"}},
		{"__", nil}, // what is hidden is not for people
		{"import ", nil},
		{"import --la", []string{"--label"}},
		{"export ", checkpoints},
		{"export web@1", []string{"web@1", "web@10"}},
		{"export web@1 ", nil}, // one is enough
		{"export --format v", []string{"vmcore"}},
		{"export --format vmcore web@2", []string{"web@2"}},
		{"diff web@1 ", checkpoints},
		{"bisect web@1 web@l", []string{"web@last"}},
		{"bisect web@1 web@2 -- ", nil},
		{"log ", []string{"web"}},
		{"grep web ", nil},
		{"forget ", append([]string{"web"}, checkpoints...)},
		{"forget web@1 web@2", []string{"web@2"}},
		{"list ", []string{"web"}},
	} {
		got := strings.Fields(b.run(0, nil, append([]string{"__complete"}, strings.Split(c.words, " ")...)...))
		if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(c.want))) {
			t.Errorf("%q: %q, want %q", c.words, got, c.want)
		}
	}
	other := filepath.Join(t.TempDir(), "none")
	if got := b.run(0, nil, "__complete", "--store", other, "log", ""); got != "" {
		t.Errorf("of a store that is not there: %q", got)
	}
}
