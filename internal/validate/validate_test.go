package validate

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
)

func TestCheckStructure(t *testing.T) {
	entry := func(vbd ident.VBD, index uint64, s cachemap.Sector) cachemap.Entry {
		return cachemap.Entry{VBD: vbd, Cookie: cachemap.File{Inode: 1, Index: uint32(index)}.Cookie(), Sector: s}
	}
	entries := []cachemap.Entry{
		0:  entry(1, 0, 0),
		1:  entry(1, 1, 8),
		2:  entry(1, 1, 16),    // the key of 1
		3:  entry(1, 3, 0),     // the sector of 0
		4:  entry(2, 0, 0),     // another vbd: fine
		5:  entry(1, 5, 44),    // not aligned
		6:  entry(1, 6, 96),    // the last page of the disk: fine
		7:  entry(1, 7, 104),   // half a page past the end
		8:  entry(1, 8, 1<<63), // far past the end
		9:  entry(0, 9, 0),     // no vbd
		10: entry(3, 0, 1<<60), // a vbd of unknown size: the caller's business
		11: entry(1, 11, 32),   // past max_pfn
		12: entry(1, 1, 8),     // not selected
	}
	v := cachemap.NewView(entries, []uint64{1<<12 - 1})
	s := CheckStructure(v, 11, func(vbd ident.VBD) (cachemap.Sector, bool) { return 108, vbd == 1 || vbd == 2 })
	if want := []ident.PFN{0, 1, 2, 3, 5, 7, 8, 9, 11}; !slices.Equal(s.Drop, want) {
		t.Errorf("drop %v, want %v", s.Drop, want)
	}
	n := uint64(0)
	for _, f := range s.Faults[1] {
		n += f.Pages
		if f.First == "" || f.String() == "" {
			t.Errorf("%+v: no example", f)
		}
	}
	if n != 8 || len(s.Faults[2]) != 0 || len(s.Faults[3]) != 0 || len(s.Faults[0]) != 1 {
		t.Errorf("%+v", s.Faults)
	}
}

// TestCheckStructureManyVBDs: what is kept of each vbd does not grow with the
// number of them.
func TestCheckStructureManyVBDs(t *testing.T) {
	const n = 3 * cachemap.MaxVBDs
	asked := 0
	s := CheckStructure(fullTable(n, func(i int, e *cachemap.Entry) { e.VBD = ident.VBD(i + 1) }), n,
		func(ident.VBD) (cachemap.Sector, bool) { asked++; return 1 << 40, true })
	if asked != cachemap.MaxVBDs || len(s.Drop) != n-cachemap.MaxVBDs || s.Drop[0] != cachemap.MaxVBDs {
		t.Errorf("asked for %d sizes, dropped %d pages from %d on", asked, len(s.Drop), s.Drop[0])
	}
	// Every vbd with a fault: each of the first has its own, the rest shares.
	s = CheckStructure(fullTable(n, func(i int, e *cachemap.Entry) { *e = cachemap.Entry{VBD: ident.VBD(i + 1), Sector: 1} }), n, everyVBD)
	if len(s.Drop) != n || len(s.Faults) > cachemap.MaxVBDs+1 || len(s.Faults[1]) != 1 {
		t.Errorf("dropped %d, faults of %d vbds", len(s.Drop), len(s.Faults))
	}
}

// memory is a domain's, with hooks for what happens while it is compared.
type memory struct {
	entries []cachemap.Entry
	words   []uint64
	bytes   []byte
	bad     map[ident.PFN]bool
	onMap   func() // before page 5 is mapped, which one worker does
	maps    int
	lock    sync.Mutex
}

func (m *memory) Entries() []cachemap.Entry { return m.entries }
func (m *memory) Words() []uint64           { return m.words }
func (m *memory) Close() error              { return nil }

func (m *memory) MapTable(ident.Domid) (hypervisor.Table, error)  { return m, nil }
func (m *memory) MapReuse(ident.Domid) (hypervisor.Bitmap, error) { return m, nil }
func (m *memory) MapHeld(ident.Domid) (hypervisor.Bitmap, error)  { return m, nil }
func (m *memory) MapPages(_ ident.Domid, p []ident.PFN) (hypervisor.Pages, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.maps++
	if m.onMap != nil && slices.Contains(p, 5) {
		m.onMap()
	}
	return pages{m, p}, nil
}

type pages struct {
	m    *memory
	pfns []ident.PFN
}

var errBad = errors.New("bad page")

func (p pages) Page(i int) ([]byte, error) {
	if p.m.bad[p.pfns[i]] {
		return nil, errBad
	}
	return p.m.bytes[p.pfns[i]*4096:][:4096], nil
}
func (pages) Close() error { return nil }

type diskBytes struct {
	b     []byte
	reads atomic.Int64
	bad   map[int64]bool // offsets of pages that cannot be read
}

func (d *diskBytes) ReadAt(p []byte, off int64) (int, error) {
	d.reads.Add(1)
	if off+int64(len(p)) > int64(len(d.b)) {
		return 0, io.ErrUnexpectedEOF
	}
	for o := off &^ 4095; o < off+int64(len(p)); o += 4096 {
		if d.bad[o] {
			return 0, errBad
		}
	}
	return copy(p, d.b[off:]), nil
}
func (d *diskBytes) Size() int64 { return int64(len(d.b)) }

// newMemory has n pages, PFN p holding the disk's page perm[p].
func newMemory(n int) (*memory, *diskBytes, []Page) {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	m := &memory{entries: make([]cachemap.Entry, n), words: make([]uint64, (n+63)/64), bytes: make([]byte, n*4096), bad: map[ident.PFN]bool{}}
	d := &diskBytes{b: make([]byte, 2*n*4096), bad: map[int64]bool{}}
	for i := range d.b {
		d.b[i] = byte(r.Uint32())
	}
	for p, at := range r.Perm(2 * n)[:n] {
		m.entries[p] = cachemap.Entry{VBD: 1, Cookie: cachemap.File{Inode: 2, Index: uint32(at)}.Cookie(), Sector: cachemap.Sector(8 * at)}
		m.words[p/64] |= 1 << (p % 64)
		copy(m.bytes[p*4096:(p+1)*4096], d.b[at*4096:])
	}
	list, _, _ := Collect(cachemap.NewView(m.entries, m.words), 1, 0, n)
	return m, d, list
}

func run1(t *testing.T, m *memory, d Disk, list []Page) Content {
	t.Helper()
	c, err := ContentCheck{Memory: m, Disk: d, Domid: 1}.Run(context.Background(), list)
	if err != nil {
		t.Fatal(err)
	}
	if c.Equal+c.Mismatches+c.Unreadable+c.Gone != uint64(len(list)) {
		t.Fatalf("%d pages, counted %+v", len(list), c)
	}
	return c
}

func TestContentEqual(t *testing.T) {
	m, d, list := newMemory(1000)
	c := run1(t, m, d, list)
	if c.Equal != 1000 || c.Checked() != 1000 {
		t.Errorf("%+v", c)
	}
	if d.reads.Load() > 30 || m.maps > defaultWorkers {
		t.Errorf("%d reads, %d mappings for 1000 pages", d.reads.Load(), m.maps)
	}
}

func TestContentMismatch(t *testing.T) {
	m, d, list := newMemory(300)
	for p := range 20 {
		m.bytes[p*4096+p] ^= 1
	}
	c := run1(t, m, d, list)
	if c.Mismatches != 20 || c.Equal != 280 || len(c.Examples) != MaxExamples {
		t.Errorf("%+v", c)
	}
}

// TestContentEnough: on a disk that is another one, all pages differ; that is
// known after a few.
func TestContentEnough(t *testing.T) {
	const n = 40 * mapBatch
	m, d, list := newMemory(n)
	clear(d.b)
	c, err := ContentCheck{Memory: m, Disk: d, Domid: 1, Enough: MaxExamples}.Run(context.Background(), list)
	if err != nil || c.Mismatches < MaxExamples || c.Checked() == n || len(c.Examples) != MaxExamples {
		t.Errorf("%+v, %v", c, err)
	}
	if c := run1(t, m, d, list); c.Mismatches != n {
		t.Errorf("without a limit: %+v", c)
	}
	// Each page that differs is looked at again, but not each for itself.
	if m.maps > 2*(1+attempts)*n/mapBatch {
		t.Errorf("%d mappings", m.maps)
	}
}

// TestContentGone: a page that the guest writes while it is compared is no
// mismatch: Xen has forgotten it.
func TestContentGone(t *testing.T) {
	m, d, list := newMemory(100)
	m.onMap = func() { m.bytes[5*4096]++; atomic.AndUint64(&m.words[0], ^uint64(1<<5)) }
	if c := run1(t, m, d, list); c.Gone != 1 || c.Equal != 99 {
		t.Errorf("%+v", c)
	}
	// Forgotten, and known again for other bytes of another sector.
	m, d, list = newMemory(100)
	other := m.entries[5].Sector ^ 8
	m.onMap = func() { m.bytes[5*4096]++; m.entries[5].Sector = other }
	if c := run1(t, m, d, list); c.Gone != 1 || c.Equal != 99 {
		t.Errorf("%+v", c)
	}
	// Written by the guest to memory and disk, between the two being read.
	m, d, list = newMemory(100)
	at := int64(m.entries[5].Sector) * 512
	m.onMap = func() {
		m.onMap = nil
		m.bytes[5*4096]++
		d.b[at] = m.bytes[5*4096]
	}
	if c := run1(t, m, d, list); c.Equal != 100 {
		t.Errorf("%+v", c)
	}
}

func TestContentUnreadable(t *testing.T) {
	m, d, list := newMemory(100)
	m.bad[7] = true
	d.bad[int64(m.entries[9].Sector)*512] = true
	c := run1(t, m, d, list)
	if c.Unreadable != 2 || c.Equal != 98 || !errors.Is(c.FirstError, errBad) {
		t.Errorf("%+v", c)
	}
	// A sector that the disk does not have cannot hold the page.
	m, d, _ = newMemory(100)
	m.entries[3].Sector = 1 << 50
	list, _, _ = Collect(cachemap.NewView(m.entries, m.words), 1, 0, 100)
	if c := run1(t, m, d, list); c.Mismatches != 1 || c.Equal != 99 {
		t.Errorf("%+v", c)
	}
}

func TestContentCancelled(t *testing.T) {
	m, d, list := newMemory(10)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := (ContentCheck{Memory: m, Disk: d}).Run(ctx, list); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestCollectAndSample(t *testing.T) {
	m, _, _ := newMemory(500)
	for p := range 500 {
		m.entries[p].VBD = ident.VBD(1 + p%2)
	}
	v := cachemap.NewView(m.entries, m.words)
	var all []Page
	for from, more := ident.PFN(0), true; more; {
		var part []Page
		part, from, more = Collect(v, 2, from, 30)
		all = append(all, part...)
	}
	if len(all) != 250 {
		t.Fatalf("collected %d", len(all))
	}
	for i, p := range all {
		if p.PFN != ident.PFN(2*i+1) || p.Entry != m.entries[p.PFN] {
			t.Fatalf("%d: %+v", i, p)
		}
	}
	hits := make([]int, 500)
	for range 2000 {
		s := SampleView(v, 1, 25)
		if len(s) != 25 {
			t.Fatalf("sampled %d", len(s))
		}
		for _, p := range s {
			hits[p.PFN]++
		}
	}
	for p, n := range hits { // expected 200, deviation 13
		if p%2 == 1 && n != 0 || p%2 == 0 && (n < 120 || n > 280) {
			t.Errorf("PFN %d sampled %d times", p, n)
		}
	}
	if s := SampleView(v, 1, 1000); len(s) != 250 {
		t.Errorf("sampled %d of 250", len(s))
	}
}
