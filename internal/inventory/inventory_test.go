package inventory

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk/storetest"
	"github.com/warmreboot/warmreboot/xenctl"
)

type domains []xenctl.DomainInfo

func (d domains) Domains() ([]xenctl.DomainInfo, error) { return d, nil }

func TestList(t *testing.T) {
	ctx := context.Background()
	x := domains{{Domid: 0}, {Domid: 3, UUID: ident.UUID{3}}, {Domid: 4, UUID: ident.UUID{4}}, {Domid: 5, UUID: ident.UUID{5}, Dying: true},
		{Domid: 7, UUID: ident.UUID{3}}, {Domid: 8, UUID: ident.UUID{4}, Paused: true}, {Domid: 9, UUID: ident.UUID{9}, Shutdown: true}, {Domid: 10, UUID: ident.UUID{9}}}
	s := storetest.New(map[string]string{"/local/domain/3/name": "web", "/local/domain/4/name": "web-dm", "/local/domain/4/target": "3",
		"/local/domain/7/name": "copy", "/local/domain/8/name": "x--incoming", "/local/domain/9/name": "db", "/local/domain/10/name": "db"})
	all, err := List(ctx, x, s)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, d := range all {
		got += fmt.Sprintf("%d %s twin %d; ", d.Domid, d.Name, d.Twin)
	}
	const want = "3 web twin 7; 7 copy twin 3; 8 x--incoming twin 0; 9 db twin 0; 10 db twin 0; "
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for word, want := range map[string]ident.Domid{"web": 3, "7": 7, "db": 10, "9": 9, ident.UUID{9}.String(): 10, "web-dm": 0, "4": 0, "5": 0, "": 0} {
		d, err := Find(all, word)
		if err != nil || d == nil != (want == 0) || d != nil && d.Domid != want {
			t.Errorf("%q: %+v, %v", word, d, err)
		}
	}
	var e *api.Error
	if _, err := Find(all, ident.UUID{3}.String()); !errors.As(err, &e) || e.Code != api.BadRequest {
		t.Errorf("of two domains: %v", err)
	}
	// What cannot be read is not taken for something else.
	s.Fail(func(string) error { return errors.New("resource temporarily unavailable") })
	if all, err := List(ctx, x, s); err == nil {
		t.Errorf("%+v", all)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	s.Fail(nil)
	if _, err := List(ended, x, s); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
