package cachemap

import (
	"encoding/binary"
	"iter"
	"math/bits"
)

// Conflicts are pages of a view that cannot all be right, as views of the same
// table.
type Conflicts struct {
	SameKey    View // pages that share their key with another, all of them
	SameSector View // pages that share their sector with another, all of them
}

// MaxPages is the number of pages (16 TiB) among which conflicts are found;
// those from MaxPages on are not looked at.
const MaxPages = 1<<32 - 1

// FindConflicts returns the pages that share a key or a sector with another
// page of the view. Its time is proportional to the number of pages whatever
// they hold, and its memory, 7 to 8 bytes for each, too.
//
// An entry that changes meanwhile may or may not be found.
func FindConflicts(v View) Conflicts {
	f := newFinder(v)
	return Conflicts{f.find(byKey), f.find(bySector)}
}

// finder looks for pages that hold the same. A hash table of all pages would
// wait for main memory at every step. So it goes through the table in order,
// and deals out a record of each page to one of many parts, by the hash of what
// the page holds; pages that hold the same are in the same part. Then it takes
// part after part, with a hash table that fits the processor's second-level
// cache. Entries are looked at again only where two hashes are equal.
//
// Parts are chains of blocks rather than slices of computed length: many equal
// pages make a part long, and the bitmap may change while it is read.
type finder struct {
	view     View
	secret   *secret
	partBits int
	parts    []part
	memory   []byte   // blocks
	next     []uint32 // of each block in use, the next one of its part
	once     []uint64 // bits of the hashes that are in a part,
	again    []uint64 // and of those that are in it more than once
	slots    []uint64 // records; 0 is none
}

// part is a chain of blocks, all full but the last.
type part struct {
	first, last uint32
	used        uint32 // bytes of the last block
}

const (
	// A record is the PFN + 1 in 32 bits, and 24 bits of the hash.
	recordSize = 7
	recordMask = 1<<(8*recordSize) - 1
	hashBits   = 24
	bitmapBits = 20 // of them, to find a bit in once and again

	blockSize = 1 << 10 // also holds the eighth byte of the last record written
	blockUsed = (blockSize - 1) / recordSize * recordSize

	// pagesPerPart is the most pages that a part has on average if all are
	// different. Few of them then share a bit by chance.
	pagesPerPart = 1 << 15

	// maxDifferent is how many different pages with a page's 24 bits of hash a
	// part may have; see twice.
	maxDifferent = 64
)

func newFinder(v View) *finder { return newFinderOf(v, pagesPerPart) }

func newFinderOf(v View, perPart int) *finder {
	n := v.Len()
	// By the size of the view and not by n: the bitmap may change.
	most := min(len(v.words)*64, len(v.entries), MaxPages)
	f := &finder{view: v, secret: newSecret(), partBits: bits.Len(uint(most / perPart))}
	f.parts = make([]part, 1<<f.partBits)
	blocks := n*recordSize/blockUsed + len(f.parts)
	f.memory = make([]byte, 0, blocks*blockSize)
	f.next = make([]uint32, 0, blocks)
	f.once, f.again = make([]uint64, 1<<bitmapBits/64), make([]uint64, 1<<bitmapBits/64)
	f.slots = make([]uint64, 1<<12)
	return f
}

// find returns the pages that hold the same as another.
func (f *finder) find(id identity) View {
	f.deal(id)
	found := View{f.view.entries, make([]uint64, len(f.view.words))}
	for i := range f.parts {
		f.twice(f.parts[i], id, found.words)
	}
	return found
}

// deal fills the parts.
func (f *finder) deal(id identity) {
	f.memory, f.next = f.memory[:0], f.next[:0]
	for i := range f.parts {
		b := f.newBlock()
		f.parts[i] = part{b, b, 0}
	}
	entries, secret, shift := f.view.entries, f.secret, 64-f.partBits
	entries = entries[:min(len(entries), MaxPages)]
	for i, w := range f.view.words {
		for ; w != 0; w &= w - 1 {
			p := i*64 + bits.TrailingZeros64(w)
			if p >= len(entries) {
				return
			}
			h := id.hash(&entries[p], secret)
			t := &f.parts[h>>shift]
			if t.used == blockUsed {
				b := f.newBlock()
				f.next[t.last] = b
				t.last, t.used = b, 0
			}
			at := uint64(t.last)*blockSize + uint64(t.used)
			binary.LittleEndian.PutUint64(f.memory[at:], h<<(64-hashBits)>>(32-hashBits)|uint64(p+1))
			t.used += recordSize
		}
	}
}

// newBlock returns the number of a free block. There are enough of them unless
// the bitmap has grown.
func (f *finder) newBlock() uint32 {
	if len(f.memory)+blockSize <= cap(f.memory) {
		f.memory = f.memory[:len(f.memory)+blockSize]
	} else {
		f.memory = append(f.memory, make([]byte, blockSize)...)
	}
	f.next = append(f.next, 0)
	return uint32(len(f.next) - 1)
}

// twice sets the bits of the pages of a part that hold the same as another page
// of it.
func (f *finder) twice(t part, id identity, found []uint64) {
	clear(f.once)
	clear(f.again)
	for r := range f.records(t) {
		at, bit := bitOf(r)
		f.again[at] |= f.once[at] & bit
		f.once[at] |= bit
	}
	clear(f.slots)
	used := 0
	for r := range f.records(t) {
		if at, bit := bitOf(r); f.again[at]&bit != 0 && f.insert(r, id, found) {
			if used++; used > len(f.slots)/4*3 {
				f.grow()
			}
		}
	}
}

// records yields the records of a part.
func (f *finder) records(t part) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for b := t.first; ; b = f.next[b] {
			end := blockUsed
			if b == t.last {
				end = int(t.used)
			}
			block := f.memory[int(b)*blockSize:][:blockSize]
			for at := 0; at < end; at += recordSize {
				if !yield(binary.LittleEndian.Uint64(block[at:]) & recordMask) {
					return
				}
			}
			if b == t.last {
				return
			}
		}
	}
}

// bitOf returns where a record's bit is in once and again.
func bitOf(r uint64) (word int, bit uint64) {
	at := r >> (32 + hashBits - bitmapBits)
	return int(at / 64), 1 << (at % 64)
}

// insert puts a record into the slots and reports true, unless a page that
// holds the same is there: then it sets the bits of both.
//
// Only a table that changes meanwhile has pages by the dozen that are different
// and have equal hashes, since a guest doesn't know the secret. It can make one
// by having Xen forget each page after it has been put into a slot. Such pages
// count as the same, or finding them would take the square of the time.
func (f *finder) insert(r uint64, id identity, found []uint64) bool {
	mask := len(f.slots) - 1
	different := 0
	for at := f.slot(r); ; at = (at + 1) & mask {
		q := f.slots[at]
		if q == 0 {
			f.slots[at] = r
			return true
		}
		if q>>32 != r>>32 {
			continue
		}
		p, o := uint32(r)-1, uint32(q)-1
		if different++; different > maxDifferent || id.same(&f.view.entries[p], &f.view.entries[o]) {
			found[p/64] |= 1 << (p % 64)
			found[o/64] |= 1 << (o % 64)
			return false
		}
	}
}

// slot returns where to look for a record first.
func (f *finder) slot(r uint64) int {
	n := bits.Len(uint(len(f.slots) - 1))
	return int(r >> 32 << 40 >> (64 - n))
}

func (f *finder) grow() {
	old := f.slots
	f.slots = make([]uint64, 2*len(old))
	mask := len(f.slots) - 1
	for _, r := range old {
		if r == 0 {
			continue
		}
		at := f.slot(r)
		for f.slots[at] != 0 {
			at = (at + 1) & mask
		}
		f.slots[at] = r
	}
}
