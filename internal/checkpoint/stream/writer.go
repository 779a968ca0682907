package stream

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/warmreboot/warmreboot/ident"
)

// Writer writes a domain so that `xl restore` takes it. Pages are gathered in
// aligned runs of 4 MiB, from which libxc 4.21 and later allocates superpages.
type Writer struct {
	w     *bufio.Writer
	state *State
	pfns  []byte
	data  []byte
	run   ident.PFN // of the pages gathered: PFN / 1024
	err   error
}

// NewWriter begins with everything that comes before memory.
func NewWriter(w io.Writer, s *State) *Writer {
	o := &Writer{w: bufio.NewWriterSize(w, 1<<20), state: s}
	magic := make([]byte, xlMagicSize)
	copy(magic, xlMagic)
	o.write(magic)
	le, be := binary.LittleEndian, binary.BigEndian
	var h []byte
	h = le.AppendUint32(h, xlByteOrder)
	if len(s.Config) > 0 {
		h = le.AppendUint32(h, xlJSON|xlStreamV2)
		h = le.AppendUint32(h, 0)
		h = le.AppendUint32(h, uint32(len(s.Config)+5))
		h = le.AppendUint32(h, uint32(len(s.Config)+1))
		h = append(append(h, s.Config...), 0)
	} else {
		h = le.AppendUint32(h, xlStreamV2)
		h = le.AppendUint32(h, 0)
		h = le.AppendUint32(h, 0)
	}
	h = be.AppendUint64(h, libxlIdent)
	h = be.AppendUint32(h, libxlVersion)
	h = be.AppendUint32(h, 0)
	o.write(h)
	o.record(outerLibxcContext)

	h = be.AppendUint64(h[:0], libxcMarker)
	h = be.AppendUint32(h, libxcID)
	h = be.AppendUint32(h, libxcVersion)
	h = be.AppendUint64(h, 0)
	h = le.AppendUint32(h, domainHVM)
	h = le.AppendUint32(h, pageShift)
	h = le.AppendUint32(h, s.XenMajor)
	h = le.AppendUint32(h, s.XenMinor)
	o.write(h)
	o.records(s.Static)
	o.record(recStaticDataEnd)
	return o
}

// Page adds a page; a page that was added before is replaced. Absent pages are
// left out.
func (o *Writer) Page(p Page) error {
	if p.PFN >= MaxPFN || (p.Kind == Data) != (len(p.Data) == PageSize) {
		return fmt.Errorf("page %#x with %d bytes of data can't be written", uint64(p.PFN), len(p.Data))
	}
	if p.Kind == Absent {
		return o.err
	}
	if len(o.pfns) == 8*superpagePages || len(o.pfns) > 0 && p.PFN/superpagePages != o.run {
		o.flush()
	}
	o.run = p.PFN / superpagePages
	v := uint64(p.PFN)
	if p.Kind == Allocated {
		v |= typeXAlloc << pageTypeShift
	}
	o.pfns = binary.LittleEndian.AppendUint64(o.pfns, v)
	o.data = append(o.data, p.Data...)
	return o.err
}

// Close writes everything that comes behind memory. It does not close what is
// below.
func (o *Writer) Close() error {
	o.flush()
	o.records(o.state.Rest)
	o.record(recEnd)
	o.records(o.state.Emulators)
	o.record(outerEnd)
	if o.err == nil {
		o.err = o.w.Flush()
	}
	return o.err
}

func (o *Writer) flush() {
	if len(o.pfns) == 0 {
		return
	}
	h := binary.LittleEndian.AppendUint64(nil, uint64(len(o.pfns)/8))
	o.record(recPageData, h, o.pfns, o.data)
	o.pfns, o.data = o.pfns[:0], o.data[:0]
}

func (o *Writer) records(list []Record) {
	for _, r := range list {
		o.record(r.Type, r.Body)
	}
}

func (o *Writer) record(typ uint32, parts ...[]byte) {
	length := 0
	for _, p := range parts {
		length += len(p)
	}
	h := binary.LittleEndian.AppendUint32(nil, typ)
	o.write(binary.LittleEndian.AppendUint32(h, uint32(length)))
	for _, p := range parts {
		o.write(p)
	}
	o.write(make([]byte, -length&(alignment-1)))
}

func (o *Writer) write(b []byte) {
	if o.err == nil {
		_, o.err = o.w.Write(b)
	}
}
