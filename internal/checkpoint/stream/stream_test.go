package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/warmreboot/warmreboot/ident"
)

// sample is a domain with the records that a PVH guest has, and a device model
// like an HVM guest.
func sample() *State {
	params := binary.LittleEndian.AppendUint64(nil, 2)
	for _, v := range []uint64{1, 0xfeffc, 36, 8} {
		params = binary.LittleEndian.AppendUint64(params, v)
	}
	return &State{
		Config:   []byte(`{"c_info":{"type":"pvh","name":"web","uuid":"5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b01"}}`),
		XenMajor: 4, XenMinor: 20,
		Static:    []Record{{RecCPUIDPolicy, make([]byte, 24)}, {RecMSRPolicy, make([]byte, 16)}},
		Rest:      []Record{{RecTSCInfo, make([]byte, 24)}, {RecHVMParams, params}, {RecHVMContext, []byte("thirteen byte")}, {recOptional | 99, []byte("x")}},
		Emulators: []Record{{outerEmulatorXenstore, []byte("12345678rest\x00")}, {outerEmulatorContext, []byte("12345678qemu")}},
	}
}

func filled(b byte) []byte { return bytes.Repeat([]byte{b}, PageSize) }

func write(t testing.TB, s *State, pages ...Page) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out, s)
	for _, p := range pages {
		if err := w.Page(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func read(r io.Reader) (*State, []Page, error) {
	var pages []Page
	s, err := Read(r, nil, func(p Page) error {
		p.Data = bytes.Clone(p.Data)
		pages = append(pages, p)
		return nil
	})
	return s, pages, err
}

// TestRoundTrip: what was written is read, wherever the reads are cut, and what
// follows the stream is left alone.
func TestRoundTrip(t *testing.T) {
	var pages []Page
	for pfn := range ident.PFN(2500) {
		switch {
		case pfn%7 == 3:
			pages = append(pages, Page{PFN: pfn, Kind: Allocated})
		case pfn%5 != 0:
			pages = append(pages, Page{PFN: pfn, Kind: Data, Data: filled(byte(pfn))})
		}
	}
	pages = append(pages, Page{PFN: 0xfefff, Kind: Data, Data: filled(9)}, Page{PFN: 7, Kind: Data, Data: filled(8)})
	raw := write(t, sample(), pages...)
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(raw), "byte by byte": iotest.OneByteReader(bytes.NewReader(raw)),
		"with a tail": io.MultiReader(bytes.NewReader(raw), strings.NewReader("tail")),
	} {
		s, got, err := read(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(s, sample()) {
			t.Errorf("%s: %+v", name, s)
		}
		if !reflect.DeepEqual(got, pages) {
			t.Errorf("%s: pages differ", name)
		}
		if again := write(t, s, got...); !bytes.Equal(again, raw) {
			t.Errorf("%s: writing it again gives other bytes", name)
		}
	}
	name, uuid, err := sample().Domain()
	if err != nil || name != "web" || uuid.String() != "5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b01" {
		t.Error(name, uuid, err)
	}
}

// TestAgainstXen: the parser that Xen ships takes what we write.
func TestAgainstXen(t *testing.T) {
	found, _ := filepath.Glob("/usr/lib/xen-*/bin/verify-stream-v2")
	if len(found) == 0 {
		t.Skip("xen-utils is not installed here")
	}
	cmd := exec.Command(found[0], "-f", "xl", "-i", "/dev/stdin")
	cmd.Stdin = bytes.NewReader(write(t, sample(), Page{PFN: 1, Kind: Data, Data: filled(1)}))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestCutShort: a stream that is cut anywhere is an error that says where.
func TestCutShort(t *testing.T) {
	raw := write(t, sample(), Page{PFN: 1, Kind: Data, Data: filled(1)})
	for n := range len(raw) {
		_, _, err := read(bytes.NewReader(raw[:n]))
		var f *FormatError
		if !errors.As(err, &f) || !errors.Is(err, io.ErrUnexpectedEOF) || f.Offset > int64(n) {
			t.Fatalf("cut at %d of %d: %v", n, len(raw), err)
		}
	}
}

// TestRefused: what can't be restored is not taken for a checkpoint.
func TestRefused(t *testing.T) {
	raw := write(t, sample(), Page{PFN: 1, Kind: Data, Data: filled(1)})
	find := func(b []byte) int { return bytes.Index(raw, b) }
	libxc := find([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'X', 'E', 'N', 'F'})
	batch := find([]byte{1, 0, 0, 0, 0x10, 0x10, 0, 0})
	if libxc < 0 || batch < 0 {
		t.Fatal(libxc, batch)
	}
	for what, change := range map[string]struct {
		at  int
		to  []byte
		say string
	}{
		"magic":          {3, []byte("x"), "not a domain saved by xl"},
		"byte order":     {32, []byte{1, 2, 3, 4}, "byte order"},
		"legacy":         {36, []byte{1}, "4.5"},
		"unknown flag":   {36, []byte{7}, "unknown flags"},
		"long config":    {44, []byte{0xff, 0xff, 0xff, 0xff}, "configuration of"},
		"config length":  {48, []byte{0xff, 0xff, 0, 0}, "does not fit"},
		"version":        {libxc + 15, []byte{2}, "version 2"},
		"PV":             {libxc + 24, []byte{1}, "PV guest"},
		"page size":      {libxc + 28, []byte{13}, "2^13"},
		"Remus":          {batch, []byte{0xe}, "Remus"},
		"verify":         {batch, []byte{0xd}, "verify"},
		"PV record":      {batch, []byte{2}, "not known"},
		"long record":    {batch + 4, []byte{0, 0, 0, 0xf0}, "bytes"},
		"count":          {batch + 8, []byte{2}, "beyond"}, // the page's bytes as a PFN
		"huge count":     {batch + 8, []byte{0xff, 0xff, 0xff, 0xff}, "pages in a record"},
		"no data":        {batch + 8, []byte{0}, "need"},
		"type":           {batch + 23, []byte{0x10}, "only PV guests"},
		"reserved bits":  {batch + 22, []byte{0xf0}, "beyond"},
		"large PFN":      {batch + 20, []byte{0x01}, "beyond"},
		"static missing": {batch - 8, []byte{0x8}, "before the end of static data"},
	} {
		b := bytes.Clone(raw)
		copy(b[change.at:], change.to)
		if _, _, err := read(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), change.say) {
			t.Errorf("%s: %v, want %q", what, err, change.say)
		}
	}
	for _, lacks := range []uint32{RecHVMContext, RecHVMParams} {
		s := sample()
		for i := range s.Rest {
			if s.Rest[i].Type == lacks {
				s.Rest[i].Type = recOptional
			}
		}
		if _, _, err := read(bytes.NewReader(write(t, s))); err == nil {
			t.Errorf("a domain without record %#x accepted", lacks)
		}
	}
}

// TestBoundedMemory: lengths that a file claims are not believed before its bytes
// are there, and a large domain takes no more memory than a small one.
func TestBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 512 MiB")
	}
	out, in := io.Pipe()
	go func() {
		w := NewWriter(in, sample())
		page := filled(3)
		for pfn := range ident.PFN(512 << 8) {
			if err := w.Page(Page{PFN: pfn, Kind: Data, Data: page}); err != nil {
				in.CloseWithError(err)
				return
			}
		}
		in.CloseWithError(w.Close())
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n := 0
	if _, err := Read(out, nil, func(Page) error { n++; return nil }); err != nil || n != 512<<8 {
		t.Fatal(n, err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
		t.Errorf("%d MiB allocated for 512 MiB", got>>20)
	}
}

func TestCalleesError(t *testing.T) {
	mine := errors.New("mine")
	raw := write(t, sample(), Page{PFN: 1, Kind: Data, Data: filled(1)})
	if _, err := Read(bytes.NewReader(raw), nil, func(Page) error { return mine }); err != mine {
		t.Error(err)
	}
	if _, err := Read(bytes.NewReader(raw), func(s *State) error {
		if len(s.Config) == 0 {
			t.Error("no configuration before the first page")
		}
		return mine
	}, func(Page) error { t.Error("a page"); return nil }); err != mine {
		t.Error(err)
	}
}

// FuzzRead: no bytes make the reader panic, and what it accepts is written and
// read again as the same.
func FuzzRead(f *testing.F) {
	raw := write(f, sample(), Page{PFN: 1, Kind: Data, Data: filled(1)}, Page{PFN: 2, Kind: Allocated})
	f.Add(raw)
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		b := bytes.Clone(raw)
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, pages, err := read(bytes.NewReader(b))
		if err != nil {
			var e *FormatError
			if !errors.As(err, &e) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		var kept []Page
		for _, p := range pages {
			if p.Kind != Absent {
				kept = append(kept, p)
			}
		}
		again, got, err := read(bytes.NewReader(write(t, s, pages...)))
		if err != nil || !reflect.DeepEqual(again, s) || !reflect.DeepEqual(got, kept) {
			t.Fatalf("not the same: %v\n%+v\n%+v", err, s, again)
		}
	})
}
