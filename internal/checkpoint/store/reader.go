package store

import (
	"errors"
	"fmt"
	"os"
	"sort"
)

// Reader reads a store while another process may write to it. It sees the
// checkpoints that were there when it was opened. It is for one goroutine.
type Reader struct {
	dir   string
	infos []Info
	// firsts are the segments' first epochs; segments are opened when needed.
	firsts   []Epoch
	segments map[Epoch]*segment
	cache    map[Epoch]*entries
	cached   int // entries in it
	largest  int // of the lists seen

	chain   [maxDepth + 1]pageHead
	records [maxDepth + 1][]byte
	scratch [PageSize]byte
	window  windows
}

// cacheEntries bounds the lists of changed pages that are kept, 16 bytes each; but
// four of the largest have room, as pages are read in their order, each from
// another list.
const cacheEntries = 8 << 20

// Open opens a store for reading.
func Open(dir string) (*Reader, error) {
	infos, _, err := readCatalogue(dir)
	if err != nil {
		return nil, err
	}
	r, err := openView(dir)
	if err != nil {
		return nil, err
	}
	r.infos = infos
	return r, nil
}

func openView(dir string) (*Reader, error) {
	firsts, err := segmentFiles(dir)
	if err != nil {
		return nil, err
	}
	return &Reader{dir: dir, firsts: firsts, segments: map[Epoch]*segment{}, cache: map[Epoch]*entries{}}, nil
}

// Close closes what was opened.
func (r *Reader) Close() error {
	for _, s := range r.segments {
		s.close()
	}
	r.segments = nil
	return nil
}

// List returns the kept checkpoints, oldest first.
func (r *Reader) List() []Info { return r.infos }

// Find returns a kept checkpoint; the error is ErrUnknown if there is none.
func (r *Reader) Find(e Epoch) (Info, error) {
	i := sort.Search(len(r.infos), func(i int) bool { return r.infos[i].Epoch >= e })
	if i == len(r.infos) || r.infos[i].Epoch != e {
		return Info{}, fmt.Errorf("checkpoint %d: %w", e, ErrUnknown)
	}
	return r.infos[i], nil
}

// segmentOf returns the segment in which a checkpoint is, or would be.
func (r *Reader) segmentOf(e Epoch) (*segment, error) {
	i := sort.Search(len(r.firsts), func(i int) bool { return r.firsts[i] > e })
	if i == 0 {
		return nil, fmt.Errorf("checkpoint %d: %w", e, ErrUnknown)
	}
	return r.segment(i - 1)
}

func (r *Reader) segment(i int) (*segment, error) {
	first := r.firsts[i]
	if s := r.segments[first]; s != nil {
		return s, nil
	}
	s, err := openSegment(segmentPath(r.dir, first), first, func() (*Map, error) { return r.mapBefore(i) })
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w; what was in it has been forgotten meanwhile", err)
	}
	if err != nil {
		return nil, err
	}
	r.segments[first] = s
	return s, nil
}

// mapBefore returns the map at the end of the segment before number i.
func (r *Reader) mapBefore(i int) (*Map, error) {
	if i == 0 {
		return &Map{}, nil
	}
	s, err := r.segment(i - 1)
	if err != nil {
		return nil, err
	}
	return mapAt(s, ^Epoch(0))
}

// Map returns which version each page has at a kept checkpoint.
func (r *Reader) Map(e Epoch) (*Map, error) {
	if _, err := r.Find(e); err != nil {
		return nil, err
	}
	return r.mapAt(e)
}

func (r *Reader) mapAt(e Epoch) (*Map, error) {
	s, err := r.segmentOf(e)
	if err != nil {
		return nil, err
	}
	return mapAt(s, e)
}

// At returns the version that a page has at a kept checkpoint, 0 if none, without
// making a map.
func (r *Reader) At(e Epoch, pfn uint32) (Epoch, error) {
	if _, err := r.Find(e); err != nil {
		return 0, err
	}
	s, err := r.segmentOf(e)
	if err != nil {
		return 0, err
	}
	c, err := s.chunk(pfn / chunkPages)
	if c == nil || err != nil {
		return 0, err
	}
	return c.at(int(pfn%chunkPages), e), nil
}

// Versions returns the versions of a page that the store has, oldest first. That
// of a forgotten checkpoint is among them if a kept one needs it.
func (r *Reader) Versions(pfn uint32) ([]Epoch, error) {
	var list []Epoch
	for i := range r.firsts {
		s, err := r.segment(i)
		if err != nil {
			return nil, err
		}
		c, err := s.chunk(pfn / chunkPages)
		if err != nil {
			return nil, err
		}
		if c != nil {
			list = append(list, c.versions(int(pfn%chunkPages))...)
		}
	}
	return list, nil
}

// Changed returns the pages that have a new version in a kept checkpoint, by PFN.
func (r *Reader) Changed(e Epoch) ([]uint32, error) {
	if _, err := r.Find(e); err != nil {
		return nil, err
	}
	x, _, err := r.entries(e)
	if err != nil {
		return nil, err
	}
	return x.pfn, nil
}

// State returns what was stored beside the pages of a kept checkpoint.
func (r *Reader) State(e Epoch) ([]byte, error) {
	if _, err := r.Find(e); err != nil {
		return nil, err
	}
	s, err := r.segmentOf(e)
	if err != nil {
		return nil, err
	}
	c, ok := s.find(e)
	if !ok || c.state.length == 0 {
		return nil, damaged("%s: checkpoint %d is not there", s.path, e)
	}
	raw, err := readPlace(s.f, c.state)
	if err != nil {
		return nil, err
	}
	return unpack(raw)
}

// entries returns what a checkpoint has changed, and the segment where it is.
func (r *Reader) entries(e Epoch) (*entries, *segment, error) {
	s, err := r.segmentOf(e)
	if err != nil {
		return nil, nil, err
	}
	if x := r.cache[e]; x != nil {
		return x, s, nil
	}
	c, ok := s.find(e)
	if !ok {
		return nil, nil, damaged("%s: checkpoint %d is not there", s.path, e)
	}
	x, err := s.entries(c)
	if err != nil {
		return nil, nil, err
	}
	r.largest = max(r.largest, len(x.pfn))
	if r.cached+len(x.pfn) > max(cacheEntries, 4*r.largest) {
		clear(r.cache)
		r.cached = 0
	}
	r.cache[e] = x
	r.cached += len(x.pfn)
	return x, s, nil
}

// Read puts the bytes of a version of a page into out, of PageSize bytes, if its
// kind is Data.
func (r *Reader) Read(pfn uint32, version Epoch, out []byte) (Kind, error) {
	kind, _, err := r.content(pfn, version, out, nil)
	return kind, err
}

// content is Read. For what is encoded it also says how deep, and puts the version
// at the root of the chain into root, if root is not nil and is another version.
func (r *Reader) content(pfn uint32, version Epoch, out []byte, root *base) (Kind, int, error) {
	code, n, err := r.load(pfn, version)
	if err != nil {
		return 0, 0, err
	}
	switch code {
	case codeZero:
		clear(out)
		return Data, 0, nil
	case codeAllocated:
		return Allocated, 0, nil
	case codeAbsent:
		return Absent, 0, nil
	}
	for i := n - 1; i >= 0 && err == nil; i-- {
		if err = r.chain[i].decode(out, r.scratch[:]); err != nil {
			break
		}
		if i == n-1 && i > 0 && root != nil {
			err = r.chain[i].check(out) // what comes later may hide what is wrong in it
			copy(root.data, out)
			root.epoch = r.chain[n-2].base
		}
	}
	if err == nil {
		err = r.chain[0].check(out)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("page %#x, version %d: %w", pfn, version, err)
	}
	return Data, n - 1, nil
}

// load reads the record of a version and all that it is encoded against, the
// version itself first. n is how many there are.
func (r *Reader) load(pfn uint32, version Epoch) (code uint32, n int, err error) {
	for e := version; e != 0; n++ {
		if n > maxDepth {
			return 0, 0, damaged("page %#x, version %d: too many bases", pfn, version)
		}
		x, s, err := r.entries(e)
		if err != nil {
			return 0, 0, err
		}
		i := x.find(pfn)
		if i < 0 {
			return 0, 0, damaged("page %#x has no version %d", pfn, e)
		}
		if n == 0 {
			code = x.code[i]
		}
		if x.code[i] <= codeData {
			if n == 0 {
				return code, 0, nil
			}
			return 0, 0, damaged("page %#x, version %d: its base %d has no bytes", pfn, version, e)
		}
		size := int(x.code[i] - codeData)
		if cap(r.records[n]) < size {
			r.records[n] = make([]byte, maxEncoded)
		}
		b := r.records[n][:size]
		if err := r.window.read(s, b, x.off[i]); err != nil {
			return 0, 0, fmt.Errorf("%s at %d: %w", s.path, x.off[i], err)
		}
		if r.chain[n], err = parsePage(b, e); err != nil {
			return 0, 0, fmt.Errorf("page %#x, version %d: %w", pfn, e, err)
		}
		e = r.chain[n].base
	}
	return code, n, nil
}

// Page is a page of a checkpoint. Data, of PageSize bytes if the kind is Data, is
// the callee's until it returns.
type Page struct {
	PFN     uint32
	Version Epoch
	Kind    Kind
	Data    []byte
}

// Pages calls f with each page of a kept checkpoint that is not absent, by PFN.
func (r *Reader) Pages(e Epoch, f func(Page) error) error {
	m, err := r.Map(e)
	if err != nil {
		return err
	}
	buf := make([]byte, PageSize)
	return m.Each(func(pfn uint32, v Epoch) error {
		kind, err := r.Read(pfn, v, buf)
		if err != nil || kind == Absent {
			return err
		}
		p := Page{PFN: pfn, Version: v, Kind: kind}
		if kind == Data {
			p.Data = buf
		}
		return f(p)
	})
}
