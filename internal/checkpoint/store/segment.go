package store

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
)

// segment is one file of checkpoints, opened for reading.
type segment struct {
	timeline
	path    string
	f       *os.File
	id      uint64
	first   Epoch
	size    int64 // of the file when it was opened
	end     int64 // of the last whole checkpoint
	commits []commit
	sealed  bool // its timeline is from an index
}

func segmentPath(dir string, first Epoch) string {
	return filepath.Join(dir, fmt.Sprintf("seg-%010d.log", first))
}

// segmentFiles returns the first epochs of a store's segments, ascending.
func segmentFiles(dir string) ([]Epoch, error) {
	names, err := filepath.Glob(filepath.Join(dir, "seg-*.log"))
	if err != nil {
		return nil, err
	}
	var list []Epoch
	for _, n := range names { // Glob sorts
		var e Epoch
		if _, err := fmt.Sscanf(filepath.Base(n), "seg-%d.log", &e); err != nil || n != segmentPath(dir, e) {
			return nil, damaged("%s is not a segment's name", n)
		}
		list = append(list, e)
	}
	return list, nil
}

// openSegment opens a segment, with its index if there is one. Otherwise the
// timeline is made from the segment itself, and before has to return the map at
// the end of the segment before.
func openSegment(path string, first Epoch, before func() (*Map, error)) (s *segment, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s = &segment{path: path, f: f}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	head := make([]byte, segmentHeader)
	if _, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, err
	}
	if s.id, s.first, err = parseSegmentHead(head); err != nil || s.first != first {
		return nil, damaged("%s: not the segment that its name says (%v)", path, err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s.size = st.Size()
	x, commits, err := openIndex(s)
	if err != nil {
		return nil, err
	}
	if x != nil {
		s.timeline, s.commits, s.end, s.sealed = x, commits, s.size, true
		return s, nil
	}
	m, err := before()
	if err != nil {
		return nil, err
	}
	g := growFrom(m)
	s.timeline = g
	s.end, err = scan(f, s.id, func(Epoch) bool { return false }, func(c scanned) error {
		e, err := s.entries(c.commit)
		if err != nil {
			return err
		}
		s.commits = append(s.commits, c.commit)
		g.add(c.epoch, e.pfn)
		return nil
	})
	return s, err
}

func (s *segment) close() {
	_ = s.f.Close() // it was only read
	if x, ok := s.timeline.(*index); ok {
		_ = x.f.Close()
	}
}

// find returns the checkpoint of that number.
func (s *segment) find(e Epoch) (commit, bool) {
	i := sort.Search(len(s.commits), func(i int) bool { return s.commits[i].epoch >= e })
	if i == len(s.commits) || s.commits[i].epoch != e {
		return commit{}, false
	}
	return s.commits[i], true
}

// entries reads what a checkpoint has changed.
func (s *segment) entries(c commit) (*entries, error) {
	raw, err := readPlace(s.f, c.delta)
	if err != nil {
		return nil, err
	}
	e, err := decodeDelta(raw)
	if err != nil {
		return nil, fmt.Errorf("%s, checkpoint %d: %w", s.path, c.epoch, err)
	}
	return e, nil
}
