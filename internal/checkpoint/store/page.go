package store

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"hash/crc32"

	"github.com/klauspost/compress/s2"
)

// Encodings of a page: low half of the first byte of its record; the high half is
// how many others have to be decoded first.
const (
	encRaw  = 1
	encS2   = 2
	encXOR  = 3 // s2 of the XOR with an earlier version
	encSame = 4 // an earlier version has the same bytes
)

const (
	// maxDepth bounds what has to be decoded for one page.
	maxDepth   = 8
	maxEncoded = 1 + 4 + 5 + PageSize
)

var zeroPage [PageSize]byte

// isZero costs what reading the page does.
func isZero(b []byte) bool { return bytes.Equal(b, zeroPage[:]) }

// base is what a page may be encoded against.
type base struct {
	epoch Epoch
	depth int
	data  []byte
}

// pageHead is the beginning of a page's record.
type pageHead struct {
	enc, depth int
	crc        uint32
	base       Epoch // 0 if none
	payload    []byte
}

func parsePage(b []byte, epoch Epoch) (pageHead, error) {
	if len(b) < 5 {
		return pageHead{}, damaged("a page's record of %d bytes", len(b))
	}
	h := pageHead{enc: int(b[0] & 15), depth: int(b[0] >> 4), crc: binary.LittleEndian.Uint32(b[1:]), payload: b[5:]}
	switch h.enc {
	case encRaw, encS2:
		if h.depth != 0 {
			return h, damaged("a page of depth %d without a base", h.depth)
		}
	case encXOR, encSame:
		d, k := binary.Uvarint(h.payload)
		if k <= 0 || d == 0 || d >= uint64(epoch) || h.depth == 0 || h.depth > maxDepth {
			return h, damaged("a page's base makes no sense")
		}
		h.base, h.payload = epoch-Epoch(d), h.payload[k:]
	default:
		return h, damaged("a page with encoding %d", h.enc)
	}
	return h, nil
}

// encoder holds the buffers for one page.
type encoder struct {
	xor   [PageSize]byte
	delta []byte
	plain []byte
}

func newEncoder() *encoder {
	n := s2.MaxEncodedLen(PageSize)
	return &encoder{delta: make([]byte, n), plain: make([]byte, n)}
}

// append appends the record of a page that is not zero. last is the version
// before, root the one without a base that last comes from; nil if there is none.
// What is smallest wins, but a short difference is taken without trying more.
func (c *encoder) append(to, data []byte, epoch Epoch, last, root *base) []byte {
	if root != nil && root.epoch != 0 && bytes.Equal(root.data, data) {
		return c.head(to, encSame, root.depth+1, data, epoch-root.epoch)
	}
	from := last
	if last != nil && last.depth >= maxDepth {
		from = root // a short chain again, at the price of a longer difference
	}
	var delta []byte
	if from != nil {
		subtle.XORBytes(c.xor[:], data, from.data)
		delta = s2.Encode(c.delta, c.xor[:])
		if len(delta) <= PageSize/8 {
			return append(c.head(to, encXOR, from.depth+1, data, epoch-from.epoch), delta...)
		}
	}
	plain := s2.Encode(c.plain, data)
	switch {
	case from != nil && len(delta) < len(plain) && len(delta) < PageSize:
		return append(c.head(to, encXOR, from.depth+1, data, epoch-from.epoch), delta...)
	case len(plain) < PageSize:
		return append(c.head(to, encS2, 0, data, 0), plain...)
	}
	return append(c.head(to, encRaw, 0, data, 0), data...)
}

func (c *encoder) head(to []byte, enc, depth int, data []byte, distance Epoch) []byte {
	to = append(to, byte(enc|depth<<4))
	to = binary.LittleEndian.AppendUint32(to, crc32.Checksum(data, castagnoli))
	if distance != 0 {
		to = binary.AppendUvarint(to, uint64(distance))
	}
	return to
}

// decode puts the page's bytes into out; of is the base's bytes, if there is one.
// out and of may be the same.
func (h pageHead) decode(out, of, scratch []byte) error {
	switch h.enc {
	case encRaw:
		if len(h.payload) != PageSize {
			return damaged("a page of %d bytes", len(h.payload))
		}
		copy(out, h.payload)
	case encSame:
		copy(out, of)
	default:
		n, err := s2.DecodedLen(h.payload)
		if err != nil || n != PageSize {
			return damaged("a page of %d bytes (%v)", n, err)
		}
		to := out
		if h.enc == encXOR {
			to = scratch
		}
		if _, err := s2.Decode(to[:PageSize], h.payload); err != nil {
			return damaged("%v", err)
		}
		if h.enc == encXOR {
			subtle.XORBytes(out, of, to)
		}
	}
	if crc32.Checksum(out, castagnoli) != h.crc {
		return damaged("a page's sum is wrong")
	}
	return nil
}
