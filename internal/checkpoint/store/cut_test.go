package store

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var seeds = flag.Uint64("seeds", 2, "TestCuts: how many stores are made and cut")

// files is the content of a store's folder.
type files map[string][]byte

func readFiles(t *testing.T, dir string) files {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := files{}
	for _, e := range list {
		if f[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f files) write(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range f {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// moment is a store as a crash may find it.
type moment struct {
	what      string
	files     files
	must, may map[Epoch]memory
}

// TestCuts: a store is cut, as by kill -9 and by loss of power, between any two
// steps of what changes files, and in the middle of what was written and not yet
// synced: at each record's boundary and anywhere, with the tail missing, zero, or
// other bytes, or with a sector of it missing while what came later is there.
// Whoever opens it next finds each committed checkpoint as it was, none that was
// never whole, and can go on.
func TestCuts(t *testing.T) {
	cuts := 0
	for seed := range *seeds {
		r := rand.New(rand.NewPCG(seed, 77))
		g := &guest{r: rand.New(rand.NewPCG(seed, 2)), now: memory{}}
		dir := t.TempDir()
		must, may := map[Epoch]memory{}, map[Epoch]memory{}
		synced := map[string]int{} // bytes of a segment that are surely on the disk
		var moments []moment
		o := small
		var w *Writer
		o.step = func(what string) {
			f := readFiles(t, dir)
			m := moment{what, f, maps.Clone(must), maps.Clone(may)}
			switch {
			case what == "segment renamed":
				for name, b := range f {
					if strings.HasSuffix(name, ".log") && synced[name] == 0 {
						synced[name] = len(b)
					}
				}
			case what == "commit durable":
				synced[filepath.Base(w.active.path)] = len(f[filepath.Base(w.active.path)])
			case what == "commit written":
				moments = append(moments, torn(r, m, filepath.Base(w.active.path), synced)...)
			case what == "record written" && r.IntN(4) > 0:
				return
			}
			moments = append(moments, m)
		}
		var err error
		if w, err = OpenWriter(dir, o); err != nil {
			t.Fatal(err)
		}
		for step := range 26 {
			if step%9 == 8 { // forget some, free them
				var gone []Epoch
				for e, m := range must {
					if g.r.IntN(2) == 0 {
						gone = append(gone, e)
						delete(must, e)
						may[e] = m
					}
				}
				if err := w.Forget(gone); err != nil {
					t.Fatal(err)
				}
				for _, e := range gone {
					delete(may, e)
				}
				if _, err := w.Collect(); err != nil {
					t.Fatal(err)
				}
				for name, b := range readFiles(t, dir) {
					synced[name] = len(b)
				}
				continue
			}
			before := len(moments)
			e, m, err := g.checkpoint(w)
			if err != nil {
				t.Fatal(err)
			}
			if e != 0 {
				must[e] = m
				for i := before; i < len(moments); i++ { // whole, though nobody was told
					moments[i].may[e] = m
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for i, m := range moments {
			cuts++
			what := fmt.Sprintf("seed %d, cut %d, %s", seed, i, m.what)
			there := filepath.Join(t.TempDir(), "cut")
			m.files.write(t, there)
			survived(t, there, m, what, i%5 == 0)
			if err := os.RemoveAll(there); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d cuts", cuts)
	if cuts < 1000 {
		t.Errorf("only %d cuts", cuts)
	}
}

// survived opens a store that was cut.
func survived(t *testing.T, dir string, m moment, what string, goOn bool) {
	t.Helper()
	w, err := OpenWriter(dir, small)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	n := 0
	for _, i := range w.Infos() {
		want, ok := m.must[i.Epoch]
		if ok {
			n++
		} else if want, ok = m.may[i.Epoch]; !ok {
			t.Fatalf("%s: checkpoint %d is there", what, i.Epoch)
		}
		if err := same(w.view, i.Epoch, want); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if n != len(m.must) {
		t.Fatalf("%s: %d of %d committed checkpoints are there", what, n, len(m.must))
	}
	must := maps.Clone(m.must)
	if goOn {
		if _, err := w.Collect(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		c, err := w.Begin(Info{Domain: "web"}, true)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		page := modelPage{data: strings.Repeat("after", PageSize/5) + "!"}
		if err := c.Page(3, Data, []byte(page.data)); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		info, err := c.Commit([]byte(stateOf(c.Epoch())))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		must[info.Epoch] = memory{3: page}
	}
	if err := w.Close(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	check(t, dir, must, m.may, what)
}

// torn returns what loss of power may leave of bytes that were written to a
// segment and not synced.
func torn(r *rand.Rand, m moment, name string, synced map[string]int) []moment {
	whole := m.files[name]
	safe := synced[name]
	var list []moment
	add := func(what string, b []byte) {
		f := maps.Clone(m.files)
		f[name] = b
		list = append(list, moment{what, f, maps.Clone(m.must), maps.Clone(m.may)})
	}
	var at []int
	for off := safe; off+recordHeader <= len(whole); {
		at = append(at, off, off+recordHeader)
		rec := whole[off:]
		off += recordHeader + int(uint32(rec[12])|uint32(rec[13])<<8|uint32(rec[14])<<16|uint32(rec[15])<<24)
	}
	at = append(at, len(whole)-1)
	for range 6 {
		at = append(at, safe+r.IntN(len(whole)-safe))
	}
	for k, cut := range at {
		cut = min(cut, len(whole))
		add(fmt.Sprintf("cut at %d of %d, safe %d", cut, len(whole), safe), whole[:cut])
		b := bytes.Clone(whole)
		tail := b[cut:]
		switch k % 3 {
		case 0:
			clear(tail)
		case 1:
			for i := range tail {
				tail[i] = byte(r.Uint32())
			}
		case 2: // a sector did not arrive
			clear(tail[:min(len(tail), 512)])
		}
		add(fmt.Sprintf("tail %d from %d of %d, safe %d", k%3, cut, len(whole), safe), b)
	}
	return list
}
