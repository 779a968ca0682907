package stream

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/warmreboot/warmreboot/ident"
)

// FormatError is a stream that is damaged, cut short, or of a kind that is not
// supported.
type FormatError struct {
	// Offset is how far the stream had been read, in bytes.
	Offset int64
	What   string
	// Err is what the reader said, if it was it.
	Err error
}

func (e *FormatError) Error() string {
	s := fmt.Sprintf("saved domain, at byte %d: %s", e.Offset, e.What)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *FormatError) Unwrap() error { return e.Err }

// Read reads a saved domain from r up to its end, which need not be the end of r,
// and calls page for each page as it comes. A page may come more than once; the
// last one counts. Its data is the callee's until it returns. Before the first
// page, begin, unless it is nil, is called with the state so far: the
// configuration. An error of begin or page ends the reading and is returned as it
// is; everything else is a *FormatError.
func Read(r io.Reader, begin func(*State) error, page func(Page) error) (*State, error) {
	in := &reader{r: bufio.NewReaderSize(r, 1<<20), page: page, left: MaxState}
	s := &State{}
	if begin == nil {
		begin = func(*State) error { return nil }
	}
	for _, part := range []func(*State) error{in.xl, begin, in.libxl, in.libxc, in.emulators} {
		if err := part(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

type reader struct {
	r      *bufio.Reader
	offset int64
	left   int // of MaxState
	page   func(Page) error
	pfns   []byte
}

func (in *reader) bad(format string, args ...any) error {
	return &FormatError{Offset: in.offset, What: fmt.Sprintf(format, args...)}
}

func (in *reader) failed(what string, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &FormatError{Offset: in.offset, What: "can't read " + what, Err: err}
}

// peek returns the next n bytes, which are valid until the next call. n is at
// most the buffer's size.
func (in *reader) peek(n int, what string) ([]byte, error) {
	b, err := in.r.Peek(n)
	if err != nil {
		return nil, in.failed(what, err)
	}
	if _, err := in.r.Discard(n); err != nil {
		return nil, in.failed(what, err)
	}
	in.offset += int64(n)
	return b, nil
}

// take returns the next n bytes as a copy, which counts towards MaxState. Memory
// is asked for as bytes arrive, not as a length claims.
func (in *reader) take(n int, what string) ([]byte, error) {
	if n > in.left {
		return nil, in.bad("%s of %d bytes: all but memory would be more than %d MiB", what, n, MaxState>>20)
	}
	in.left -= n
	b, err := io.ReadAll(io.LimitReader(in.r, int64(n)))
	in.offset += int64(len(b))
	if err == nil && len(b) < n {
		err = io.EOF
	}
	if err != nil {
		return nil, in.failed(what, err)
	}
	return b, nil
}

func (in *reader) pad(length int, what string) error {
	_, err := in.peek(-length&(alignment-1), what)
	return err
}

func (in *reader) xl(s *State) error {
	h, err := in.peek(xlMagicSize+16, "xl's header")
	if err != nil {
		return err
	}
	magic := [xlMagicSize]byte{}
	copy(magic[:], xlMagic)
	if [xlMagicSize]byte(h) != magic {
		return in.bad("not a domain saved by xl")
	}
	le := binary.LittleEndian
	order, mandatory, optional, length := le.Uint32(h[32:]), le.Uint32(h[36:]), le.Uint32(h[40:]), le.Uint32(h[44:])
	switch {
	case order != xlByteOrder:
		return in.bad("saved with another byte order")
	case mandatory&xlStreamV2 == 0:
		return in.bad("saved in the format of Xen 4.5 or older")
	case mandatory&^(xlJSON|xlStreamV2) != 0 || optional != 0:
		return in.bad("unknown flags %#x, %#x in xl's header", mandatory, optional)
	case length > MaxState:
		return in.bad("configuration of %d bytes", length)
	}
	data, err := in.take(int(length), "the domain's configuration")
	if err != nil {
		return err
	}
	if length == 0 {
		return nil
	}
	if length < 4 || le.Uint32(data) > length-4 {
		return in.bad("the configuration does not fit into xl's header")
	}
	s.Config = data[4 : 4+le.Uint32(data)]
	if n := len(s.Config); n > 0 && s.Config[n-1] == 0 {
		s.Config = s.Config[:n-1]
	}
	if mandatory&xlJSON == 0 && len(s.Config) > 0 {
		return in.bad("the configuration is not JSON")
	}
	return nil
}

func (in *reader) libxl(*State) error {
	h, err := in.peek(16, "libxl's header")
	if err != nil {
		return err
	}
	be := binary.BigEndian
	if id, version, options := be.Uint64(h), be.Uint32(h[8:]), be.Uint32(h[12:]); id != libxlIdent || version != libxlVersion || options != 0 {
		return in.bad("not libxl's stream in version 2, little endian (%#x, version %d, options %#x)", id, version, options)
	}
	typ, length, err := in.header("libxl")
	if err != nil {
		return err
	}
	if typ != outerLibxcContext || length != 0 {
		return in.bad("libxl's stream begins with record %d of %d bytes", typ, length)
	}
	return nil
}

// header reads the header of a record, which is the same in libxl's and libxc's
// stream.
func (in *reader) header(whose string) (typ uint32, length int, err error) {
	h, err := in.peek(8, "a record's header of "+whose+"'s stream")
	if err != nil {
		return 0, 0, err
	}
	typ, n := binary.LittleEndian.Uint32(h), binary.LittleEndian.Uint32(h[4:])
	if n > maxRecord {
		return 0, 0, in.bad("record %#x of %s's stream has %d bytes", typ, whose, n)
	}
	return typ, int(n), nil
}

func (in *reader) libxc(s *State) error {
	h, err := in.peek(24+16, "libxc's header")
	if err != nil {
		return err
	}
	le, be := binary.LittleEndian, binary.BigEndian
	if be.Uint64(h) != libxcMarker || be.Uint32(h[8:]) != libxcID {
		return in.bad("libxc's stream does not begin as it should")
	}
	if version, options := be.Uint32(h[12:]), be.Uint16(h[16:]); version != libxcVersion || options&1 != 0 {
		return in.bad("libxc's stream has version %d, options %#x; only version 3 (Xen 4.14 and later), little endian, is known", version, options)
	}
	if typ := le.Uint32(h[24:]); typ == domainPV {
		return in.bad("a PV guest: only PVH and HVM guests are supported")
	} else if typ != domainHVM || le.Uint16(h[28:]) != pageShift {
		return in.bad("domain of type %d with pages of 2^%d bytes", typ, le.Uint16(h[28:]))
	}
	s.XenMajor, s.XenMinor = le.Uint32(h[32:]), le.Uint32(h[36:])

	static := true
	for {
		typ, length, err := in.header("libxc")
		if err != nil {
			return err
		}
		switch {
		case typ == recEnd:
			if length != 0 {
				return in.bad("an end of %d bytes", length)
			}
			return in.complete(s, static)
		case typ == recPageData:
			if static {
				return in.bad("memory before the end of static data")
			}
			if err := in.pages(length); err != nil {
				return err
			}
		case typ == recStaticDataEnd:
			if length != 0 || !static {
				return in.bad("static data ends twice, or with %d bytes", length)
			}
			static = false
		case typ == recCheckpoint || typ == recDirtyList:
			return in.bad("a stream of many checkpoints (Remus, COLO)")
		case typ == recVerify:
			return in.bad("a stream with a second pass, to verify")
		case typ&recOptional == 0 && !known[typ]:
			return in.bad("record %#x, which is not known for PVH and HVM guests", typ)
		default:
			body, err := in.take(length, fmt.Sprintf("record %#x", typ))
			if err != nil {
				return err
			}
			if static {
				s.Static = append(s.Static, Record{typ, body})
			} else {
				s.Rest = append(s.Rest, Record{typ, body})
			}
			if in.left -= 64; in.left < 0 { // empty ones take memory, too
				return in.bad("too many records")
			}
		}
		if err := in.pad(length, "padding"); err != nil {
			return err
		}
	}
}

// complete says what a restore would miss.
func (in *reader) complete(s *State, static bool) error {
	params := s.Find(RecHVMParams)
	switch {
	case static:
		return in.bad("no end of static data")
	case s.Find(RecHVMContext) == nil:
		return in.bad("no state of the virtual processors")
	case params == nil:
		return in.bad("no HVM parameters")
	case len(params) < 8 || len(params)-8 != int(min(binary.LittleEndian.Uint32(params), maxRecord/paramsEntry))*paramsEntry:
		return in.bad("HVM parameters do not fit their record")
	}
	return nil
}

// pages reads a PAGE_DATA record: count, PFNs with types, bytes.
func (in *reader) pages(length int) error {
	h, err := in.peek(min(length, headerOfPages), "a batch of pages")
	if err != nil {
		return err
	}
	if length < headerOfPages {
		return in.bad("a batch of pages of %d bytes", length)
	}
	count := int(binary.LittleEndian.Uint32(h))
	if count > maxBatch || headerOfPages+8*count > length {
		return in.bad("%d pages in a record of %d bytes", count, length)
	}
	if in.pfns == nil {
		in.pfns = make([]byte, 8*maxBatch)
	}
	pfns := in.pfns[:8*count]
	if n, err := io.ReadFull(in.r, pfns); err != nil {
		in.offset += int64(n)
		return in.failed("PFNs", err)
	}
	in.offset += int64(len(pfns))
	data := 0
	for i := 0; i < count; i++ {
		v := binary.LittleEndian.Uint64(pfns[8*i:])
		switch v >> pageTypeShift {
		case typeData:
			data++
		case typeBroken, typeXAlloc, typeXTab:
		default:
			return in.bad("page %#x of type %d, which only PV guests have", v&pfnMask, v>>pageTypeShift)
		}
		if pfn := ident.PFN(v &^ (0xf << pageTypeShift)); pfn >= MaxPFN {
			return in.bad("PFN %#x is beyond what a guest may have", uint64(pfn))
		}
	}
	if want := headerOfPages + 8*count + PageSize*data; want != length {
		return in.bad("%d pages, %d of them with data, need %d bytes; the record has %d", count, data, want, length)
	}
	for i := 0; i < count; i++ {
		v := binary.LittleEndian.Uint64(pfns[8*i:])
		p := Page{PFN: ident.PFN(v & pfnMask), Kind: Absent}
		switch v >> pageTypeShift {
		case typeData:
			p.Kind = Data
			if p.Data, err = in.peek(PageSize, "a page"); err != nil {
				return err
			}
		case typeXAlloc:
			p.Kind = Allocated
		}
		if err := in.page(p); err != nil {
			return err
		}
	}
	return nil
}

// emulators reads what libxl wrote behind libxc's stream.
func (in *reader) emulators(s *State) error {
	for {
		typ, length, err := in.header("libxl")
		if err != nil {
			return err
		}
		switch typ {
		case outerEnd:
			if length != 0 {
				return in.bad("an end of %d bytes", length)
			}
			return nil
		case outerEmulatorXenstore, outerEmulatorContext:
		case outerCheckpointEnd, outerCheckpointState:
			return in.bad("a stream of many checkpoints (Remus, COLO)")
		default:
			return in.bad("record %d of libxl's stream is not known", typ)
		}
		body, err := in.take(length, "the device model's state")
		if err != nil {
			return err
		}
		s.Emulators = append(s.Emulators, Record{typ, body})
		if in.left -= 64; in.left < 0 {
			return in.bad("too many records")
		}
		if err := in.pad(length, "padding"); err != nil {
			return err
		}
	}
}

// known are the mandatory records of PVH and HVM guests that are passed on.
var known = map[uint32]bool{RecTSCInfo: true, RecHVMContext: true, RecHVMParams: true, RecCPUIDPolicy: true, RecMSRPolicy: true}
