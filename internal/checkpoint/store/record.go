package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/cespare/xxhash/v2"
)

// A segment begins with 64 bytes: magic, its own random number, first epoch, CRC.
// Then come records: a header of 32 bytes, and the body.
const (
	segmentMagic  = "WRCKSEG1"
	segmentHeader = 64
	recordMagic   = 0x4b435257 // "WRCK"
	recordHeader  = 32
)

// Kinds of records, in the order in which those of one checkpoint come.
const (
	kindPages  = 1
	kindDelta  = 2
	kindState  = 3
	kindCommit = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func segmentHead(id uint64, first Epoch) []byte {
	b := make([]byte, segmentHeader)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint64(b[8:], id)
	binary.LittleEndian.PutUint32(b[16:], uint32(first))
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

func parseSegmentHead(b []byte) (id uint64, first Epoch, err error) {
	if len(b) != segmentHeader || string(b[:8]) != segmentMagic || binary.LittleEndian.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return 0, 0, damaged("not the beginning of a segment")
	}
	return binary.LittleEndian.Uint64(b[8:]), Epoch(binary.LittleEndian.Uint32(b[16:])), nil
}

type record struct {
	kind   byte
	epoch  Epoch
	length uint32
	sum    uint64
	off    int64 // of the body
}

// header encodes a record's header. The segment's number is in the sum, so that
// old bytes of another file are never taken for a record.
func (r record) header(id uint64) []byte {
	b := make([]byte, recordHeader)
	le := binary.LittleEndian
	le.PutUint32(b, recordMagic)
	b[4] = r.kind
	le.PutUint32(b[8:], uint32(r.epoch))
	le.PutUint32(b[12:], r.length)
	le.PutUint64(b[16:], r.sum)
	le.PutUint32(b[24:], headerSum(b, id))
	return b
}

func headerSum(b []byte, id uint64) uint32 {
	n := binary.LittleEndian.AppendUint64(nil, id)
	return crc32.Update(crc32.Checksum(b[:24], castagnoli), castagnoli, n)
}

func parseRecord(b []byte, id uint64) (record, bool) {
	le := binary.LittleEndian
	if len(b) != recordHeader || le.Uint32(b) != recordMagic || le.Uint32(b[24:]) != headerSum(b, id) || le.Uint32(b[28:]) != 0 {
		return record{}, false
	}
	return record{kind: b[4], epoch: Epoch(le.Uint32(b[8:])), length: le.Uint32(b[12:]), sum: le.Uint64(b[16:])}, true
}

// place is where a record's body is.
type place struct {
	off    int64
	length uint32
}

// commit is a checkpoint of a segment.
type commit struct {
	epoch        Epoch
	delta, state place
	// end is where the commit record ends.
	end int64
}

func commitBody(chain uint64, info Info) ([]byte, error) {
	text, err := json.Marshal(info)
	return append(binary.LittleEndian.AppendUint64(nil, chain), text...), err
}

// scanned is a whole checkpoint that a scan has come by.
type scanned struct {
	commit
	info Info
}

// scan reads the records of a segment from its beginning and calls found for each
// whole checkpoint. It returns where the last one ends; what comes behind is
// no checkpoint. The bodies of pages, which are most of it, are read and checked
// only where all says so.
func scan(f *os.File, id uint64, all func(Epoch) bool, found func(scanned) error) (end int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end = segmentHeader
	off := end
	chain := xxhash.New()
	var now scanned
	last := Epoch(0)
	head := make([]byte, recordHeader)
	var body []byte
	for off+recordHeader <= st.Size() {
		if _, err := f.ReadAt(head, off); err != nil {
			return end, err
		}
		r, ok := parseRecord(head, id)
		r.off = off + recordHeader
		if !ok || r.off+int64(r.length) > st.Size() || r.epoch <= last || now.epoch != 0 && r.epoch != now.epoch {
			return end, nil
		}
		now.epoch = r.epoch
		if r.kind != kindPages || all(r.epoch) {
			if cap(body) < int(r.length) {
				body = make([]byte, r.length)
			}
			body = body[:r.length]
			if _, err := f.ReadAt(body, r.off); err != nil && err != io.EOF {
				return end, err
			}
			if xxhash.Sum64(body) != r.sum {
				return end, nil
			}
		}
		switch r.kind {
		case kindPages:
		case kindDelta:
			now.delta = place{r.off, r.length}
		case kindState:
			now.state = place{r.off, r.length}
		case kindCommit:
			if len(body) < 8 || binary.LittleEndian.Uint64(body) != chain.Sum64() || now.delta.off == 0 || json.Unmarshal(body[8:], &now.info) != nil {
				return end, nil
			}
			now.end = r.off + int64(r.length)
			now.info.Epoch = r.epoch
			if err := found(now); err != nil {
				return end, err
			}
			end, last = now.end, r.epoch
			now = scanned{}
			chain.Reset()
			off = end
			continue
		default:
			return end, nil
		}
		_, _ = chain.Write(head)
		off = r.off + int64(r.length)
	}
	return end, nil
}

// readPlace reads a record's body and checks nothing but its length.
func readPlace(f *os.File, p place) ([]byte, error) {
	b := make([]byte, p.length)
	if _, err := f.ReadAt(b, p.off); err != nil {
		return nil, fmt.Errorf("%s at %d: %w", f.Name(), p.off, err)
	}
	return b, nil
}
