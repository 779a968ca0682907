package main

import (
	"bytes"
	"encoding/json"
	"io"
	"testing"

	"github.com/warmreboot/warmreboot/cachemap"
)

// TestShort keeps the benchmark alive: it runs to its end on small tables and
// reports on all of them. It asserts nothing about time.
func TestShort(t *testing.T) {
	var out bytes.Buffer
	if err := run(&out, io.Discard, options{"2000,20000", "", 2000, 20000, 1, t.TempDir(), 4 << 20}); err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Tables) != 5+2 || len(r.Content.Speeds) == 0 {
		t.Fatalf("%d tables, %d speeds", len(r.Tables), len(r.Content.Speeds))
	}
	for _, x := range r.Tables {
		if x.Total.WallSeconds <= 0 || x.Memory.WallSeconds <= 0 || (x.Kind == "sound") != (x.GoMap != nil) {
			t.Errorf("%+v", x)
		}
	}
	for _, s := range r.Content.Speeds {
		if s.GBPerSecond <= 0 {
			t.Errorf("%+v", s)
		}
	}
}

// TestTables: the tables are what their names say.
func TestTables(t *testing.T) {
	const n = 10_000
	for _, k := range kinds {
		m := &memory{entries: make([]cachemap.Entry, n), words: make([]uint64, (n+63)/64)}
		k.fill(m)
		for p := range n {
			m.words[p/64] |= 1 << (p % 64)
		}
		want := 0
		if k.harmful {
			want = n
		}
		if got := len(check(m).Drop); got != want {
			t.Errorf("%s: %d pages to drop, want %d", k.name, got, want)
		}
		if conflicts := goMaps(m); (conflicts > 0) != k.harmful && k.name != "many-vbds" {
			t.Errorf("%s: Go's maps find %d conflicts", k.name, conflicts)
		}
	}
}
