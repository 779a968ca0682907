package campaign

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/tests/faults/guest"
	"github.com/warmreboot/warmreboot/tests/faults/hand"
)

func TestParsePlan(t *testing.T) {
	p, err := ParsePlan(2, "wild-write,none", 7, "both")
	if err != nil {
		t.Fatal(err)
	}
	want := []Key{
		{"wild-write", 7, Protected}, {"wild-write", 7, Trusting}, {None, 7, Protected}, {None, 7, Trusting},
		{"wild-write", 8, Protected}, {"wild-write", 8, Trusting}, {None, 8, Protected}, {None, 8, Trusting},
	}
	if got := p.Keys(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(p.Modes) != 2 {
		t.Errorf("modes: %v", p.Modes)
	}
	all, err := ParsePlan(1, "", 1, "protected")
	if err != nil || len(all.Types) != len(Types) || len(all.Modes) != 1 {
		t.Errorf("all types in one mode: %v, %v", all, err)
	}
	for _, bad := range []struct {
		runs        int
		types, mode string
	}{{0, "", ""}, {1, "no-such-type", ""}, {1, "", "naive"}} {
		if _, err := ParsePlan(bad.runs, bad.types, 1, bad.mode); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

func TestThereAreTwelveTypes(t *testing.T) {
	seen := map[string]bool{None: true}
	for _, name := range Types {
		seen[name] = true
	}
	if len(seen) != len(Types) || len(Types) < 13 {
		t.Errorf("%d different types of %d", len(seen), len(Types))
	}
	// Each is a type that the injector knows, and the other way round.
	source := ""
	for _, file := range []string{"text.c", "memory.c", "copy.c", "block.c"} {
		text, err := os.ReadFile(filepath.Join("..", "injector", file))
		if err != nil {
			t.Fatal(err)
		}
		source += string(text)
	}
	for _, name := range Types[1:] {
		if !strings.Contains(source, `.name = "`+name+`"`) {
			t.Errorf("the injector has no type %s", name)
		}
	}
	if n := strings.Count(source, ".name = "); n != len(Types)-1 {
		t.Errorf("the injector has %d types, want %d", n, len(Types)-1)
	}
}

func mismatch(served, page, disk bool) hand.Mismatch {
	return hand.Mismatch{Served: served, PageIntact: page, DiskIntact: disk, Restored: true}
}

func TestClassify(t *testing.T) {
	warm := api.Summary{PagesRestored: 100}
	pages := func(m ...hand.Mismatch) hand.Pages { return hand.Pages{Mismatches: m} }
	for name, c := range map[string]struct {
		result hand.Outcome
		want   Class
	}{
		"all is well":             {hand.Outcome{Up: true, Reboot: warm}, Consistent},
		"cold":                    {hand.Outcome{Up: true}, Cold},
		"did not come up":         {hand.Outcome{}, NoBoot},
		"corrupt page":            {hand.Outcome{Up: true, Reboot: warm, Pages: pages(mismatch(true, false, true))}, Inconsistent},
		"both corrupt":            {hand.Outcome{Up: true, Reboot: warm, Pages: pages(mismatch(true, false, false))}, Inconsistent},
		"disk wrong, cache right": {hand.Outcome{Up: true, Reboot: warm, Pages: pages(mismatch(true, true, false))}, Exception},
		"the guest sees it too":   {hand.Outcome{Up: true, Reboot: warm, Pages: pages(mismatch(true, true, false)), Seen: guest.Seen{Differ: []string{"a"}}}, Exception},
		"a written file":          {hand.Outcome{Up: true, Reboot: warm, Pages: pages(mismatch(false, false, false))}, Stale},
		"a library":               {hand.Outcome{Up: true, Reboot: warm, Pages: pages(mismatch(false, false, true))}, Inconsistent},
		"written and served":      {hand.Outcome{Up: true, Reboot: warm, Pages: pages(mismatch(false, false, false), mismatch(true, false, true))}, Inconsistent},
		"only the guest sees it":  {hand.Outcome{Up: true, Reboot: warm, Seen: guest.Seen{Differ: []string{"a"}}}, Inconsistent},
		"wrong on the disk":       {hand.Outcome{Up: true, Reboot: warm, Pages: hand.Pages{Corrupt: 2}}, DiskCorrupt},
		"wrong though not up":     {hand.Outcome{Pages: pages(mismatch(true, false, true))}, Inconsistent},
	} {
		if got := Classify(Result{Outcome: c.result}); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestResume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "results.jsonl")
	s, err := OpenStore(path)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := ParsePlan(2, "io-lost", 1, "protected")
	if err != nil {
		t.Fatal(err)
	}
	keys := plan.Keys()
	if err := s.Add(Result{Key: keys[0], Class: Consistent}); err != nil {
		t.Fatal(err)
	}
	// An interruption in the middle of the second line.
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteString(`{"type":"io-lost","seed":2,"mo`)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenStore(path); err != nil {
		t.Fatal(err)
	}
	if missing := s.Missing(keys); !reflect.DeepEqual(missing, keys[1:]) {
		t.Errorf("missing: %v", missing)
	}
	if err := s.Add(Result{Key: keys[1], Class: Cold}); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenStore(path); err != nil || len(s.Results) != 2 || s.Results[0].Class != NoBoot || len(s.Missing(keys)) != 0 {
		t.Errorf("%v, %v", s.Results, err)
	}
	if len(s.Missing([]Key{{"io-lost", 1, Trusting}})) != 1 {
		t.Error("the other mode counts as done")
	}
}

func TestStoreWantsResults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.jsonl")
	if err := os.WriteFile(path, []byte("rubbish\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(path); err == nil {
		t.Error("rubbish was read as a result")
	}
}

func sample() []Result {
	warm := api.Summary{PagesRestored: 100}
	bad := hand.Pages{Restored: 100, Mismatches: []hand.Mismatch{mismatch(true, false, true)}}
	return []Result{
		{Key: Key{"wild-write", 1, Protected}, Class: Consistent, Injected: 10, Outcome: hand.Outcome{Up: true, Reboot: warm, Pages: hand.Pages{Restored: 90}}},
		{Key: Key{"wild-write", 1, Trusting}, Class: Inconsistent, Injected: 4, Outcome: hand.Outcome{Ending: hand.Crashed, Up: true, Reboot: warm, Pages: bad}},
		{Key: Key{"text-flip", 1, Protected}, Class: Cold, Injected: 10, Outcome: hand.Outcome{Up: true}},
		{Key: Key{None, 1, Protected}, Class: Consistent, Outcome: hand.Outcome{Up: true, Pages: hand.Pages{Restored: 1000}}},
	}
}

func TestCount(t *testing.T) {
	tallies := Count(sample())
	if len(tallies) != 4 || tallies[0].Type != None || tallies[1].Type != "text-flip" || tallies[3].Mode != Trusting {
		t.Fatalf("%+v", tallies)
	}
	if tallies[3].Classes[Inconsistent] != 1 || tallies[3].Endings[hand.Crashed] != 1 || tallies[3].Wrong != 1 {
		t.Errorf("%+v", tallies[3])
	}
	total := Total(sample(), Protected)
	if total.Runs != 2 || total.Pages != 90 || total.Faults != 20 || warm(total) != 1 {
		t.Errorf("the control counts, or a run is missing: %+v", total)
	}
}

func TestBound(t *testing.T) {
	if Bound(300) != 0.01 || Bound(0) != 1 || Bound(2) != 1 {
		t.Error(Bound(300), Bound(0), Bound(2))
	}
}

func TestTableClaimsNothingWrong(t *testing.T) {
	if table := Table(sample()); !strings.Contains(table, "| wild-write | trusting | 1 | 4 |") || !strings.Contains(table, "95 %") {
		t.Error(table)
	}
	failed := append(sample(), Result{Key: Key{"io-lost", 1, Protected}, Class: Stale, Outcome: hand.Outcome{Up: true}})
	if table := Table(failed); strings.Contains(table, "95 %") {
		t.Error("a bound is given though a run was wrong:\n" + table)
	}
}

func TestFigure(t *testing.T) {
	figure := Figure(Count(sample()))
	decoder := xml.NewDecoder(strings.NewReader(figure))
	for {
		_, err := decoder.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"wild-write, trusting: inconsistent in 1 of 1 runs", "text-flip, protected: cold in 1 of 1 runs"} {
		if !strings.Contains(figure, want) {
			t.Errorf("not in the figure: %s", want)
		}
	}
	if strings.Contains(figure, "wild-write, protected:") {
		t.Error("a run after which all was well has a bar")
	}
}

func TestCountInjected(t *testing.T) {
	crashed := "fault text-flip: number 1\nfault text-flip: f+0x3/0x20: 89 becomes 88\nfault text-flip: number 2\nBUG: unable to"
	if n := countInjected([]byte(crashed)); n != 2 {
		t.Errorf("%d, want 2", n)
	}
	if n := countInjected([]byte(crashed + "\nfault text-flip: 9 of 10 injected\n")); n != 9 {
		t.Errorf("%d, want 9", n)
	}
}

func TestCopyState(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "beside")
	image := func(dir string) string { return filepath.Join(dir, "dom0.qcow2") }
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	copied := func(key string) string {
		if err := errors.Join(writeKey(from, key), copyState(from, to)); err != nil {
			t.Fatal(err)
		}
		if readKey(to) != key {
			t.Errorf("the copy is of %q, want %q", readKey(to), key)
		}
		text, err := os.ReadFile(image(to))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	write(image(from), "first")
	if got := copied("1"); got != "first" {
		t.Error(got)
	}
	write(image(to), "used") // by a run, which does not matter to the state in it
	if got := copied("1"); got != "used" {
		t.Errorf("a state that is there was copied again: %q", got)
	}
	write(image(from), "second")
	if got := copied("2"); got != "second" {
		t.Errorf("another state was not copied: %q", got)
	}
}
