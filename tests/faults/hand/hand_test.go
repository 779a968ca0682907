package hand

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
)

func TestSum(t *testing.T) {
	block := make([]byte, cachemap.PageSize)
	seen := map[uint64]int{Sum(block): -1}
	for i := range block { // every byte counts
		block[i] ^= 1
		if at, ok := seen[Sum(block)]; ok {
			t.Fatalf("byte %d gives the same sum as %d", i, at)
		}
		seen[Sum(block)] = i
		block[i] ^= 1
	}
}

// domain is one with pages, of which Xen knows some.
type domain struct {
	entries     []cachemap.Entry
	reuse, held uint64
	pages       [][]byte
}

func (g *domain) MapTable(ident.Domid) (hypervisor.Table, error)  { return table{g.entries}, nil }
func (g *domain) MapReuse(ident.Domid) (hypervisor.Bitmap, error) { return bitmap{g.reuse}, nil }
func (g *domain) MapHeld(ident.Domid) (hypervisor.Bitmap, error)  { return bitmap{g.held}, nil }
func (g *domain) MapPages(_ ident.Domid, pfns []ident.PFN) (hypervisor.Pages, error) {
	var m pageList
	for _, pfn := range pfns {
		m = append(m, g.pages[pfn])
	}
	return m, nil
}

type table struct{ entries []cachemap.Entry }

func (t table) Entries() []cachemap.Entry { return t.entries }
func (table) Close() error                { return nil }

type bitmap struct{ word uint64 }

func (b bitmap) Words() []uint64 { return []uint64{b.word} }
func (bitmap) Close() error      { return nil }

type pageList [][]byte

func (m pageList) Page(i int) ([]byte, error) { return m[i], nil }
func (pageList) Close() error                 { return nil }

type memoryDisk []byte

func (d memoryDisk) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(d).ReadAt(p, off)
}
func (d memoryDisk) Size() int64 { return int64(len(d)) }

// TestComparison has twenty pages, all of served files but the last; a page
// that is corrupt, a block that is, both alike, and one that was written.
func TestComparison(t *testing.T) {
	const n = 20
	g := &domain{entries: make([]cachemap.Entry, 64), pages: make([][]byte, 64)}
	disk := make(memoryDisk, n*cachemap.PageSize)
	var pristine []byte
	for i := range n {
		block := disk[i*cachemap.PageSize:][:cachemap.PageSize]
		for j := range block {
			block[j] = byte(i + j)
		}
		pristine = binary.LittleEndian.AppendUint64(pristine, Sum(block))
		pfn := i + 10
		g.pages[pfn] = bytes.Clone(block)
		g.entries[pfn] = cachemap.Entry{Cookie: cachemap.Cookie{uint32(100 + i)}, Sector: cachemap.Sector(8 * i), VBD: VBD}
		g.reuse |= 1 << pfn
	}
	g.held = g.reuse &^ (1 << 12) // page 2 was read after the reboot
	damage := func(b []byte) { b[7] ^= 0x10 }
	block := func(i int) []byte { return disk[i*cachemap.PageSize:] }
	damage(g.pages[10+1])
	damage(g.pages[10+2])
	damage(block(3))
	damage(block(4))
	damage(g.pages[10+4])
	damage(block(19))
	served := make(map[uint64]bool)
	for i := range n - 1 {
		served[uint64(100+i)] = true
	}
	c := comparison{memory: g, disk: &watchedDisk{Disk: disk, pristine: pristine, changed: make(map[uint64]bool)}, served: served}
	got, err := c.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Restored != n-1 || got.Checked != n || got.Corrupt != 1 {
		t.Errorf("%+v", got)
	}
	want := map[uint64]Mismatch{
		101: {Restored: true, Served: true, DiskIntact: true},
		102: {Served: true, DiskIntact: true},
		103: {Restored: true, Served: true, PageIntact: true},
		119: {Restored: true, PageIntact: true},
	}
	if len(got.Mismatches) != len(want) {
		t.Errorf("%d mismatches: %+v", len(got.Mismatches), got.Mismatches)
	}
	for _, m := range got.Mismatches {
		w := want[m.Inode]
		if m.Restored != w.Restored || m.Served != w.Served || m.PageIntact != w.PageIntact || m.DiskIntact != w.DiskIntact {
			t.Errorf("inode %d: %+v, want %+v", m.Inode, m, w)
		}
	}
}

// TestComparisonNamesAll: more pages differ than a check names.
func TestComparisonNamesAll(t *testing.T) {
	const n = 40
	g := &domain{entries: make([]cachemap.Entry, 64), pages: make([][]byte, 64)}
	for i := range n {
		g.pages[i+1] = bytes.Repeat([]byte{byte(i % 2)}, cachemap.PageSize) // every other one differs
		g.entries[i+1] = cachemap.Entry{Cookie: cachemap.Cookie{1}, Sector: cachemap.Sector(8 * i), VBD: VBD}
		g.reuse |= 1 << (i + 1)
	}
	disk := make(memoryDisk, n*cachemap.PageSize)
	c := comparison{memory: g, disk: &watchedDisk{Disk: disk, changed: make(map[uint64]bool)}, served: nil}
	got, err := c.run(t.Context())
	if err != nil || len(got.Mismatches) != n/2 {
		t.Errorf("%d pages named, want %d; %v", len(got.Mismatches), n/2, err)
	}
}
