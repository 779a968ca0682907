package store

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"hash/crc32"
	"math/bits"

	"github.com/klauspost/compress/s2"
)

// Encodings of a page: low half of the first byte of its record; the high half is
// how many others have to be decoded first.
const (
	encRaw  = 1
	encS2   = 2
	encXOR  = 3 // s2 of the XOR with an earlier version
	encSame = 4 // an earlier version has the same bytes
	encRuns = 5 // an earlier version, but for runs of bytes
)

const (
	// maxRuns bounds a difference that is taken without trying what else there is.
	maxRuns = PageSize / 8
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
	case encXOR, encSame, encRuns:
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
		if runs, ok := appendRuns(c.delta[:0], data, from.data); ok {
			return append(c.head(to, encRuns, from.depth+1, data, epoch-from.epoch), runs...)
		}
		subtle.XORBytes(c.xor[:], data, from.data)
		delta = s2.Encode(c.delta, c.xor[:])
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

// runGap is how many equal bytes end a run: to begin another costs as much.
const runGap = 3

// appendRuns appends the runs of bytes in which a page differs from another: for
// each how far it is from the end of the last one, its length, and its bytes. It
// gives up, and says so, beyond maxRuns bytes.
func appendRuns(to, data, of []byte) ([]byte, bool) {
	data, of = data[:PageSize], of[:PageSize]
	end := 0 // of the last run
	for i := 0; ; {
		for i <= PageSize-8 {
			x := binary.LittleEndian.Uint64(data[i:]) ^ binary.LittleEndian.Uint64(of[i:])
			if x != 0 {
				i += bits.TrailingZeros64(x) / 8
				break
			}
			i += 8
		}
		for i < PageSize && data[i] == of[i] { // in the last bytes
			i++
		}
		if i == PageSize {
			return to, true
		}
		first := i
		last := i
		for i++; i < PageSize && i-last <= runGap; i++ {
			if data[i] != of[i] {
				last = i
			}
		}
		to = binary.AppendUvarint(to, uint64(first-end))
		end = last + 1
		to = binary.AppendUvarint(to, uint64(end-first))
		if len(to)+end-first > maxRuns {
			return nil, false
		}
		to = append(to, data[first:end]...)
	}
}

// putRuns puts runs into the page that they are the difference from.
func putRuns(page, runs []byte) error {
	for at := uint64(0); len(runs) > 0; {
		gap, n := binary.Uvarint(runs)
		length, m := binary.Uvarint(runs[max(n, 0):])
		if n <= 0 || m <= 0 || gap > PageSize || length > PageSize || at+gap+length > PageSize || uint64(len(runs)-n-m) < length {
			return damaged("a page's differences make no sense")
		}
		runs = runs[n+m:]
		at += gap
		copy(page[at:at+length], runs[:length])
		at += length
		runs = runs[length:]
	}
	return nil
}

// decode puts the page's bytes into page, which holds its base's, if it has one. It
// leaves them unchecked.
func (h pageHead) decode(page, scratch []byte) error {
	switch h.enc {
	case encRaw:
		if len(h.payload) != PageSize {
			return damaged("a page of %d bytes", len(h.payload))
		}
		copy(page, h.payload)
	case encSame:
		if len(h.payload) != 0 {
			return damaged("a page that is as before, and %d bytes", len(h.payload))
		}
	case encRuns:
		return putRuns(page, h.payload)
	default:
		n, err := s2.DecodedLen(h.payload)
		if err != nil || n != PageSize {
			return damaged("a page of %d bytes (%v)", n, err)
		}
		to := page
		if h.enc == encXOR {
			to = scratch
		}
		if _, err := s2.Decode(to[:PageSize], h.payload); err != nil {
			return damaged("%v", err)
		}
		if h.enc == encXOR {
			subtle.XORBytes(page, page, to)
		}
	}
	return nil
}

// check compares a page with the sum that was made of it when it was stored.
func (h pageHead) check(page []byte) error {
	if crc32.Checksum(page, castagnoli) != h.crc {
		return damaged("a page's sum is wrong")
	}
	return nil
}
