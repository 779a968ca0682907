package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/api"
)

func TestDrop(t *testing.T) {
	s := &fakeService{drop: api.DropResult{Domain: "web", Pages: 5, ImagePages: 256}}
	r := runCLI(s, nil, "drop", "web")
	if r.code != 0 || !slices.Equal(s.asked, []string{"drop web"}) || !strings.Contains(r.out, "forgot 5 pages") {
		t.Errorf("%+v, asked %q", r, s.asked)
	}
	var got api.DropResult
	runCLI(s, nil, "-o", "json", "drop", "web").json(t, &got)
	if got != s.drop {
		t.Errorf("%+v", got)
	}
}
