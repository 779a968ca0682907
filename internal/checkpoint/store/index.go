package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sort"
)

// An index has a header of 64 bytes (magic; number, first epoch and length of the
// segment it belongs to; counts; CRC of header and tables), a table of commits, a
// table of chunks, and the chunks.
const (
	indexMagic  = "WRCKIDX1"
	indexHeader = 64
	commitEntry = 4 + 8 + 4 + 8 + 4 + 8
	chunkEntry  = 4 + 8 + 4 + 4
)

// index is the timeline of a full segment.
type index struct {
	f      *os.File
	first  Epoch
	chunks []indexChunk
}

type indexChunk struct {
	number uint32
	place
	crc uint32
}

func (x *index) numbers() []uint32 {
	n := make([]uint32, len(x.chunks))
	for i := range x.chunks {
		n[i] = x.chunks[i].number
	}
	return n
}

func (x *index) chunk(n uint32) (*chunk, error) {
	i := sort.Search(len(x.chunks), func(i int) bool { return x.chunks[i].number >= n })
	if i == len(x.chunks) || x.chunks[i].number != n {
		return nil, nil
	}
	b, err := readPlace(x.f, x.chunks[i].place)
	if err != nil {
		return nil, err
	}
	if crc32.Checksum(b, castagnoli) != x.chunks[i].crc {
		return nil, damaged("%s: the sum of chunk %d is wrong", x.f.Name(), n)
	}
	return decodeChunk(b, x.first)
}

func indexPath(log string) string { return log[:len(log)-len(".log")] + ".idx" }

// writeIndex writes the index of a segment.
func writeIndex(s *segment, o Options) error {
	numbers := s.numbers()
	var tables []byte
	le := binary.LittleEndian
	for _, c := range s.commits {
		tables = le.AppendUint32(tables, uint32(c.epoch))
		for _, p := range []place{c.delta, c.state} {
			tables = le.AppendUint64(tables, uint64(p.off))
			tables = le.AppendUint32(tables, p.length)
		}
		tables = le.AppendUint64(tables, uint64(c.end))
	}
	off := int64(indexHeader + len(tables) + len(numbers)*chunkEntry)
	var body []byte
	for _, n := range numbers {
		c, err := s.chunk(n)
		if err != nil {
			return err
		}
		b := c.encode(s.first)
		tables = le.AppendUint32(tables, n)
		tables = le.AppendUint64(tables, uint64(off)+uint64(len(body)))
		tables = le.AppendUint32(tables, uint32(len(b)))
		tables = le.AppendUint32(tables, crc32.Checksum(b, castagnoli))
		body = append(body, b...)
	}
	h := make([]byte, indexHeader)
	copy(h, indexMagic)
	le.PutUint64(h[8:], s.id)
	le.PutUint32(h[16:], uint32(s.first))
	le.PutUint64(h[20:], uint64(s.end))
	le.PutUint32(h[28:], uint32(len(s.commits)))
	le.PutUint32(h[32:], uint32(len(numbers)))
	le.PutUint32(h[60:], crc32.Update(crc32.Checksum(h[:60], castagnoli), castagnoli, tables))
	return writeFile(indexPath(s.path), o, "index", h, tables, body)
}

// openIndex returns the index of a segment, or nil if there is none that belongs
// to the segment as it is now.
func openIndex(s *segment) (x *index, commits []commit, err error) {
	f, err := os.Open(indexPath(s.path))
	if err != nil {
		if os.IsNotExist(err) {
			err = nil
		}
		return nil, nil, err
	}
	defer func() {
		if x == nil {
			_ = f.Close() // it was only read
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	h := make([]byte, indexHeader)
	if n, _ := f.ReadAt(h, 0); n < len(h) || string(h[:8]) != indexMagic {
		return nil, nil, nil
	}
	le := binary.LittleEndian
	nc, nk := int64(le.Uint32(h[28:])), int64(le.Uint32(h[32:]))
	size := nc*commitEntry + nk*chunkEntry
	if le.Uint64(h[8:]) != s.id || Epoch(le.Uint32(h[16:])) != s.first || int64(le.Uint64(h[20:])) != s.size || indexHeader+size > st.Size() {
		return nil, nil, nil
	}
	tables := make([]byte, size)
	if _, err := f.ReadAt(tables, indexHeader); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if crc32.Update(crc32.Checksum(h[:60], castagnoli), castagnoli, tables) != le.Uint32(h[60:]) {
		return nil, nil, nil
	}
	for ; nc > 0; nc-- {
		t := tables[:commitEntry]
		commits = append(commits, commit{Epoch(le.Uint32(t)), place{int64(le.Uint64(t[4:])), le.Uint32(t[12:])},
			place{int64(le.Uint64(t[16:])), le.Uint32(t[24:])}, int64(le.Uint64(t[28:]))})
		tables = tables[commitEntry:]
	}
	x = &index{f: f, first: s.first}
	for ; nk > 0; nk-- {
		t := tables[:chunkEntry]
		x.chunks = append(x.chunks, indexChunk{le.Uint32(t), place{int64(le.Uint64(t[4:])), le.Uint32(t[12:])}, le.Uint32(t[16:])})
		tables = tables[chunkEntry:]
	}
	return x, commits, nil
}

// writeFile makes a file appear whole or not at all.
func writeFile(path string, o Options, what string, parts ...[]byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := f.Write(p); err != nil {
			_ = f.Close()
			return err
		}
	}
	o.step(what + " written")
	return publish(f, path, o, what)
}

// publish closes a temporary file and gives it its name, durably.
func publish(f *os.File, path string, o Options, what string) error {
	if !o.noSync {
		if err := f.Sync(); err != nil {
			_ = f.Close()
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	o.step(what + " renamed")
	return syncDir(filepath.Dir(path), o)
}

func syncDir(dir string, o Options) error {
	if o.noSync {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}
