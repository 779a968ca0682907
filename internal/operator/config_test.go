package operator

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/toolstack"
)

// TestConfigOf: a domain's configuration is found by what is in it, whatever bytes its
// name has.
func TestConfigOf(t *testing.T) {
	dir := t.TempDir()
	o := &Operator{updates: &Updates{Configs: dir}}
	uuid := ident.UUID{1}
	for what, c := range map[string]struct {
		name, text string
		found      bool
	}{
		"by name":        {"web", "memory = 512\nname = 'web'\n", true},
		"by UUID":        {"web2", "uuid=\"" + uuid.String() + "\"\n", true},
		"another's":      {"web3", "name = 'web'\n", false},
		"in a comment":   {"web4", "# name = 'web4'\n", false},
		"a longer name":  {"web5", "name = 'web55'\n", false},
		"in Latin-1":     {"caf\xe9", "# d\xe9j\xe0\n\tname=\"caf\xe9\"\n", true},
		"a regexp's":     {"w(b*", "name = \"w(b*\"\n", true},
		"as one, not it": {"w.b", "name = \"web\"\n", false},
		"another key":    {"web6", "rename = 'web6'\n", false},
	} {
		path := filepath.Join(dir, c.name+".cfg")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := o.configOf(toolstack.Domain{Name: c.name, UUID: uuid}, ""); (got == path) != c.found || !c.found && got != "" {
			t.Errorf("%s: %q", what, got)
		}
	}
}
