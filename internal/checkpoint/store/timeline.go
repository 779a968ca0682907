package store

import (
	"encoding/binary"
	"slices"
	"sort"
)

// chunkPages is how many pages' versions are found and compressed together.
const chunkPages = 1024

// chunk is the history of 1024 neighbouring pages within a segment.
type chunk struct {
	// base has the version at the segment's beginning, 0 if there was none.
	base [chunkPages]Epoch
	// growing has the versions that came in the segment, ascending, while it
	// grows; those read from an index are in all, page i's from start[i] on.
	growing *[chunkPages][]Epoch
	start   [chunkPages + 1]uint32
	all     []Epoch
}

// versions returns those of page i that came in the segment, ascending.
func (c *chunk) versions(i int) []Epoch {
	if c.growing != nil {
		return c.growing[i]
	}
	return c.all[c.start[i]:c.start[i+1]]
}

// at returns the version of page i at a checkpoint of the segment.
func (c *chunk) at(i int, e Epoch) Epoch {
	v := c.versions(i)
	if k := sort.Search(len(v), func(k int) bool { return v[k] > e }); k > 0 {
		return v[k-1]
	}
	return c.base[i]
}

// timeline is the history of all pages within a segment: in memory while the
// segment grows, from its index afterwards.
type timeline interface {
	// chunk returns the chunk of that number, nil if no page of it was ever there.
	chunk(n uint32) (*chunk, error)
	// numbers returns the numbers of all chunks, ascending.
	numbers() []uint32
}

// growing is the timeline of the segment that is written to.
type growing map[uint32]*chunk

func (g growing) chunk(n uint32) (*chunk, error) { return g[n], nil }

func (g growing) numbers() []uint32 {
	n := make([]uint32, 0, len(g))
	for k := range g {
		n = append(n, k)
	}
	slices.Sort(n)
	return n
}

func (g growing) get(n uint32) *chunk {
	c := g[n]
	if c == nil {
		c = &chunk{growing: new([chunkPages][]Epoch)}
		g[n] = c
	}
	return c
}

// add notes what a checkpoint has changed.
func (g growing) add(epoch Epoch, pfns []uint32) {
	for _, p := range pfns {
		v := &g.get(p / chunkPages).growing[p%chunkPages]
		*v = append(*v, epoch)
	}
}

// growFrom begins a timeline with the map at the end of the segment before.
func growFrom(m *Map) growing {
	g := growing{}
	for n, c := range m.chunks {
		g[n] = &chunk{base: *c, growing: new([chunkPages][]Epoch)}
	}
	return g
}

// Map says which version each page has at one checkpoint.
type Map struct {
	// Epoch is the checkpoint.
	Epoch  Epoch
	chunks map[uint32]*[chunkPages]Epoch
}

// At returns the version of a page, 0 if it has never had one.
func (m *Map) At(pfn uint32) Epoch {
	if c := m.chunks[pfn/chunkPages]; c != nil {
		return c[pfn%chunkPages]
	}
	return 0
}

// Each calls f with each page that has a version, by PFN, and ends with its error.
func (m *Map) Each(f func(pfn uint32, version Epoch) error) error {
	numbers := make([]uint32, 0, len(m.chunks))
	for n := range m.chunks {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		for i, v := range m.chunks[n] {
			if v != 0 {
				if err := f(n*chunkPages+uint32(i), v); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func mapAt(t timeline, e Epoch) (*Map, error) {
	m := &Map{Epoch: e, chunks: map[uint32]*[chunkPages]Epoch{}}
	for _, n := range t.numbers() {
		c, err := t.chunk(n)
		if err != nil {
			return nil, err
		}
		out := new([chunkPages]Epoch)
		for i := range out {
			out[i] = c.at(i, e)
		}
		m.chunks[n] = out
	}
	return m, nil
}

// encode writes a chunk of a segment that begins with epoch first: for each page
// how long before that its version at the beginning is, and how many there are in
// the segment; then those versions as differences.
func (c *chunk) encode(first Epoch) []byte {
	var b []byte
	for i := range c.base {
		d := uint64(0)
		if c.base[i] != 0 {
			d = uint64(first - c.base[i])
		}
		b = binary.AppendUvarint(b, d)
	}
	for i := range c.base {
		b = binary.AppendUvarint(b, uint64(len(c.versions(i))))
	}
	for i := range c.base {
		last := first - 1
		for _, v := range c.versions(i) {
			b = binary.AppendUvarint(b, uint64(v-last))
			last = v
		}
	}
	return pack(b)
}

func decodeChunk(raw []byte, first Epoch) (*chunk, error) {
	b, err := unpack(raw)
	if err != nil {
		return nil, err
	}
	in := &numbers{b: b}
	c := &chunk{}
	for i := range c.base {
		d := in.next()
		if d > uint64(first) {
			in.bad = true
		}
		if d != 0 {
			c.base[i] = first - Epoch(d)
		}
	}
	total := 0
	for i := range c.base {
		total += in.count()
		c.start[i+1] = uint32(total)
	}
	if in.bad || total > len(in.b) {
		return nil, damaged("the history of pages makes no sense")
	}
	c.all = make([]Epoch, total)
	for i := range c.base {
		last := first - 1
		of := c.all[c.start[i]:c.start[i+1]]
		for k := range of {
			d := in.next()
			in.bad = in.bad || d == 0 || d > uint64(^last)
			last += Epoch(d)
			of[k] = last
		}
	}
	if in.bad || len(in.b) != 0 {
		return nil, damaged("the history of pages makes no sense")
	}
	return c, nil
}
