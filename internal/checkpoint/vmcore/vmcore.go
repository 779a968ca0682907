// Package vmcore lays a domain's memory out as the ELF core file that crash, drgn
// and makedumpfile open. It is like those of kdump and of QEMU's dump-guest-memory: one
// PT_LOAD for each run of pages by physical address, whose virtual address is 0,
// since it is the tools that know how the kernel maps its memory; notes with the
// registers of each virtual processor; and VMCOREINFO, without which drgn finds no
// kernel.
//
// Sources: elf(5); struct elf_prstatus of Linux for x86-64; struct hvm_hw_cpu and
// hvm_save_descriptor of Xen's public/arch-x86/hvm/save.h.
package vmcore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"sort"
)

const (
	pageSize    = 4096
	ehdrSize    = 64
	phdrSize    = 56
	maxSegments = 60000 // of the 65534 that fit without an extension that not all tools know
)

// Registers of a virtual processor.
type Registers struct {
	R15, R14, R13, R12, RBP, RBX, R11, R10, R9, R8, RAX, RCX, RDX, RSI, RDI uint64
	RIP, CS, Flags, RSP, SS, FSBase, GSBase, DS, ES, FS, GS                 uint64
	CR3                                                                     uint64
}

const (
	saveCodeEnd = 0
	saveCodeCPU = 2
	cpuRegs     = 512
	cpuMinimum  = 856
)

// ParseContext returns the registers in an HVM context as Xen saves it, in the
// order of the processors' numbers.
func ParseContext(b []byte) ([]Registers, error) {
	le := binary.LittleEndian
	var list []Registers
	for {
		if len(b) < 8 {
			return nil, fmt.Errorf("HVM context ends in the middle of a descriptor")
		}
		code, length := le.Uint16(b), uint64(le.Uint32(b[4:]))
		b = b[8:]
		if length > uint64(len(b)) {
			return nil, fmt.Errorf("HVM context: entry %d of %d bytes is longer than what there is", code, length)
		}
		if code == saveCodeEnd {
			return list, nil
		}
		if code == saveCodeCPU {
			if length < cpuMinimum {
				return nil, fmt.Errorf("HVM context: a processor of %d bytes", length)
			}
			q := func(off int) uint64 { return le.Uint64(b[off:]) }
			sel := func(i int) uint64 { return uint64(le.Uint32(b[736+4*i:])) }
			list = append(list, Registers{RAX: q(cpuRegs), RBX: q(520), RCX: q(528), RDX: q(536), RBP: q(544), RSI: q(552), RDI: q(560), RSP: q(568),
				R8: q(576), R9: q(584), R10: q(592), R11: q(600), R12: q(608), R13: q(616), R14: q(624), R15: q(632),
				RIP: q(640), Flags: q(648), CR3: q(672), CS: sel(0), DS: sel(1), ES: sel(2), FS: sel(3), GS: sel(4), SS: sel(5),
				FSBase: q(832), GSBase: q(840)})
		}
		b = b[length:]
	}
}

// infoMark is how VMCOREINFO begins, in Linux always at the beginning of a page.
var infoMark = []byte("OSRELEASE=")

// Info returns VMCOREINFO, if that is what the page holds.
func Info(page []byte) []byte {
	if !bytes.HasPrefix(page, infoMark) || !bytes.Contains(page, []byte("\nSYMBOL(")) && !bytes.Contains(page, []byte("\nPAGESIZE=")) {
		return nil
	}
	if n := bytes.IndexByte(page, 0); n >= 0 {
		page = page[:n]
	}
	return bytes.Clone(page)
}

// run is pages with the same distance from their place in the file.
type run struct {
	first, count uint32
	off          int64
}

// Layout is where everything is in the file.
type Layout struct {
	head []byte
	runs []run
	has  []uint32 // the pages that there are, ascending
	size int64
}

// New lays out pages, ascending PFNs, with the processors' registers and what
// VMCOREINFO there is. Holes between pages are holes between segments, but if
// there would be too many of those, the smallest are filled with zeros.
func New(pfns []uint32, cpus []Registers, info []byte) *Layout {
	l := &Layout{has: pfns}
	for gap := uint32(1); ; gap *= 2 {
		l.runs = l.runs[:0]
		for _, p := range pfns {
			if n := len(l.runs); n > 0 {
				r := &l.runs[n-1]
				if next := r.first + r.count; p-next < gap {
					r.count = p - r.first + 1
					continue
				}
			}
			l.runs = append(l.runs, run{first: p, count: 1})
		}
		if len(l.runs) <= maxSegments {
			break
		}
	}
	var notes []byte
	for i, c := range cpus {
		notes = note(notes, "CORE", 1, c.prstatus(i))
	}
	if len(info) > 0 {
		notes = note(notes, "VMCOREINFO", 0, info)
	}
	l.build(notes)
	return l
}

func note(to []byte, name string, typ uint32, desc []byte) []byte {
	le := binary.LittleEndian
	to = le.AppendUint32(to, uint32(len(name)+1))
	to = le.AppendUint32(to, uint32(len(desc)))
	to = le.AppendUint32(to, typ)
	to = append(to, name...)
	to = append(to, make([]byte, 4-len(name)%4)...)
	to = append(to, desc...)
	return append(to, make([]byte, -len(desc)&3)...)
}

// prstatus is struct elf_prstatus: 112 bytes, of which only pr_pid matters, 27
// registers, pr_fpvalid.
func (r Registers) prstatus(cpu int) []byte {
	b := make([]byte, 336)
	le := binary.LittleEndian
	le.PutUint32(b[32:], uint32(cpu+1))
	for i, v := range []uint64{r.R15, r.R14, r.R13, r.R12, r.RBP, r.RBX, r.R11, r.R10, r.R9, r.R8, r.RAX, r.RCX, r.RDX, r.RSI, r.RDI, math.MaxUint64,
		r.RIP, r.CS, r.Flags, r.RSP, r.SS, r.FSBase, r.GSBase, r.DS, r.ES, r.FS, r.GS} {
		le.PutUint64(b[112+8*i:], v)
	}
	return b
}

func (l *Layout) build(notes []byte) {
	le := binary.LittleEndian
	phdrs := 1 + len(l.runs)
	notesAt := int64(ehdrSize + phdrs*phdrSize)
	off := (notesAt + int64(len(notes)) + pageSize - 1) &^ (pageSize - 1)
	h := make([]byte, ehdrSize, off)
	copy(h, "\x7fELF\x02\x01\x01") // 64 bits, little endian, version 1
	le.PutUint16(h[16:], 4)        // ET_CORE
	le.PutUint16(h[18:], 62)       // EM_X86_64
	le.PutUint32(h[20:], 1)
	le.PutUint64(h[32:], ehdrSize)
	le.PutUint16(h[52:], ehdrSize)
	le.PutUint16(h[54:], phdrSize)
	le.PutUint16(h[56:], uint16(phdrs))
	add := func(typ, flags uint32, offset, physical, size int64) {
		h = le.AppendUint32(h, typ)
		h = le.AppendUint32(h, flags)
		for _, v := range []int64{offset, 0, physical, size, size, 0} {
			h = le.AppendUint64(h, uint64(v))
		}
	}
	add(4, 0, notesAt, 0, int64(len(notes))) // PT_NOTE
	for i := range l.runs {
		r := &l.runs[i]
		r.off = off
		add(1, 7, off, int64(r.first)*pageSize, int64(r.count)*pageSize) // PT_LOAD
		off += int64(r.count) * pageSize
	}
	h = append(h, notes...)
	l.head = append(h, make([]byte, -len(h)&(pageSize-1))...)
	l.size = off
}

// Size returns the file's size in bytes.
func (l *Layout) Size() int64 { return l.size }

// Write writes the file; read puts a page's bytes into a buffer.
func (l *Layout) Write(w io.Writer, read func(pfn uint32, page []byte) error) error {
	if _, err := w.Write(l.head); err != nil {
		return err
	}
	page := make([]byte, pageSize)
	at := 0
	for _, r := range l.runs {
		for pfn := r.first; pfn-r.first < r.count; pfn++ {
			clear(page)
			if at < len(l.has) && l.has[at] == pfn {
				at++
				if err := read(pfn, page); err != nil {
					return err
				}
			}
			if _, err := w.Write(page); err != nil {
				return err
			}
		}
	}
	return nil
}

// ReadAt reads a part of the file, like io.ReaderAt.
func (l *Layout) ReadAt(b []byte, off int64, read func(pfn uint32, page []byte) error) (int, error) {
	n := 0
	var page [pageSize]byte
	for n < len(b) && off < l.size {
		var k int
		if off < int64(len(l.head)) {
			k = copy(b[n:], l.head[off:])
		} else {
			i := sort.Search(len(l.runs), func(i int) bool { return l.runs[i].off > off }) - 1
			pfn := l.runs[i].first + uint32((off-l.runs[i].off)/pageSize)
			clear(page[:])
			if j := sort.Search(len(l.has), func(j int) bool { return l.has[j] >= pfn }); j < len(l.has) && l.has[j] == pfn {
				if err := read(pfn, page[:]); err != nil {
					return n, err
				}
			}
			k = copy(b[n:], page[off%pageSize:])
		}
		n += k
		off += int64(k)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
