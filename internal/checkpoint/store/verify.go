package store

import (
	"fmt"
	"math"
	"os"
)

// Verified says what Verify has read.
type Verified struct {
	Segments, Checkpoints, Versions int
	Bytes                           int64
}

// Verify reads all of a store: every record's sum, every index against the
// segment it was made from, every version of every page against the CRC of its
// bytes, and that the catalogue's checkpoints are there. The first thing that is
// wrong ends it, with ErrDamaged. It takes no lock.
func Verify(dir string) (Verified, error) {
	var out Verified
	r, err := Open(dir)
	if err != nil {
		return out, err
	}
	defer func() { _ = r.Close() }() // only read
	known := map[Epoch]bool{}
	for i := range r.firsts {
		s, err := r.segment(i)
		if err != nil {
			return out, err
		}
		out.Segments++
		if err := r.verifySegment(i, s, &out, known); err != nil {
			return out, err
		}
	}
	for _, i := range r.infos {
		if !known[i.Epoch] {
			return out, damaged("checkpoint %d is in the catalogue only", i.Epoch)
		}
	}
	out.Checkpoints = len(r.infos)
	return out, nil
}

func (r *Reader) verifySegment(n int, s *segment, out *Verified, known map[Epoch]bool) error {
	var base *Map
	var err error
	if s.sealed {
		base, err = mapAt(s, 0) // the segments before may lack what nobody needs any more
	} else {
		base, err = r.mapBefore(n)
	}
	if err != nil {
		return err
	}
	again := growFrom(base)
	at := 0
	end, err := scan(s.f, s.id, func(Epoch) bool { return true }, func(c scanned) error {
		if s.end < c.end {
			return nil // it came after the reader was opened
		}
		if at >= len(s.commits) || s.commits[at] != c.commit {
			return damaged("%s: the index lacks checkpoint %d, or has it elsewhere", s.path, c.epoch)
		}
		at++
		known[c.epoch] = !c.info.Forgotten && c.state.length > 0
		x, err := s.entries(c.commit)
		if err != nil {
			return err
		}
		again.add(c.epoch, x.pfn)
		return r.verifyPages(c.epoch, x, out)
	})
	if err != nil {
		return err
	}
	if end < s.end || at != len(s.commits) {
		return damaged("%s: no whole record at byte %d", s.path, end)
	}
	out.Bytes += end
	for _, k := range s.numbers() {
		c, err := s.chunk(k)
		if err != nil {
			return err
		}
		if string(c.encode(s.first)) != string(again.get(k).encode(s.first)) {
			return damaged("%s: the index of pages from %#x on is not what the segment says", s.path, k*chunkPages)
		}
	}
	return nil
}

func (r *Reader) verifyPages(e Epoch, x *entries, out *Verified) error {
	buf := make([]byte, PageSize)
	for _, pfn := range x.pfn {
		if _, err := r.Read(pfn, e, buf); err != nil {
			return err
		}
		out.Versions++
	}
	return nil
}

// Size returns the bytes of a store's files.
func Size(dir string) (int64, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for _, f := range list {
		i, err := f.Info()
		if err != nil {
			return 0, err
		}
		if total > math.MaxInt64-i.Size() {
			return 0, fmt.Errorf("%s: sizes make no sense", dir)
		}
		total += i.Size()
	}
	return total, nil
}
