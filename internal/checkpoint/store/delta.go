package store

import (
	"encoding/binary"
	"sort"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Codes of what a checkpoint changed of a page; above codeData, the code is the
// length of the page's record plus codeData.
const (
	codeZero      = 0
	codeAllocated = 1
	codeAbsent    = 2
	codeData      = 3
)

// block is a record of pages: how many, in how many bytes.
type block struct{ pages, length int }

// entries is what a checkpoint changed. For reading they are sorted by PFN, and
// off is where in the segment a page's record is.
type entries struct {
	pfn  []uint32
	code []uint32
	off  []int64
}

func (e *entries) add(pfn, code uint32) {
	e.pfn = append(e.pfn, pfn)
	e.code = append(e.code, code)
}

// find returns the index of a page, or -1.
func (e *entries) find(pfn uint32) int {
	i := sort.Search(len(e.pfn), func(i int) bool { return e.pfn[i] >= pfn })
	if i == len(e.pfn) || e.pfn[i] != pfn {
		return -1
	}
	return i
}

func (e *entries) Len() int           { return len(e.pfn) }
func (e *entries) Less(i, j int) bool { return e.pfn[i] < e.pfn[j] }
func (e *entries) Swap(i, j int) {
	e.pfn[i], e.pfn[j] = e.pfn[j], e.pfn[i]
	e.code[i], e.code[j] = e.code[j], e.code[i]
	e.off[i], e.off[j] = e.off[j], e.off[i]
}

// encodeDelta writes entries in the order in which their pages' records were
// written, the first of which begins at first. What is alike is packed together,
// each column by itself: one with the blocks, one with the differences of PFNs, the
// codes' low bytes and their high bytes.
func encodeDelta(e *entries, blocks []block, first int64) []byte {
	b := binary.AppendUvarint(nil, uint64(first))
	b = binary.AppendUvarint(b, uint64(len(blocks)))
	for _, x := range blocks {
		b = binary.AppendUvarint(b, uint64(x.pages))
		b = binary.AppendUvarint(b, uint64(x.length))
	}
	b = binary.AppendUvarint(b, uint64(len(e.pfn)))
	gaps := make([]byte, 0, len(e.pfn)*2)
	low, high := make([]byte, len(e.code)), make([]byte, len(e.code))
	last := int64(0)
	for i, p := range e.pfn {
		gaps = binary.AppendVarint(gaps, int64(p)-last)
		last = int64(p)
		low[i], high[i] = byte(e.code[i]), byte(e.code[i]>>8)
	}
	var out []byte
	for _, column := range [][]byte{b, gaps, low, high} {
		z := pack(column)
		out = binary.AppendUvarint(out, uint64(len(z)))
		out = append(out, z...)
	}
	return out
}

// columns takes a delta apart.
func columns(raw []byte) (list [4][]byte, err error) {
	for i := range list {
		n, k := binary.Uvarint(raw)
		if k <= 0 || n > uint64(len(raw)-k) {
			return list, damaged("the list of changed pages ends early")
		}
		if list[i], err = unpack(raw[k : k+int(n)]); err != nil {
			return list, err
		}
		raw = raw[k+int(n):]
	}
	if len(raw) != 0 {
		return list, damaged("the list of changed pages does not end")
	}
	return list, nil
}

type numbers struct {
	b   []byte
	bad bool
}

func (n *numbers) next() uint64 {
	if len(n.b) > 0 && n.b[0] < 0x80 { // most are
		v := n.b[0]
		n.b = n.b[1:]
		return uint64(v)
	}
	v, k := binary.Uvarint(n.b)
	if k <= 0 {
		n.bad = true
		return 0
	}
	n.b = n.b[k:]
	return v
}

func (n *numbers) nextSigned() int64 {
	v, k := binary.Varint(n.b)
	if k <= 0 {
		n.bad = true
		return 0
	}
	n.b = n.b[k:]
	return v
}

// count returns a number of things of at least one byte each, which the rest has
// to hold.
func (n *numbers) count() int {
	v := n.next()
	if v > uint64(len(n.b)) {
		n.bad = true
		return 0
	}
	return int(v)
}

func decodeDelta(raw []byte) (*entries, error) {
	column, err := columns(raw)
	if err != nil {
		return nil, err
	}
	in := &numbers{b: column[0]}
	off := int64(in.next()) + recordHeader
	blocks := make([]block, in.count())
	for i := range blocks {
		blocks[i] = block{int(in.next()), int(in.next())}
	}
	n := int(min(in.next(), maxUnpacked))
	gaps, low, high := &numbers{b: column[1]}, column[2], column[3]
	if len(low) != n || len(high) != n || len(gaps.b) < n || len(in.b) != 0 {
		return nil, damaged("the list of changed pages has columns of different lengths")
	}
	e := &entries{pfn: make([]uint32, n), code: make([]uint32, n), off: make([]int64, n)}
	last, sorted := int64(0), true
	for i := range e.pfn {
		d := gaps.nextSigned()
		last += d
		if last < 0 || last > 1<<32-1 {
			in.bad = true
			break
		}
		sorted = sorted && (d > 0 || i == 0)
		e.pfn[i] = uint32(last)
	}
	at, used := 0, 0
	for i := range e.code {
		c := uint32(low[i]) | uint32(high[i])<<8
		if c > codeData+maxEncoded {
			in.bad = true
			break
		}
		e.code[i] = c
		if c <= codeData {
			continue
		}
		for at < len(blocks) && blocks[at].pages == 0 {
			if blocks[at].length != used {
				in.bad = true
			}
			off += recordHeader
			at, used = at+1, 0
		}
		if at == len(blocks) {
			in.bad = true
			break
		}
		e.off[i] = off
		off += int64(c - codeData)
		used += int(c - codeData)
		blocks[at].pages--
	}
	if in.bad || gaps.bad || len(gaps.b) != 0 {
		return nil, damaged("the list of changed pages makes no sense")
	}
	if !sorted {
		sort.Stable(e)
		k := 0
		for i := range e.pfn { // of a page that came twice, the last counts
			if i+1 < n && e.pfn[i+1] == e.pfn[i] {
				continue
			}
			e.pfn[k], e.code[k], e.off[k] = e.pfn[i], e.code[i], e.off[i]
			k++
		}
		e.pfn, e.code, e.off = e.pfn[:k], e.code[:k], e.off[:k]
	}
	return e, nil
}

// Compression of what is not pages. maxUnpacked bounds what a damaged length can
// make us allocate.
const maxUnpacked = 1 << 30

var (
	packer = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	unpacker = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxUnpacked))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// pack compresses, unless it is too short to gain by it.
func pack(b []byte) []byte {
	if len(b) > 64 {
		if z := packer().EncodeAll(b, []byte{1}); len(z) <= len(b) {
			return z
		}
	}
	return append([]byte{0}, b...)
}

func unpack(b []byte) ([]byte, error) {
	switch {
	case len(b) > 0 && b[0] == 0:
		return b[1:], nil
	case len(b) > 0 && b[0] == 1:
		out, err := unpacker().DecodeAll(b[1:], nil)
		if err != nil {
			return nil, damaged("%v", err)
		}
		return out, nil
	}
	return nil, damaged("neither packed nor not")
}
