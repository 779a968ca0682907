package vmcore

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"testing"
)

func fill(pfn uint32, page []byte) error {
	for i := range page {
		page[i] = byte(int(pfn) + i)
	}
	return nil
}

// TestELF: the standard library's reader finds each page at its physical address,
// and the notes.
func TestELF(t *testing.T) {
	pfns := []uint32{0, 1, 2, 100, 101, 0xfeffc, 0xfffffffe, 0xffffffff}
	l := New(pfns, []Registers{{RIP: 0x1234, RSP: 0x99}, {RIP: 0x5678}}, []byte("OSRELEASE=6.12\nPAGESIZE=4096\n"))
	var out bytes.Buffer
	if err := l.Write(&out, fill); err != nil {
		t.Fatal(err)
	}
	if int64(out.Len()) != l.Size() {
		t.Errorf("%d bytes, not %d", out.Len(), l.Size())
	}
	f, err := elf.NewFile(bytes.NewReader(out.Bytes()))
	if err != nil || f.Type != elf.ET_CORE || f.Machine != elf.EM_X86_64 {
		t.Fatal(f, err)
	}
	seen := 0
	for _, p := range f.Progs {
		if p.Type == elf.PT_NOTE {
			raw, err := io.ReadAll(p.Open())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(raw, []byte("VMCOREINFO\x00\x00OSRELEASE=6.12\n")) || !bytes.Contains(raw, []byte("CORE\x00\x00\x00\x00")) {
				t.Errorf("%q", raw)
			}
			first := raw[12+8:] // behind the header and the name
			if rip := binary.LittleEndian.Uint64(first[112+16*8:]); rip != 0x1234 {
				t.Errorf("RIP %#x", rip)
			}
			continue
		}
		raw, err := io.ReadAll(p.Open())
		if err != nil || p.Off%pageSize != 0 {
			t.Fatal(err, p.Off)
		}
		for k := 0; k < len(raw); k += pageSize {
			want := make([]byte, pageSize)
			_ = fill(uint32(p.Paddr/pageSize)+uint32(k/pageSize), want)
			if !bytes.Equal(raw[k:k+pageSize], want) {
				t.Errorf("page at %#x", p.Paddr+uint64(k))
			}
			seen++
		}
	}
	if seen != len(pfns) || len(f.Progs) != 5 {
		t.Errorf("%d pages in %d segments", seen, len(f.Progs))
	}
	for _, at := range []int64{0, 60, int64(len(l.head)) - 3, int64(len(l.head)) + 4095, l.Size() - 10} {
		b := make([]byte, 9000)
		n, err := l.ReadAt(b, at, fill)
		if !bytes.Equal(b[:n], out.Bytes()[at:at+int64(n)]) || (err == io.EOF) != (at+9000 > l.Size()) {
			t.Errorf("at %d: %d, %v", at, n, err)
		}
	}
}

// TestManyHoles: as many segments as the file's header can count.
func TestManyHoles(t *testing.T) {
	var pfns []uint32
	for i := range uint32(100000) {
		pfns = append(pfns, i*2+i/50*100)
	}
	l := New(pfns, nil, nil)
	if len(l.runs) > maxSegments {
		t.Fatal(len(l.runs))
	}
	b := make([]byte, pageSize)
	r := l.runs[0]
	if _, err := l.ReadAt(b, r.off+pageSize, fill); err != nil || !bytes.Equal(b, make([]byte, pageSize)) {
		t.Error("a hole that was filled is not zero", err)
	}
	seen := 0
	if err := l.Write(io.Discard, func(uint32, []byte) error { seen++; return nil }); err != nil || seen != len(pfns) {
		t.Error(seen, err)
	}
}

func TestContext(t *testing.T) {
	le := binary.LittleEndian
	var b []byte
	entry := func(code uint16, body []byte) {
		b = le.AppendUint16(b, code)
		b = le.AppendUint16(b, 0)
		b = le.AppendUint32(b, uint32(len(body)))
		b = append(b, body...)
	}
	cpu := make([]byte, 1024)
	le.PutUint64(cpu[640:], 0x42) // rip: 512 + 16 registers of 8 bytes
	le.PutUint64(cpu[672:], 0x43) // cr3
	le.PutUint32(cpu[736:], 0x10) // cs
	entry(1, make([]byte, 24))
	entry(2, cpu)
	entry(0, nil)
	got, err := ParseContext(b)
	if err != nil || len(got) != 1 || got[0].RIP != 0x42 || got[0].CR3 != 0x43 || got[0].CS != 0x10 {
		t.Error(got, err)
	}
	for n := range len(b) {
		if _, err := ParseContext(b[:n]); err == nil {
			t.Fatalf("cut at %d accepted", n)
		}
	}
}

func FuzzParseContext(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = ParseContext(b) })
}

func TestInfo(t *testing.T) {
	page := make([]byte, pageSize)
	copy(page, "OSRELEASE=6.12.1\nPAGESIZE=4096\n")
	if got := Info(page); string(got) != "OSRELEASE=6.12.1\nPAGESIZE=4096\n" {
		t.Errorf("%q", got)
	}
	if Info(page[1:]) != nil || Info([]byte("OSRELEASE=text in a file")) != nil {
		t.Error("found where there is none")
	}
}
