package cli

import (
	"fmt"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk/storetest"
	"github.com/warmreboot/warmreboot/xenctl"
)

// TestWhichDomain: without the agent, too, a word means one domain, by xl's rule, or
// it is said that it means two.
func TestWhichDomain(t *testing.T) {
	x := newFakeXen()
	l := x.local()
	store := l.store.(*storetest.Store)
	for domid, name := range map[ident.Domid]string{7: "12", 12: "db", 20: "7", 21: "twin", 22: "twin"} {
		store.Set(fmt.Sprintf("/local/domain/%d/name", domid), name)
		x.others = append(x.others, xenctl.DomainInfo{Domid: domid, UUID: ident.UUID{byte(domid)}, HVM: true})
	}
	down := &fakeService{err: api.Errorf(api.AgentDown, "down")}
	for word, want := range map[string]string{"7": "domain 12 ", "12": "domain db ", "012": "domain db ", "20": "domain 7 ", "web": "domain web ",
		ident.UUID{20}.String(): "domain 7 "} {
		if r := runCLI(down, l, "status", word); r.code != 0 || !strings.HasPrefix(r.out, want) {
			t.Errorf("%s: %+v", word, r)
		}
	}
	if r := runCLI(down, l, "status", "twin"); r.code != ExitUsage || !strings.Contains(r.stderr, "21") || !strings.Contains(r.stderr, "22") {
		t.Errorf("%+v", r)
	}
	if r := runCLI(down, l, "status", "62"); r.code != ExitNotFound {
		t.Errorf("%+v", r)
	}
}
