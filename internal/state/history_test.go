package state

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
)

var (
	web   = ident.UUID{1}
	db    = ident.UUID{2}
	start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func openStore(t *testing.T, limits Limits) (*Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), FileName)
	s, err := Open(path, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, path
}

func entry(uuid ident.UUID, name string, n int, by api.Origin) api.HistoryEntry {
	at := start.Add(time.Duration(n) * time.Hour)
	return api.HistoryEntry{At: at, Summary: api.Summary{UUID: uuid, Domain: name, Sequence: uint64(n),
		Started: at, By: by, Outcome: "warm", PagesRestored: uint64(n)}}
}

func ids(entries []api.HistoryEntry) (all []uint64) {
	for _, e := range entries {
		all = append(all, e.PagesRestored)
	}
	return all
}

func query(t *testing.T, s *Store, q api.HistoryQuery) []api.HistoryEntry {
	t.Helper()
	all, err := api.All(s.History(context.Background(), q))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestOddName: a name of any bytes can be told from others in the history, and is found
// there by its bytes and as it is shown.
func TestOddName(t *testing.T) {
	s, path := openStore(t, Limits{})
	for n, name := range []string{"caf\xe9", "caf\xe8"} {
		if _, err := s.Add(entry(ident.UUID{byte(n + 1)}, name, n, api.ByOperator)); err != nil {
			t.Fatal(err)
		}
	}
	for _, word := range []string{"caf\xe9", `caf\xe9`} {
		if all := query(t, s, api.HistoryQuery{Domain: word}); len(all) != 1 || all[0].UUID != (ident.UUID{1}) || all[0].Domain != `caf\xe9` {
			t.Errorf("%q: %+v", word, all)
		}
	}
	if err := s.Lock(Lock{UUID: web, Domain: "caf\xe9", Owner: "J\xfcrgen", TTL: 60}, Moment{Boot: "b"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if l, ok := s.LockOf(web, Moment{Boot: "b"}); !ok || l.Domain != `caf\xe9` || l.Owner != `J\xfcrgen` {
		t.Errorf("%+v", l)
	}
}

func TestHistory(t *testing.T) {
	s, path := openStore(t, Limits{})
	for n := 1; n <= 6; n++ {
		e := entry(web, "web", n, api.ByOperator)
		if n%2 == 0 {
			e = entry(db, "db", n, api.BySchedule)
		}
		if _, err := s.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	// The agent was killed after it had recorded the last reboot of db.
	again, err := s.Add(entry(db, "db", 6, api.BySchedule))
	if err != nil {
		t.Fatal(err)
	}
	// Survives a restart.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(path, Limits{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, c := range []struct {
		q    api.HistoryQuery
		want []uint64
	}{
		{api.HistoryQuery{}, []uint64{6, 5, 4, 3, 2, 1}},
		{api.HistoryQuery{Limit: 2}, []uint64{6, 5}},
		{api.HistoryQuery{Domain: "web"}, []uint64{5, 3, 1}},
		{api.HistoryQuery{Domain: db.String(), Limit: 1}, []uint64{6}},
		{api.HistoryQuery{By: api.BySchedule, Since: start.Add(4 * time.Hour)}, []uint64{6, 4}},
		{api.HistoryQuery{Domain: "nobody"}, nil},
	} {
		got := query(t, s, c.q)
		if g := ids(got); len(g) != len(c.want) || len(g) > 0 && !equal(g, c.want) {
			t.Errorf("%+v: %v, want %v", c.q, g, c.want)
		}
	}
	if last, ok := s.Last(db); !ok || last.ID != again || last.Sequence != 6 {
		t.Errorf("last: %+v, %v", last, ok)
	}
	if err := s.Annotate(db, again, func(e *api.HistoryEntry) { e.Followed = "alert" }); err != nil {
		t.Fatal(err)
	}
	if got := query(t, s, api.HistoryQuery{Limit: 1}); got[0].Followed != "alert" || got[0].PagesRestored != 6 {
		t.Errorf("annotated: %+v", got[0])
	}
	if err := s.Annotate(web, again, func(*api.HistoryEntry) {}); err == nil {
		t.Error("annotated an entry of another domain")
	}
	// A domain that was disabled and enabled counts from 1 again.
	e := entry(db, "db", 6, api.ByGuest)
	e.Started = e.Started.Add(time.Minute)
	if id, err := s.Add(e); err != nil || id == again {
		t.Errorf("another reboot with the same number: %d, %v", id, err)
	}
}

// TestPages: a long history of many domains is yielded whole and in its order, a page
// at a time; who shows it may be slow, and in no writer's way, and what is written or
// forgotten meanwhile does no harm.
func TestPages(t *testing.T) {
	const each, domains = 150, 7
	s, _ := openStore(t, Limits{PerDomain: each})
	s.db.NoSync = true
	add := func(n int) {
		t.Helper()
		u := ident.UUID{byte(n%domains + 1)}
		if _, err := s.Add(entry(u, "d"+u.String()[:2], n, api.ByGuest)); err != nil {
			t.Fatal(err)
		}
	}
	const n = each * domains
	for i := 1; i <= n; i++ {
		add(i)
	}
	for what, c := range map[string]struct {
		q           api.HistoryQuery
		first, last uint64
		count       int
	}{
		"all":             {api.HistoryQuery{}, n, 1, n},
		"limit":           {api.HistoryQuery{Limit: pageSize + 1}, n, n - pageSize, pageSize + 1},
		"page":            {api.HistoryQuery{Limit: 3, Before: n - 5}, n - 6, n - 8, 3},
		"below the first": {api.HistoryQuery{Before: 1}, 0, 0, 0},
		"above the last":  {api.HistoryQuery{Before: 1 << 63, Limit: 1}, n, n, 1},
		"a UUID":          {api.HistoryQuery{Domain: ident.UUID{3}.String()}, n - n%domains - domains + 2, 2, each},
		"a UUID, page":    {api.HistoryQuery{Domain: ident.UUID{3}.String(), Before: 100, Limit: 2}, 93, 86, 2},
		"a name":          {api.HistoryQuery{Domain: "d03"}, n - n%domains - domains + 2, 2, each},
		"nobody":          {api.HistoryQuery{Domain: ident.UUID{99}.String()}, 0, 0, 0},
		"since":           {api.HistoryQuery{Since: start.Add((n - 1) * time.Hour)}, n, n - 1, 2},
	} {
		all := query(t, s, c.q)
		if len(all) != c.count || c.count > 0 && (all[0].ID != c.first || all[len(all)-1].ID != c.last) {
			t.Errorf("%s: %d entries, want %d", what, len(all), c.count)
			if len(all) > 0 {
				t.Errorf("%s: %d to %d", what, all[0].ID, all[len(all)-1].ID)
			}
		}
		if !slices.IsSortedFunc(all, func(a, b api.HistoryEntry) int { return cmp.Compare(b.ID, a.ID) }) {
			t.Errorf("%s: not in order", what)
		}
	}
	shown := 0
	for e, err := range s.History(t.Context(), api.HistoryQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if shown++; shown == 1 {
			if e.ID != n {
				t.Errorf("%d is the first", e.ID)
			}
			for i := n + 1; i <= 2*n-10; i++ { // forgets all but ten of those that are to be shown
				add(i)
			}
		}
	}
	if shown < pageSize || shown > pageSize+10 {
		t.Errorf("%d were shown", shown)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if all, err := api.All(s.History(ctx, api.HistoryQuery{})); !errors.Is(err, context.Canceled) || len(all) != 0 {
		t.Errorf("%d entries, %v", len(all), err)
	}
}

func equal(a, b []uint64) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestBounds: a domain that reboots all the time pushes out its own entries,
// never the others'.
func TestBounds(t *testing.T) {
	s, _ := openStore(t, Limits{Entries: 8, PerDomain: 6})
	for n := 1; n <= 3; n++ {
		if _, err := s.Add(entry(web, "web", n, "")); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; n <= 40; n++ {
		if _, err := s.Add(entry(db, "db", n, "")); err != nil {
			t.Fatal(err)
		}
	}
	if got := ids(query(t, s, api.HistoryQuery{Domain: "web"})); !equal(got, []uint64{3, 2, 1}) || len(got) != 3 {
		t.Errorf("web: %v", got)
	}
	if got := ids(query(t, s, api.HistoryQuery{Domain: "db"})); !equal(got, []uint64{40, 39, 38, 37, 36}) || len(got) != 5 {
		t.Errorf("db: %v", got)
	}
	if last, ok := s.Last(db); !ok || last.Sequence != 40 {
		t.Errorf("last: %+v", last)
	}
}

// damages are ways in which a file is not what was written.
var damages = map[string]func([]byte) []byte{
	"meta":      func(b []byte) []byte { return bytes.Repeat([]byte{0xff}, len(b)) },
	"half":      func(b []byte) []byte { return b[:2*os.Getpagesize()] },
	"truncated": func(b []byte) []byte { return b[:100] },
	"pages": func(b []byte) []byte {
		for i := 2 * os.Getpagesize(); i < len(b); i++ {
			b[i] = 0xa5
		}
		return b
	},
}

// TestDamaged: a history that is proved damaged is set aside, and costs nobody a
// lock. Who only reads is told, and survives.
func TestDamaged(t *testing.T) {
	for what, damage := range damages {
		s, path := openStore(t, Limits{})
		if _, err := s.Add(entry(web, "web", 1, "")); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Lock(Lock{UUID: web, Domain: "web", Owner: "ann", TTL: 3600}, moment(0)), s.Stop("weekly", "not well"), s.Close()); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, damage(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := OpenReadOnly(path); r != nil || err == nil {
			t.Fatalf("%s: read nevertheless: %v", what, err)
		}
		s, err = Open(path, Limits{})
		if s == nil || err == nil || !strings.Contains(err.Error(), "history begins anew") {
			t.Fatalf("%s: store %v, error %v", what, s, err)
		}
		if _, err := s.Add(entry(web, "web", 2, "")); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(path + ".corrupt"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if locks := s.Locks(moment(0)); len(locks) != 1 || len(s.Stopped()) != 1 || s.Lost() != "" {
			t.Errorf("%s: locks %v, stopped %v, %q", what, locks, s.Stopped(), s.Lost())
		}
		s.Close()
	}
}

// TestShortage: what cannot be done now is no damage. Nothing is set aside, and
// with the shortage over everything is there.
func TestShortage(t *testing.T) {
	for what, short := range map[string]func(*bolt.Options){
		"no address space": func(o *bolt.Options) { o.InitialMmapSize = 1 << 47 },
		"cannot be written": func(o *bolt.Options) {
			o.OpenFile = func(path string, _ int, mode os.FileMode) (*os.File, error) {
				return os.OpenFile(path, os.O_RDONLY, mode)
			}
		},
		"no file descriptors": func(o *bolt.Options) {
			o.OpenFile = func(string, int, os.FileMode) (*os.File, error) { return nil, syscall.EMFILE }
		},
		"no locks": func(o *bolt.Options) {
			o.OpenFile = func(string, int, os.FileMode) (*os.File, error) { return nil, syscall.ENOLCK }
		},
	} {
		s, path := openStore(t, Limits{})
		if _, err := s.Add(entry(web, "web", 1, "")); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Lock(Lock{UUID: web, Domain: "web", Owner: "ann", TTL: 3600}, moment(0)), s.Stop("weekly", "not well"), s.Close()); err != nil {
			t.Fatal(err)
		}
		was := bolting
		short(&bolting)
		s, err := Open(path, Limits{})
		bolting = was
		if s != nil || err == nil {
			t.Errorf("%s: opened: %v", what, err)
		}
		if found, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.corrupt*")); len(found) > 0 {
			t.Errorf("%s: set aside %v, for %v", what, found, err)
		}
		if s, err = Open(path, Limits{}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if locks := s.Locks(moment(0)); len(locks) != 1 || len(s.Stopped()) != 1 || len(query(t, s, api.HistoryQuery{})) != 1 {
			t.Errorf("%s: %v, %v", what, locks, s.Stopped())
		}
		s.Close()
	}
}

// TestNewer: a database of a newer version is not touched.
func TestNewer(t *testing.T) {
	s, path := openStore(t, Limits{})
	if err := s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(schemaKey, []byte("2")) }); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s, err := Open(path, Limits{}); s != nil || err == nil || !strings.Contains(err.Error(), "of version 2") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(path + ".corrupt"); err == nil {
		t.Error("set aside")
	}
}

// TestUnreadableEntry: one entry that cannot be decoded is shown as such, with all
// the others.
func TestUnreadableEntry(t *testing.T) {
	s, _ := openStore(t, Limits{})
	for n := 1; n <= 3; n++ {
		if _, err := s.Add(entry(web, "web", n, "")); err != nil {
			t.Fatal(err)
		}
	}
	err := s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(rebootsBucket).Bucket(web[:]).Put(idKey(2), []byte("{")) })
	if err != nil {
		t.Fatal(err)
	}
	all := query(t, s, api.HistoryQuery{})
	if len(all) != 3 || all[1].ID != 2 || all[1].Outcome != "failed" || !strings.Contains(all[1].Error, "cannot be read") || all[2].PagesRestored != 1 {
		t.Errorf("%+v", all)
	}
}

func TestBusyAndReadOnly(t *testing.T) {
	s, path := openStore(t, Limits{})
	if _, err := s.Add(entry(web, "web", 1, "")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Limits{}); !errors.Is(err, ErrBusy) {
		t.Errorf("second writer: %v", err)
	}
	if _, err := OpenReadOnly(path); !errors.Is(err, ErrBusy) {
		t.Errorf("reader beside the daemon: %v", err)
	}
	s.Close()
	r, err := OpenReadOnly(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := query(t, r, api.HistoryQuery{}); len(got) != 1 {
		t.Errorf("%v", got)
	}
	if _, err := r.Add(entry(web, "web", 2, "")); err == nil {
		t.Error("wrote to a store opened for reading")
	}
}
