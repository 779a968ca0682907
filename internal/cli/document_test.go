package cli

import (
	"io"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/internal/settings"
)

// TestManPages: they name every command and option that people may use.
func TestManPages(t *testing.T) {
	pages, err := ManPages()
	if err != nil {
		t.Fatal(err)
	}
	e := &env{stdout: io.Discard, stderr: io.Discard, rawOut: io.Discard, rawErr: io.Discard}
	page := pages["warmreboot.8"]
	for _, c := range e.app().Commands {
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
	page = pages["warmrebootd.8"]
	for _, want := range []string{"--socket", "--state-dir", "--debug", settings.DefaultStateDir} {
		if !strings.Contains(page, want) {
			t.Errorf("warmrebootd.8 has no %s", want)
		}
	}
}
