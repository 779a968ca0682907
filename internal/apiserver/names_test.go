package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

// oddNames are names as Xen allows them: it looks at none of their bytes.
var oddNames = []string{".", "..", "...", "a/b", "web/plan", "web/../../domains/db", "/", "//", "a//b", "%2e%2e", "%2F", "a b", "?x=1", "#x", "ümlaut",
	"a\nb", "\x00", "\x1b[2J", "caf\xe9", "history", "web/", "+", ";a=b", ":", "*", "{domain}", strings.Repeat("x", 4000)}

var askedUUID = ident.UUID{7}

// asked notes which domain each request was about.
type asked struct {
	echo
	askedSchedules
	verb, domain string
}

func (a *asked) note(verb, domain string) { a.verb, a.domain = verb, domain }

func (a *asked) Status(_ context.Context, d string, _ bool) (api.DomainStatus, error) {
	a.note("status", d)
	return api.DomainStatus{Domain: d, UUID: askedUUID}, nil
}
func (a *asked) Enable(_ context.Context, d string, _ api.Policy) (api.DomainStatus, error) {
	a.note("enable", d)
	return api.DomainStatus{Domain: d}, nil
}
func (a *asked) Disable(_ context.Context, d string) (api.DomainStatus, error) {
	a.note("disable", d)
	return api.DomainStatus{Domain: d}, nil
}
func (a *asked) Drop(_ context.Context, d string) (api.DropResult, error) {
	a.note("drop", d)
	return api.DropResult{Domain: d}, nil
}
func (a *asked) Plan(_ context.Context, r api.OperationRequest) (api.Plan, error) {
	a.note("plan", r.Domain)
	return api.Plan{Domain: r.Domain}, nil
}
func (a *asked) Reboot(_ context.Context, r api.OperationRequest) (api.Summary, error) {
	a.note("reboot", r.Domain)
	return api.Summary{Domain: r.Domain, Trigger: r.Mode}, nil
}
func (a *asked) Lock(_ context.Context, d string, _ api.LockRequest) (api.LockStatus, error) {
	a.note("lock", d)
	return api.LockStatus{Domain: d}, nil
}
func (a *asked) Unlock(_ context.Context, d string) (api.LockStatus, error) {
	a.note("unlock", d)
	return api.LockStatus{Domain: d}, nil
}
func (a *asked) Resume(_ context.Context, s string) (api.HaltedRules, error) {
	a.note("resume", s)
	return api.HaltedRules{Schedule: s}, nil
}

// TestAnyName: whatever bytes a name has, the daemon is asked about that domain
// and for nothing else, and the answer shows it.
func TestAnyName(t *testing.T) {
	a := &asked{}
	c := serve(t, Handler(a, ServeSchedules(a), ServeOperations(&instant{doer: a})))
	ctx := context.Background()
	for _, name := range oddNames {
		for verb, call := range map[string]func() (string, error){
			"status":  func() (string, error) { v, err := c.Status(ctx, name, false); return v.Domain, err },
			"enable":  func() (string, error) { v, err := c.Enable(ctx, name, api.Policy{}); return v.Domain, err },
			"disable": func() (string, error) { v, err := c.Disable(ctx, name); return v.Domain, err },
			"drop":    func() (string, error) { v, err := c.Drop(ctx, name); return v.Domain, err },
			"plan": func() (string, error) {
				v, err := c.Plan(ctx, api.OperationRequest{Kind: api.KindReboot, Domain: name, Mode: api.Cold})
				return v.Domain, err
			},
			"reboot": func() (string, error) { v, err := c.Reboot(ctx, name, api.Cold); return v.Domain, err },
			"lock":   func() (string, error) { v, err := c.Lock(ctx, name, api.LockRequest{}); return v.Domain, err },
			"unlock": func() (string, error) { v, err := c.Unlock(ctx, name); return v.Domain, err },
			"resume": func() (string, error) { v, err := c.Resume(ctx, name); return v.Schedule, err },
		} {
			a.verb, a.domain = "nothing", ""
			shown, err := call()
			want := name
			if verb == "reboot" && !utf8.ValidString(name) { // which a JSON text cannot hold
				want = askedUUID.String()
			}
			if err != nil || a.verb != verb || a.domain != want || shown != ident.UTF8(want) {
				t.Errorf("%s %.20q: %v; asked %s %.20q, shown %.20q", verb, name, err, a.verb, a.domain, shown)
			}
		}
	}
	// The name of no domain is no question.
	var e *api.Error
	if v, err := c.Status(ctx, "", false); !errors.As(err, &e) || e.Code != api.BadRequest {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := c.Resume(ctx, ""); !errors.As(err, &e) || e.Code != api.BadRequest {
		t.Errorf("%v", err)
	}
}

// longHistory has more entries than one answer could hold.
type longHistory struct{ n int }

func (l longHistory) History(context.Context, api.HistoryQuery) iter.Seq2[api.HistoryEntry, error] {
	return func(yield func(api.HistoryEntry, error) bool) {
		for i := range l.n {
			if !yield(api.HistoryEntry{ID: uint64(l.n - i), Error: strings.Repeat("x", 4096)}, nil) {
				return
			}
		}
	}
}

func TestLongHistory(t *testing.T) {
	const n = 10000 // the limit of the store; 40 MB
	c := serve(t, Handler(&echo{}, ServeHistory(longHistory{n})))
	all, err := api.All(c.History(context.Background(), api.HistoryQuery{}))
	if err != nil || len(all) != n || all[0].ID != n || all[n-1].ID != 1 {
		t.Errorf("%d entries, %v", len(all), err)
	}
}

// TestCutAnswer: an answer that is not whole is never taken for one that is.
func TestCutAnswer(t *testing.T) {
	for what, body := range map[string]string{
		"no end":      `{"item":{"id":2}}` + "\n" + `{"item":{"id":1}}` + "\n",
		"half a line": `{"item":{"id":2}}` + "\n" + `{"item":{"id":1},"e`,
		"nothing":     "",
		"an error":    `{"item":{"id":2}}` + "\n" + `{"error":{"code":"failed","message":"broken"}}` + "\n",
	} {
		c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", api.StreamType)
			_, _ = io.WriteString(w, body)
		}))
		if all, err := api.All(c.History(context.Background(), api.HistoryQuery{})); err == nil {
			t.Errorf("%s: %+v without an error", what, all)
		}
	}
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", api.ContentType)
		_, _ = fmt.Fprintf(w, `{"result":[{"domain":%q}]}`, strings.Repeat("x", 16<<20))
	}))
	if _, err := c.List(context.Background()); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("an endless answer: %v", err)
	}
	// Who is sent elsewhere does not go there.
	c = serve(t, http.RedirectHandler("/v1/domains/db", http.StatusPermanentRedirect))
	var e *api.Error
	if _, err := c.Disable(context.Background(), "web"); !errors.As(err, &e) || e.Code != api.VersionSkew {
		t.Errorf("a redirect: %v", err)
	}
}
