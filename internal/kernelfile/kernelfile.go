// Package kernelfile tells whether a file is a kernel that Xen's domain builder boots
// in a PVH or a PV guest: before the guest that is to boot it is taken down.
package kernelfile

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Guest is what kind of a guest is to boot it.
type Guest string

// Guests.
const (
	PVH Guest = "pvh"
	PV  Guest = "pv"
)

// Types of the ELF notes of Xen's (public/elfnote.h).
const (
	noteEntry       = 1
	notePhys32Entry = 18
)

// maxImage bounds what is unpacked, in bytes.
const maxImage = 512 << 20

// Check returns why a guest of the kind could not boot a file, or nil. Only of a
// bzImage that is packed by other means than gzip it is not told whether the kernel in
// it has the note that is needed.
func Check(path string, g Guest) error {
	f, size, err := open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := check(f, size, g); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Readable returns nil of a file that is not empty and can be opened.
func Readable(path string) error {
	f, size, err := open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if size == 0 {
		return fmt.Errorf("%s is empty", path)
	}
	return nil
}

// open opens a file, and nothing else; it does not wait for who writes to a FIFO.
func open(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", path)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

func check(f io.ReaderAt, size int64, g Guest) error {
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil {
		return notOne("it is empty, or cut off")
	}
	if string(magic[:]) == elf.ELFMAG {
		return checkELF(f, g)
	}
	return checkBzImage(f, size, g)
}

func notOne(why string) error { return fmt.Errorf("it is no x86 kernel: %s", why) }

func checkELF(f io.ReaderAt, g Guest) error {
	e, err := elf.NewFile(f)
	if err != nil {
		return notOne(err.Error())
	}
	if e.Machine != elf.EM_X86_64 && e.Machine != elf.EM_386 || e.Type != elf.ET_EXEC && e.Type != elf.ET_DYN {
		return notOne(fmt.Sprintf("it is %v of %v", e.Type, e.Machine))
	}
	want, name := uint32(notePhys32Entry), "PHYS32_ENTRY (CONFIG_PVH)"
	if g == PV {
		want, name = noteEntry, "ENTRY (CONFIG_XEN_PV)"
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_NOTE && p.Filesz < 1<<20 && hasNote(e.ByteOrder, p.Open(), want) {
			return nil
		}
	}
	for _, s := range e.Sections {
		if s.Type == elf.SHT_NOTE && s.Size < 1<<20 && hasNote(e.ByteOrder, s.Open(), want) {
			return nil
		}
	}
	return fmt.Errorf("it has no Xen note %s: a %s guest cannot boot it", name, g)
}

// hasNote looks for a note of Xen's.
func hasNote(order binary.ByteOrder, notes io.Reader, want uint32) bool {
	raw, err := io.ReadAll(notes)
	for err == nil && len(raw) >= 12 {
		name, desc, kind := uint64(order.Uint32(raw)), uint64(order.Uint32(raw[4:])), order.Uint32(raw[8:])
		if kind == want && name == 4 && len(raw) >= 16 && string(raw[12:16]) == "Xen\x00" {
			return true
		}
		next := 12 + (name+3)&^3 + (desc+3)&^3
		if next > uint64(len(raw)) {
			break
		}
		raw = raw[next:]
	}
	return false
}

// Of the setup header of Linux (Documentation/arch/x86/boot.rst), and its end.
const (
	setupSects    = 0x1f1
	bootFlag      = 0x1fe
	headerMagic   = 0x202
	version       = 0x206
	payloadOffset = 0x248
	payloadLength = 0x24c
	headerEnd     = 0x250
)

func checkBzImage(f io.ReaderAt, size int64, g Guest) error {
	h := make([]byte, headerEnd)
	if _, err := f.ReadAt(h, 0); err != nil {
		return notOne("neither ELF nor bzImage")
	}
	le := binary.LittleEndian
	if le.Uint16(h[bootFlag:]) != 0xaa55 || string(h[headerMagic:headerMagic+4]) != "HdrS" {
		return notOne("neither ELF nor bzImage")
	}
	if le.Uint16(h[version:]) < 0x208 {
		return errors.New("it is a bzImage older than Xen can unpack (boot protocol before 2.08)")
	}
	sectors := int64(h[setupSects])
	if sectors == 0 {
		sectors = 4
	}
	begin, length := (sectors+1)*512+int64(le.Uint32(h[payloadOffset:])), int64(le.Uint32(h[payloadLength:]))
	if length < 4 || begin+length > size {
		return notOne("it is a bzImage that is cut off")
	}
	packed := io.NewSectionReader(f, begin, length)
	z, err := gzip.NewReader(packed)
	if errors.Is(err, gzip.ErrHeader) {
		return nil // of another kind, which the domain builder knows, or not
	}
	if err != nil {
		return notOne(err.Error())
	}
	z.Multistream(false) // its length follows it
	raw, err := io.ReadAll(io.LimitReader(z, maxImage))
	if err != nil {
		return notOne("what is in it cannot be unpacked: " + err.Error())
	}
	if !bytes.HasPrefix(raw, []byte(elf.ELFMAG)) {
		return notOne("what is in it is no ELF file")
	}
	return checkELF(bytes.NewReader(raw), g)
}
