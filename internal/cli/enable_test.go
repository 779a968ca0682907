package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/api"
)

func TestEnable(t *testing.T) {
	s := &fakeService{status: api.DomainStatus{Domain: "web", Message: "from its next boot on"}}
	r := runCLI(s, nil, "enable", "web", "--content", "full", "--uncertain=refuse", "--ttl", "90s")
	want := api.Policy{Content: "full", Uncertain: "refuse", TTLSeconds: 90}
	if r.code != 0 || !slices.Equal(s.asked, []string{"enable web"}) || s.policy != want {
		t.Errorf("%+v, asked %q, %+v", r, s.asked, s.policy)
	}
	if !strings.Contains(r.out, "enabled") || !strings.Contains(r.out, "note: from its next boot on") {
		t.Errorf("%q", r.out)
	}
	runCLI(s, nil, "enable", "web")
	if want := (api.Policy{Content: "sample=256", Uncertain: "full"}); s.policy != want {
		t.Errorf("defaults: %+v", s.policy)
	}
	var got api.DomainStatus
	runCLI(s, nil, "enable", "-o", "json", "web").json(t, &got)
	if got.Domain != "web" {
		t.Errorf("%+v", got)
	}
}
