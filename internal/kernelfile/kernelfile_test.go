package kernelfile

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// note is one, as it lies in a file.
func note(name string, kind uint32, desc string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(name)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
	b = binary.LittleEndian.AppendUint32(b, kind)
	pad := func(s string) string { return s + strings.Repeat("\x00", -len(s)&3) }
	return append(append(b, pad(name)...), pad(desc)...)
}

// image is an ELF file with notes.
func image(t *testing.T, machine elf.Machine, notes []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	for _, v := range []any{h, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 64 + 56, Filesz: uint64(len(notes))}, notes} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// bzImage packs one.
func bzImage(payload []byte) []byte {
	b := make([]byte, 512*3)
	le := binary.LittleEndian
	b[setupSects] = 1
	le.PutUint16(b[bootFlag:], 0xaa55)
	copy(b[headerMagic:], "HdrS")
	le.PutUint16(b[version:], 0x20f)
	le.PutUint32(b[payloadOffset:], 512)
	le.PutUint32(b[payloadLength:], uint32(len(payload)))
	return append(b, payload...)
}

func packed(t *testing.T, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.AppendUint32(b.Bytes(), uint32(len(raw)))
}

func TestCheck(t *testing.T) {
	gnu := note("GNU\x00", notePhys32Entry, "an ID")
	pvh := append(bytes.Clone(gnu), note("Xen\x00", notePhys32Entry, "\x00\x00\x00\x01\x00\x00\x00\x00")...)
	pv := append(bytes.Clone(gnu), note("Xen\x00", noteEntry, "odd")...)
	old := bzImage(packed(t, image(t, elf.EM_X86_64, pvh)))
	binary.LittleEndian.PutUint16(old[version:], 0x207)
	both := append(bytes.Clone(pv), pvh...)
	for what, c := range map[string]struct {
		raw  []byte
		g    Guest
		want string // "" is a kernel
	}{
		"ELF":                    {image(t, elf.EM_X86_64, pvh), PVH, ""},
		"ELF of 32 bits":         {image(t, elf.EM_386, both), PVH, ""},
		"ELF for PV":             {image(t, elf.EM_X86_64, both), PV, ""},
		"PV only":                {image(t, elf.EM_X86_64, pv), PVH, "PHYS32_ENTRY"},
		"PVH only":               {image(t, elf.EM_X86_64, pvh), PV, "note ENTRY"},
		"the note of another":    {image(t, elf.EM_X86_64, gnu), PVH, "PHYS32_ENTRY"},
		"notes that are cut off": {image(t, elf.EM_X86_64, pvh[:len(pvh)-20]), PVH, "PHYS32_ENTRY"},
		"a note without an end":  {image(t, elf.EM_X86_64, append(bytes.Clone(gnu), 255, 255, 255, 255, 255, 255, 255, 255, 9, 0, 0, 0)), PVH, "PHYS32_ENTRY"},
		"ARM":                    {image(t, elf.EM_AARCH64, pvh), PVH, "EM_AARCH64"},
		"bzImage":                {bzImage(packed(t, image(t, elf.EM_X86_64, pvh))), PVH, ""},
		"bzImage by xz":          {bzImage([]byte("\xfd7zXZ\x00 and so on")), PVH, ""},
		"bzImage of no PVH":      {bzImage(packed(t, image(t, elf.EM_X86_64, pv))), PVH, "PHYS32_ENTRY"},
		"bzImage of no ELF":      {bzImage(packed(t, []byte("something"))), PVH, "no ELF"},
		"an old bzImage":         {old, PVH, "2.08"},
		"a short bzImage":        {bzImage(packed(t, image(t, elf.EM_X86_64, pvh)))[:512*3+9], PVH, "cut off"},
		"a damaged bzImage":      {bzImage([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x00 and no more")), PVH, "unpacked"},
		"text":                   {bytes.Repeat([]byte("hello "), 200), PVH, "neither ELF nor bzImage"},
		"nothing":                {nil, PVH, "empty"},
		"a short ELF":            {[]byte(elf.ELFMAG), PVH, "no x86 kernel"},
	} {
		path := filepath.Join(t.TempDir(), "vmlinuz")
		if err := os.WriteFile(path, c.raw, 0o600); err != nil {
			t.Fatal(err)
		}
		err := Check(path, c.g)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		if Check(path, PVH) == nil {
			t.Errorf("%s is a kernel", path)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(elf.ELFMAG))
	f.Add(bzImage([]byte("\x1f\x8b\x08")))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		_ = check(bytes.NewReader(raw), int64(len(raw)), PVH)
	})
}
