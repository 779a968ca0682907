package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
)

// memory is that of a domain as the agent finds it after a reboot: table and
// bitmaps stand in for what Xen maps, and the bytes of pages for its memory.
type memory struct {
	entries []cachemap.Entry
	words   []uint64 // reusable, and held
	bytes   []byte   // of the pages, if contents are to be compared
}

func (m *memory) Entries() []cachemap.Entry { return m.entries }
func (m *memory) Words() []uint64           { return m.words }
func (m *memory) Close() error              { return nil }

func (m *memory) MapTable(ident.Domid) (hypervisor.Table, error)  { return m, nil }
func (m *memory) MapReuse(ident.Domid) (hypervisor.Bitmap, error) { return m, nil }
func (m *memory) MapHeld(ident.Domid) (hypervisor.Bitmap, error)  { return m, nil }

func (m *memory) MapPages(_ ident.Domid, p []ident.PFN) (hypervisor.Pages, error) {
	return pages{m, p}, nil
}

type pages struct {
	*memory
	pfns []ident.PFN
}

func (p pages) Page(i int) ([]byte, error) {
	at := p.pfns[i] * cachemap.PageSize
	if uint64(at)+cachemap.PageSize > uint64(len(p.bytes)) {
		return nil, fmt.Errorf("PFN %d: no such page", p.pfns[i])
	}
	return p.bytes[at:][:cachemap.PageSize], nil
}

func (pages) Close() error { return nil }

const vbds = 4

// diskSectors is the size of each of the vbds.
const diskSectors = 1 << 32 // 2 TiB

// sound fills a table as a guest with many files does: runs of 1 to 64 pages of
// a file, which lie together on the disk and, mostly, in memory. No two pages
// hold the same.
func sound(m *memory) {
	r := rand.New(rand.NewPCG(1, 2))
	free := make([]uint64, vbds) // next free page of each disk
	inode := uint64(12)
	for p := 0; p < len(m.entries); {
		n := min(1+r.IntN(64), len(m.entries)-p)
		vbd := r.IntN(vbds)
		inode++
		free[vbd] += uint64(r.IntN(16))
		for i := range n {
			m.entries[p+i] = cachemap.Entry{VBD: ident.VBD(51712 + 16*vbd),
				Cookie: cachemap.File{Inode: inode, Generation: uint32(inode * 2654435761), Index: uint32(i)}.Cookie(),
				Sector: cachemap.Sector((free[vbd] + uint64(i)) * cachemap.SectorsPerPage)}
		}
		free[vbd] += uint64(n)
		p += n
	}
}

// scattered makes a sound table, whose pages are in no order.
func scattered(m *memory) {
	sound(m)
	r := rand.New(rand.NewPCG(3, 4))
	r.Shuffle(len(m.entries), func(i, j int) { m.entries[i], m.entries[j] = m.entries[j], m.entries[i] })
}

// allSame makes every page hold the same page of the same file.
func allSame(m *memory) {
	for i := range m.entries {
		m.entries[i] = cachemap.Entry{VBD: 51712, Cookie: cachemap.Cookie{12}, Sector: 8}
	}
}

// pairs makes each page hold what one other page holds, far away.
func pairs(m *memory) {
	scattered(m)
	half := len(m.entries) / 2
	copy(m.entries[half:], m.entries[:half])
}

// manyVBDs makes up a vbd for each page, and a sector that no disk has.
func manyVBDs(m *memory) {
	for i := range m.entries {
		m.entries[i] = cachemap.Entry{VBD: ident.VBD(i + 1), Cookie: cachemap.Cookie{12}, Sector: 1<<60 + 1}
	}
}
