package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// modelPage is a page as the model has it.
type modelPage struct {
	kind Kind
	data string
}

// memory is a model of a checkpoint: what is absent is not in it.
type memory map[uint32]modelPage

// guest changes a memory as guests do, and some ways that they do not.
type guest struct {
	r   *rand.Rand
	now memory
	old []memory
}

var modelPFNs = func() []uint32 {
	var l []uint32
	for i := range uint32(30) {
		l = append(l, i*3)
	}
	return append(l, 1023, 1024, 5000, 0xfeffc, 0xffffffff)
}()

func (g *guest) page(pfn uint32) modelPage {
	b := []byte(g.now[pfn].data)
	switch g.r.IntN(10) {
	case 0:
		return modelPage{kind: Absent}
	case 1:
		return modelPage{kind: Allocated}
	case 2:
		return modelPage{data: string(zeroPage[:])}
	case 3: // as it once was
		if len(g.old) > 0 {
			if p := g.old[g.r.IntN(len(g.old))][pfn]; p.data != "" {
				return p
			}
		}
	case 4: // can't be compressed
		b = make([]byte, PageSize)
		for i := range b {
			b[i] = byte(g.r.Uint32())
		}
		return modelPage{data: string(b)}
	}
	if len(b) == 0 {
		b = bytes.Repeat([]byte("text and more "), PageSize)[:PageSize]
	}
	for range 1 + g.r.IntN(20) {
		b[g.r.IntN(PageSize)] = byte(g.r.Uint32())
	}
	return modelPage{data: string(b)}
}

// checkpoint changes some pages, and writes a checkpoint.
func (g *guest) checkpoint(w *Writer) (Epoch, memory, error) {
	full := g.r.IntN(2) == 0 || w.kept != w.last || w.last == 0
	c, err := w.Begin(Info{Time: time.Unix(int64(1e9+3600*len(g.old)), 0), Domain: "web"}, full)
	if err != nil {
		return 0, nil, err
	}
	next := maps.Clone(g.now)
	put := func(pfn uint32, p modelPage) error {
		if next[pfn] = p; p.kind == Absent {
			delete(next, pfn)
		}
		var data []byte
		if p.kind == Data {
			data = []byte(p.data)
		}
		return c.Page(pfn, p.kind, data)
	}
	pfns := slices.Clone(modelPFNs)
	if g.r.IntN(3) == 0 {
		g.r.Shuffle(len(pfns), func(i, j int) { pfns[i], pfns[j] = pfns[j], pfns[i] })
	}
	for _, pfn := range pfns {
		old, there := g.now[pfn]
		var err error
		switch n := g.r.IntN(12); {
		case n < 4:
			err = put(pfn, g.page(pfn))
		case full && !there || full && n == 4: // not mentioned: gone
			delete(next, pfn)
		case full || there && n == 5: // mentioned, but as it was
			err = put(pfn, old)
		}
		if err == nil && g.r.IntN(10) == 0 { // and again
			p := g.page(pfn)
			if g.r.IntN(3) == 0 && there {
				p = old
			}
			err = put(pfn, p)
		}
		if err != nil {
			return 0, nil, err
		}
	}
	e := c.Epoch()
	if g.r.IntN(10) == 0 {
		return 0, nil, c.Abort()
	}
	info, err := c.Commit([]byte(stateOf(e)))
	if err != nil {
		return 0, nil, err
	}
	if info.Epoch != e || info.Bytes <= 0 || info.Meta <= 0 || info.Meta > info.Bytes {
		return 0, nil, fmt.Errorf("%+v", info)
	}
	g.now = next
	g.old = append(g.old, next)
	return e, next, nil
}

func stateOf(e Epoch) string { return fmt.Sprintf("the rest of checkpoint %d", e) }

// same compares a checkpoint in a store with the model.
func same(r *Reader, e Epoch, want memory) error {
	got := memory{}
	err := r.Pages(e, func(p Page) error {
		got[p.PFN] = modelPage{p.Kind, string(p.Data)}
		return nil
	})
	if err != nil {
		return err
	}
	if !maps.Equal(got, want) {
		for pfn := range want {
			if got[pfn] != want[pfn] {
				return fmt.Errorf("checkpoint %d: page %#x is not what was stored (kind %d, %d)", e, pfn, got[pfn].kind, want[pfn].kind)
			}
		}
		return fmt.Errorf("checkpoint %d has pages that were not stored", e)
	}
	state, err := r.State(e)
	if err != nil {
		return err
	}
	if string(state) != stateOf(e) {
		return fmt.Errorf("checkpoint %d: state %q", e, state)
	}
	m, err := r.Map(e)
	if err != nil {
		return err
	}
	for _, pfn := range modelPFNs[e%8 : e%8+2] {
		v, err := r.At(e, pfn)
		if err != nil || v != m.At(pfn) {
			return fmt.Errorf("page %#x at %d: %d by itself, %d in the map (%v)", pfn, e, v, m.At(pfn), err)
		}
		list, err := r.Versions(pfn)
		if err != nil || !slices.IsSorted(list) || v != 0 && !slices.Contains(list, v) {
			return fmt.Errorf("page %#x: version %d is not among %d (%v)", pfn, v, list, err)
		}
	}
	return nil
}

var small = Options{SegmentBytes: 40 << 10, SegmentCheckpoints: 5, noSync: true}

// TestModel: random guests, checkpoints, forgetting, collecting, reopening: what
// is read is always what was stored.
func TestModel(t *testing.T) {
	for seed := range uint64(12) {
		dir := t.TempDir()
		g := &guest{r: rand.New(rand.NewPCG(seed, 1)), now: memory{}}
		kept := map[Epoch]memory{}
		w, err := OpenWriter(dir, small)
		if err != nil {
			t.Fatal(err)
		}
		for step := range 60 {
			switch g.r.IntN(12) {
			case 0:
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				if w, err = OpenWriter(dir, small); err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, step, err)
				}
			case 1:
				var gone []Epoch
				for e := range kept {
					if g.r.IntN(3) == 0 {
						gone = append(gone, e)
						delete(kept, e)
					}
				}
				if err := w.Forget(gone); err != nil {
					t.Fatal(err)
				}
			case 2:
				if _, err := w.Collect(); err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, step, err)
				}
			default:
				e, m, err := g.checkpoint(w)
				if err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, step, err)
				}
				if e != 0 {
					kept[e] = m
				}
			}
			if step%6 == 5 {
				check(t, dir, kept, nil, fmt.Sprintf("seed %d, step %d", seed, step))
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		check(t, dir, kept, nil, fmt.Sprintf("seed %d", seed))
	}
}

// check compares a store with the checkpoints that must be in it, and those that
// may.
func check(t *testing.T, dir string, must, may map[Epoch]memory, what string) {
	t.Helper()
	r, err := Open(dir)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer r.Close()
	n := 0
	for _, i := range r.List() {
		want, ok := must[i.Epoch]
		if ok {
			n++
		} else if want, ok = may[i.Epoch]; !ok {
			t.Fatalf("%s: checkpoint %d is there", what, i.Epoch)
		}
		if err := same(r, i.Epoch, want); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if n != len(must) {
		t.Fatalf("%s: %d of %d committed checkpoints are there", what, n, len(must))
	}
	if v, err := Verify(dir); err != nil || v.Checkpoints != len(r.List()) {
		t.Fatalf("%s: %+v, %v", what, v, err)
	}
}

// TestFreedForGood: what only forgotten checkpoints had is in no file after
// Collect, also where others were encoded against it.
func TestFreedForGood(t *testing.T) {
	dir := t.TempDir()
	w, err := OpenWriter(dir, Options{SegmentCheckpoints: 2, noSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	random := make([]byte, PageSize) // is stored as it is
	r := rand.New(rand.NewPCG(3, 4))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	secret := bytes.Clone(random[100:300])
	var want []byte
	for i := range 6 {
		c, err := w.Begin(Info{}, true)
		if err != nil {
			t.Fatal(err)
		}
		p := bytes.Clone(random)
		if i > 0 {
			clear(p[100:300])
			p[4000] = byte(i)
		}
		want = p
		state := "state"
		if i == 0 {
			state = string(secret)
		}
		if err := c.Page(7, Data, p); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Commit([]byte(state)); err != nil {
			t.Fatal(err)
		}
	}
	if !inFiles(t, dir, secret[50:150]) {
		t.Fatal("the secret is not to be found before either")
	}
	if err := w.Forget([]Epoch{1, 3, 5}); err != nil {
		t.Fatal(err)
	}
	got, err := w.Collect()
	if err != nil || got.Dropped != 3 || got.After >= got.Before {
		t.Fatal(got, err)
	}
	if inFiles(t, dir, secret[50:150]) {
		t.Error("the forgotten page is still in a file")
	}
	rd, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	out := make([]byte, PageSize)
	if v, err := rd.At(6, 7); err != nil || v != 6 {
		t.Fatal(v, err)
	}
	if _, err := rd.Read(7, 6, out); err != nil || !bytes.Equal(out, want) {
		t.Error("the last checkpoint's page is another", err)
	}
	again, err := w.Collect()
	if err != nil || again.Dropped+again.Rewritten+again.Removed != 0 {
		t.Error("there was something left to do:", again, err)
	}
}

func inFiles(t *testing.T, dir string, what []byte) bool {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, what) {
			return true
		}
	}
	return false
}

// TestVerifyFindsEveryFlip: whatever bit is flipped in a segment or an index,
// Verify or opening says so, or it does not matter to any checkpoint.
func TestVerifyFindsEveryFlip(t *testing.T) {
	dir := t.TempDir()
	g := &guest{r: rand.New(rand.NewPCG(5, 6)), now: memory{}}
	w, err := OpenWriter(dir, small)
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		if _, _, err := g.checkpoint(w); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(dir); err != nil {
		t.Fatal(err)
	}
	logs, _ := filepath.Glob(filepath.Join(dir, "seg-*.log"))
	indices, _ := filepath.Glob(filepath.Join(dir, "seg-*.idx"))
	if len(logs) < 2 || len(indices) == 0 {
		t.Fatal(logs, indices)
	}
	for _, name := range append(logs, indices...) {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		isIndex := slices.Contains(indices, name)
		for range 60 {
			b := bytes.Clone(raw)
			b[g.r.IntN(len(b))] ^= 1 << g.r.IntN(8)
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Verify(dir)
			if isIndex && err == nil { // an index that is not taken is made again
				continue
			}
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s: a flipped bit was not found: %v", filepath.Base(name), err)
			}
		}
		if err := os.WriteFile(name, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOneWriterManyReaders(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	w, err := OpenWriter(dir, small)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := OpenWriter(dir, small); !errors.Is(err, ErrBusy) {
		t.Errorf("a second writer: %v", err)
	}
	g := &guest{r: rand.New(rand.NewPCG(7, 8)), now: memory{}}
	kept := map[Epoch]memory{}
	for range 12 {
		e, m, err := g.checkpoint(w)
		if err != nil {
			t.Fatal(err)
		}
		if e != 0 {
			kept[e] = m
		}
		check(t, dir, kept, nil, "beside the writer")
	}
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	list := r.List()
	first := list[0].Epoch
	if err := same(r, first, kept[first]); err != nil { // opens its segment
		t.Fatal(err)
	}
	if err := w.Forget([]Epoch{first}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Collect(); err != nil {
		t.Fatal(err)
	}
	if err := same(r, first, kept[first]); err != nil {
		t.Errorf("a reader that was open lost what it saw: %v", err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Join(dir, catalogueName): 0o600,
		segmentPath(dir, 1): 0o600, indexPath(segmentPath(dir, 1)): 0o600, filepath.Join(dir, "lock"): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
	if _, err := r.Map(first + 1000); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

// TestLimit: a checkpoint that does not fit is given up, and nothing else is lost.
func TestLimit(t *testing.T) {
	dir := t.TempDir()
	o := small
	o.MaxBytes = 200 << 10
	w, err := OpenWriter(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	g := &guest{r: rand.New(rand.NewPCG(9, 9)), now: memory{}}
	kept := map[Epoch]memory{}
	for range 200 {
		e, m, err := g.checkpoint(w)
		if errors.Is(err, ErrFull) {
			if w.open != nil {
				if err := w.open.Abort(); err != nil {
					t.Fatal(err)
				}
			}
			if n, err := Size(dir); err != nil || n > o.MaxBytes+64<<10 {
				t.Errorf("%d bytes, %v", n, err)
			}
			check(t, dir, kept, nil, "at the limit")
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if e != 0 {
			kept[e] = m
		}
	}
	t.Fatal("no limit")
}

// TestDepth: however often a page changes, few others have to be read for it.
func TestDepth(t *testing.T) {
	w, err := OpenWriter(t.TempDir(), Options{noSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p := bytes.Repeat([]byte("abcdefgh"), PageSize/8)
	r := rand.New(rand.NewPCG(1, 1))
	deepest, total := 0, int64(0)
	for i := range 100 {
		p[r.IntN(PageSize)] = byte(i) | 0x80
		c, err := w.Begin(Info{}, i == 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Page(1, Data, p); err != nil {
			t.Fatal(err)
		}
		info, err := c.Commit(nil)
		if err != nil {
			t.Fatal(err)
		}
		_, n, err := w.view.load(1, info.Epoch)
		if err != nil {
			t.Fatal(err)
		}
		deepest = max(deepest, n-1)
		total += info.Bytes - info.Meta - recordHeader
	}
	if deepest != maxDepth {
		t.Errorf("%d", deepest)
	}
	if total > 100*PageSize/10 {
		t.Errorf("%d bytes for 100 changes of a byte", total)
	}
}

func TestKeep(t *testing.T) {
	var infos []Info
	at := func(e Epoch, text string) {
		when, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, Info{Epoch: e, Time: when})
	}
	at(1, "2026-11-28T10:00:00Z")
	at(2, "2026-11-28T23:30:00Z")
	at(3, "2026-11-29T09:00:00Z")
	at(4, "2026-11-29T10:10:00Z")
	at(5, "2026-11-29T10:50:00Z")
	at(6, "2026-11-30T08:00:00Z")
	berlin := time.FixedZone("CET", 3600)
	for _, c := range []struct {
		p    Policy
		zone *time.Location
		want []Epoch
	}{
		{Policy{Last: 2}, time.UTC, []Epoch{5, 6}},
		{Policy{Last: 99}, time.UTC, []Epoch{1, 2, 3, 4, 5, 6}},
		{Policy{Hourly: 3}, time.UTC, []Epoch{3, 5, 6}},
		{Policy{Daily: 2}, time.UTC, []Epoch{5, 6}},
		{Policy{Daily: 9}, time.UTC, []Epoch{2, 5, 6}},
		{Policy{Daily: 9}, berlin, []Epoch{1, 5, 6}}, // 2 is on the 29th there
		{Policy{Weekly: 2}, time.UTC, []Epoch{5, 6}}, // the 30th is a Monday
		{Policy{Last: 1, Daily: 2}, time.UTC, []Epoch{5, 6}},
		{Policy{Last: 1, Hourly: 1, Daily: 3}, time.UTC, []Epoch{2, 5, 6}},
	} {
		got, err := c.p.Keep(infos, c.zone)
		var epochs []Epoch
		for _, i := range got {
			epochs = append(epochs, i.Epoch)
		}
		if err != nil || !slices.Equal(epochs, c.want) {
			t.Errorf("%+v: %v, want %v (%v)", c.p, epochs, c.want, err)
		}
	}
	for _, p := range []Policy{{}, {Last: -1, Daily: 1}} {
		if _, err := p.Keep(infos, time.UTC); err == nil {
			t.Errorf("%+v accepted", p)
		}
	}
}

func FuzzDecodeDelta(f *testing.F) {
	e := &entries{}
	for _, p := range []uint32{3, 9, 1, 9} {
		e.add(p, p*7)
	}
	f.Add(encodeDelta(e, []block{{2, 44}, {2, 200}}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := decodeDelta(b); err == nil && !slices.IsSorted(e.pfn) {
			t.Fatal("not sorted")
		}
	})
}

func FuzzDecodePage(f *testing.F) {
	c := newEncoder()
	page := bytes.Repeat([]byte("ab"), PageSize/2)
	f.Add(c.append(nil, page, 5, nil, nil))
	f.Add(c.append(nil, append(bytes.Repeat([]byte("ab"), PageSize/2-1), 1, 2), 5, &base{epoch: 2, data: page}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parsePage(b, 9)
		if err != nil {
			return
		}
		out, scratch := make([]byte, PageSize), make([]byte, PageSize)
		_ = h.decode(out, scratch) // must not panic
	})
}

// FuzzRuns: what is made of two pages, put into one, gives the other, and is never
// longer than it may be; whatever else is put in changes no byte but the page's.
func FuzzRuns(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add([]byte("abcdefghijklmnop"), []byte("abcdefgXijklmnYY"))
	f.Add(bytes.Repeat([]byte{1}, PageSize), bytes.Repeat([]byte{1, 1, 1, 1, 1, 1, 1, 2}, PageSize/8))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		from, to, any := make([]byte, PageSize), make([]byte, PageSize), make([]byte, PageSize)
		copy(from, a)
		copy(to, b)
		if runs, ok := appendRuns(nil, to, from); ok {
			if len(runs) > maxRuns {
				t.Fatalf("%d bytes", len(runs))
			}
			if err := putRuns(from, runs); err != nil || !bytes.Equal(from, to) {
				t.Fatal("not the page", err)
			}
		}
		_ = putRuns(any, b) // must not panic
	})
}

// TestRuns: runs at a page's borders, side by side, and around the gap that ends one.
func TestRuns(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	differ := 0
	for n := range 20000 {
		of := make([]byte, PageSize)
		for i := range of {
			of[i] = byte(r.Uint32())
		}
		data := bytes.Clone(of)
		at := []int{0, PageSize - 1, r.IntN(PageSize)}[r.IntN(3)]
		for range r.IntN(1 + n%80) {
			data[at%PageSize] ^= byte(r.IntN(256))
			at += r.IntN(12)
		}
		if n%50 == 0 {
			for i := range data {
				data[i] ^= byte(r.Uint32())
			}
		}
		runs, ok := appendRuns(nil, data, of)
		if !ok {
			differ++
			continue
		}
		if err := putRuns(of, runs); err != nil || len(runs) > maxRuns || !bytes.Equal(of, data) {
			t.Fatalf("%d: %d bytes of runs: %v", n, len(runs), err)
		}
	}
	if differ < 400 || differ > 2000 {
		t.Errorf("%d of 20000 pages differ too much", differ)
	}
}

// TestAbortedUnseen: bytes of a checkpoint that was given up, which a reader came by
// as they lay behind what it read, are not taken for those of the next one there.
func TestAbortedUnseen(t *testing.T) {
	w, err := OpenWriter(t.TempDir(), Options{noSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r := rand.New(rand.NewPCG(6, 6))
	begin := func() *Checkpoint {
		t.Helper()
		c, err := w.Begin(Info{}, w.last == 0)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	put := func(c *Checkpoint, pfn uint32, b []byte) {
		t.Helper()
		if err := c.Page(pfn, Data, b); err != nil {
			t.Fatal(err)
		}
	}
	old := random(r, 1)[0]
	c := begin()
	put(c, 1, old)
	if _, err := c.Commit(nil); err != nil {
		t.Fatal(err)
	}
	var last [][]byte
	for _, keep := range []bool{false, true} {
		last = random(r, 2*blockBytes/PageSize)
		c = begin()
		for i, b := range last {
			put(c, 100+uint32(i), b)
		}
		put(c, 1, old) // is compared with what is on the disk
		if !keep {
			err = c.Abort()
		} else {
			_, err = c.Commit(nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, PageSize)
	for i, want := range last {
		if _, err := w.view.Read(100+uint32(i), w.last, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("page %d: %v", i, err)
		}
	}
}

// TestCatalogueOfBefore: entries as JSON, which catalogues had, are read.
func TestCatalogueOfBefore(t *testing.T) {
	want := Info{Time: time.Unix(1e9, 5).UTC(), Domain: "web", Label: "one", Pages: 3, Changed: 2, Bytes: 99, Meta: 9}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := unpackInfo(text, nil); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

// FuzzInfo: no bytes make the catalogue's reader panic, and what it takes is read the
// same when it is written again.
func FuzzInfo(f *testing.F) {
	for _, i := range []Info{{Time: time.Unix(1e9, 5).UTC(), Domain: "web", Label: "one", Pages: 3, Changed: 2, Bytes: 1 << 40, Meta: 9},
		{Time: time.Date(1999, 1, 1, 0, 0, 0, 1, time.FixedZone("", -3601)), Changed: -1}} {
		b, err := packInfo(i)
		if err != nil {
			f.Fatal(err)
		}
		if got, err := unpackInfo(b, &Info{Domain: "web"}); err != nil || !got.Time.Equal(i.Time) || got.Domain != i.Domain || got.Label != i.Label ||
			got.Pages != i.Pages || got.Changed != i.Changed || got.Bytes != i.Bytes || got.Meta != i.Meta {
			f.Fatalf("%+v, want %+v (%v)", got, i, err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"time":"2001-09-09T01:46:40Z","pages":1,"changed":1,"bytes":1,"meta":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := unpackInfo(b, nil)
		if err != nil {
			return
		}
		again, err := packInfo(i)
		if err != nil {
			return // a time zone that package time does not write
		}
		if got, err := unpackInfo(again, nil); err != nil || !got.Time.Equal(i.Time) || got.Domain != i.Domain || got.Bytes != i.Bytes || got.Changed != i.Changed {
			t.Fatalf("%+v, want %+v (%v)", got, i, err)
		}
	})
}
