package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/internal/api"
)

func TestDisable(t *testing.T) {
	s := &fakeService{status: api.DomainStatus{Domain: "web"}}
	r := runCLI(s, nil, "disable", "web")
	if r.code != 0 || !slices.Equal(s.asked, []string{"disable web"}) || !strings.Contains(r.out, "disabled") {
		t.Errorf("%+v, asked %q", r, s.asked)
	}
}
