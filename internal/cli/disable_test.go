package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

func TestDisable(t *testing.T) {
	s := &fakeService{status: api.DomainStatus{Domain: "web"}}
	r := runCLI(s, nil, "disable", "web")
	if r.code != 0 || !slices.Equal(s.asked, []string{"disable web"}) || !strings.Contains(r.out, "disabled") {
		t.Errorf("%+v, asked %q", r, s.asked)
	}
}

func TestDisableAll(t *testing.T) {
	web, db := ident.UUID{1}, ident.UUID{2}
	s := &fakeService{list: []api.DomainStatus{{Domain: "web", UUID: web, Managed: true}, {Domain: "other"}, {Domain: "db", UUID: db, Enabled: true}},
		status: api.DomainStatus{Domain: "one"}}
	r := runCLI(s, nil, "disable", "--all")
	if want := []string{"list", "disable " + web.String(), "disable " + db.String()}; r.code != 0 || !slices.Equal(s.asked, want) {
		t.Errorf("%+v, asked %q", r, s.asked)
	}
	for _, args := range [][]string{{"disable"}, {"disable", "--all", "web"}} {
		s := &fakeService{}
		if r := runCLI(s, nil, args...); r.code != ExitUsage || len(s.asked) != 0 {
			t.Errorf("%q: %+v, asked %q", args, r, s.asked)
		}
	}
}
