package store

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"
)

// blockBytes is when a record of pages is written.
const blockBytes = 1 << 20

// Writer adds checkpoints to a store. It is for one goroutine.
type Writer struct {
	dir     string
	options Options
	lock    *os.File
	view    *Reader
	head    *Map     // at the last checkpoint
	last    Epoch    // highest that there ever was
	kept    Epoch    // the last that is kept
	log     *os.File // the segment written to; nil until there is one
	active  *segment
	pending []Info // committed, not yet durable
	sealed  int64  // bytes of all files but the active segment
	open    *Checkpoint
}

// OpenWriter opens a store for writing, and makes the folder if there is none. It
// puts right what a crash has left: checkpoints that were whole, but not in the
// catalogue, come into it, what was not whole is cut off.
func OpenWriter(dir string, options Options) (*Writer, error) {
	w := &Writer{dir: dir, options: options.withDefaults()}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if w.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(w.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = w.lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", dir, ErrBusy)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := w.recover(); err != nil {
		_ = w.release()
		return nil, err
	}
	return w, nil
}

func (w *Writer) release() error {
	var err error
	if w.view != nil {
		err = w.view.Close()
	}
	if w.log != nil {
		err = errors.Join(err, w.log.Close())
	}
	return errors.Join(err, w.lock.Close())
}

// Close makes all checkpoints durable, and gives up one that is not committed.
func (w *Writer) Close() error {
	var err error
	if w.open != nil {
		err = w.open.Abort()
	}
	return errors.Join(err, w.Sync(), w.release())
}

// recover brings files and catalogue in line.
func (w *Writer) recover() error {
	if err := w.leftovers(); err != nil {
		return err
	}
	infos, last, err := readCatalogue(w.dir)
	if err != nil {
		return err
	}
	firsts, err := segmentFiles(w.dir)
	if err != nil {
		return err
	}
	w.last = last
	var add []Info
	must := Epoch(0) // what has to be there
	if len(infos) > 0 {
		must = infos[len(infos)-1].Epoch
	}
	for i, first := range firsts {
		if i+1 < len(firsts) && firsts[i+1] <= last+1 {
			continue // the catalogue knows all of it
		}
		if err := w.reconcile(segmentPath(w.dir, first), first, i == len(firsts)-1, last, must, &add); err != nil {
			return err
		}
	}
	if len(add) > 0 {
		if err := updateCatalogue(w.dir, w.options, add, nil); err != nil {
			return err
		}
	}
	if infos = append(infos, add...); len(infos) > 0 {
		w.kept = infos[len(infos)-1].Epoch
		w.last = max(w.last, w.kept)
	}
	if w.view, err = openView(w.dir); err != nil {
		return err
	}
	w.view.infos = infos
	w.head = &Map{}
	if n := len(w.view.firsts); n > 0 {
		s, err := w.view.segment(n - 1)
		if err != nil {
			return err
		}
		if w.head, err = mapAt(s, math.MaxUint32); err != nil {
			return err
		}
		w.active = s
		if w.log, err = os.OpenFile(s.path, os.O_RDWR, 0); err != nil {
			return err
		}
		if n := len(s.commits); n > 0 && w.kept > s.commits[n-1].epoch {
			return damaged("%s: checkpoint %d, which the catalogue has, is not there", s.path, w.kept)
		}
	}
	return w.weigh()
}

// leftovers removes files that were not finished, and begins a catalogue.
func (w *Writer) leftovers() error {
	names, err := filepath.Glob(filepath.Join(w.dir, "*.tmp"))
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := os.Remove(n); err != nil {
			return err
		}
	}
	path := filepath.Join(w.dir, catalogueName)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := newCatalogue(path+".tmp", w.options); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDir(w.dir, w.options)
}

// reconcile reads a segment of which the catalogue does not know all. A tail
// behind the last whole checkpoint is cut off, but only if it is behind what the
// catalogue has.
func (w *Writer) reconcile(path string, first Epoch, newest bool, last, must Epoch, add *[]Info) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // what was cut off has been made durable, or will be again
	head := make([]byte, segmentHeader)
	if _, err := f.ReadAt(head, 0); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	id, got, err := parseSegmentHead(head)
	if err != nil || got != first {
		return damaged("%s: not the segment that its name says (%v)", path, err)
	}
	found := Epoch(0)
	end, err := scan(f, id, func(e Epoch) bool { return e > last }, func(c scanned) error {
		found = c.epoch
		if c.epoch > last {
			w.last = c.epoch
			if !c.info.Forgotten {
				*add = append(*add, c.info)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if end == st.Size() {
		return nil
	}
	if !newest || must >= first && found < must {
		return damaged("%s: after checkpoint %d, at byte %d, there is no whole one", path, found, end)
	}
	w.options.step("tail found")
	if err := f.Truncate(end); err != nil {
		return err
	}
	if w.options.noSync {
		return nil
	}
	return f.Sync()
}

// weigh sums up the files.
func (w *Writer) weigh() error {
	w.sealed = 0
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		i, err := e.Info()
		if err != nil {
			return err
		}
		if w.active == nil || e.Name() != filepath.Base(w.active.path) {
			w.sealed += i.Size()
		}
	}
	return nil
}

// Infos returns the kept checkpoints, oldest first.
func (w *Writer) Infos() []Info { return w.view.infos }

// Checkpoint is one that is being written.
type Checkpoint struct {
	w      *Writer
	epoch  Epoch
	full   bool
	seen   pageSet
	info   Info
	enc    *encoder
	chain  *xxhash.Digest
	end    int64
	first  int64 // where the first record of pages is
	buf    []byte
	inBuf  int
	blocks []block
	list   entries
	mine   pageSet
	root   base
	last   base
}

// Begin begins a checkpoint. A full one says all that there is: pages that it does
// not mention are gone. Otherwise what is not mentioned is as at the checkpoint
// before.
func (w *Writer) Begin(info Info, full bool) (*Checkpoint, error) {
	if w.open != nil {
		return nil, errors.New("a checkpoint is begun before the last one is committed")
	}
	if !full && (w.last == 0 || w.kept != w.last) {
		return nil, ErrNeedsFull
	}
	if w.last == math.MaxUint32 {
		return nil, errors.New("the numbers for checkpoints are used up")
	}
	if err := w.segmentFor(w.last + 1); err != nil {
		return nil, err
	}
	info.Epoch, info.Forgotten = w.last+1, false
	c := &Checkpoint{w: w, epoch: w.last + 1, full: full, info: info, enc: newEncoder(), chain: xxhash.New(),
		end: w.active.end, first: w.active.end}
	c.root.data, c.last.data = make([]byte, PageSize), make([]byte, PageSize)
	w.open = c
	return c, nil
}

// segmentFor sees to it that there is a segment with room.
func (w *Writer) segmentFor(next Epoch) error {
	if s := w.active; s != nil && s.sealed { // a crash came before the next segment
		if err := w.log.Close(); err != nil {
			return err
		}
		w.log, w.active = nil, nil
	} else if s != nil {
		if len(s.commits) == 0 && s.first <= next || s.end < w.options.SegmentBytes && len(s.commits) < w.options.SegmentCheckpoints {
			return nil
		}
		if err := w.Sync(); err != nil {
			return err
		}
		s.size = s.end
		if err := writeIndex(s, w.options); err != nil {
			return err
		}
		if err := w.log.Close(); err != nil {
			return err
		}
		w.log, w.active = nil, nil
		// The view opens it again, with its index, so that memory holds one
		// segment's history only.
		s.close()
		delete(w.view.segments, s.first)
	}
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	path := segmentPath(w.dir, next)
	if err := writeFile(path, w.options, "segment", segmentHead(binary.LittleEndian.Uint64(id), next)); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	s := &segment{timeline: growFrom(w.head), path: path, f: f, id: binary.LittleEndian.Uint64(id), first: next, end: segmentHeader}
	w.view.firsts = append(w.view.firsts, next)
	w.view.segments[next] = s
	w.active = s
	if w.log, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		return err
	}
	return w.weigh()
}

// Epoch returns the checkpoint's number.
func (c *Checkpoint) Epoch() Epoch { return c.epoch }

// Page adds a page, with PageSize bytes of data if the kind is Data. It may come
// in any order and more than once; the last one counts.
func (c *Checkpoint) Page(pfn uint32, kind Kind, data []byte) error {
	if kind == Data && len(data) != PageSize {
		return fmt.Errorf("page %#x has %d bytes", pfn, len(data))
	}
	if c.full && (kind != Absent || c.w.head.At(pfn) != 0) {
		c.seen.add(pfn)
	}
	head := c.w.head.At(pfn)
	again := c.mine.has(pfn)
	if kind == Absent && head == 0 && !again {
		return nil
	}
	if kind != Absent {
		c.info.Pages++
	}
	code := uint32(codeData)
	switch {
	case kind == Allocated:
		code = codeAllocated
	case kind == Absent:
		code = codeAbsent
	case isZero(data):
		code = codeZero
	}
	if head == 0 {
		if code == codeData {
			return c.encoded(pfn, data, nil, nil, again)
		}
		c.list.add(pfn, code)
		return c.noted(pfn, again)
	}
	if code != codeData {
		x, _, err := c.w.view.entries(head)
		if err != nil {
			return err
		}
		i := x.find(pfn)
		if i < 0 {
			return damaged("page %#x has no version %d", pfn, head)
		}
		if x.code[i] == code && !again {
			return nil
		}
		c.list.add(pfn, code)
		return c.noted(pfn, again)
	}
	c.root.epoch = 0
	k, depth, err := c.w.view.content(pfn, head, c.last.data, &c.root)
	if err != nil {
		return err
	}
	if k != Data {
		return c.encoded(pfn, data, nil, nil, again)
	}
	if bytes.Equal(c.last.data, data) && !again {
		return nil
	}
	if depth == 0 && isZero(c.last.data) { // a zero page is no base: it has no record
		return c.encoded(pfn, data, nil, nil, again)
	}
	c.last.epoch, c.last.depth = head, depth
	return c.encoded(pfn, data, &c.last, &c.root, again)
}

func (c *Checkpoint) encoded(pfn uint32, data []byte, last, root *base, again bool) error {
	before := len(c.buf)
	c.buf = c.enc.append(c.buf, data, c.epoch, last, root)
	c.inBuf++
	c.list.add(pfn, uint32(len(c.buf)-before)+codeData)
	if len(c.buf) >= blockBytes {
		if err := c.flush(); err != nil {
			return err
		}
	}
	return c.noted(pfn, again)
}

// noted remembers that a page has a version in this checkpoint.
func (c *Checkpoint) noted(pfn uint32, again bool) error {
	if !again {
		c.info.Changed++
		c.mine.add(pfn)
	}
	return nil
}

func (c *Checkpoint) flush() error {
	if c.inBuf == 0 {
		return nil
	}
	c.blocks = append(c.blocks, block{c.inBuf, len(c.buf)})
	err := c.record(kindPages, c.buf)
	c.buf, c.inBuf = c.buf[:0], 0
	return err
}

func (c *Checkpoint) record(kind byte, body []byte) error {
	if m := c.w.options.MaxBytes; m > 0 && c.w.sealed+c.end+int64(len(body)) > m {
		return fmt.Errorf("%w of %d MiB: forget some checkpoints, or raise it", ErrFull, m>>20)
	}
	if len(body) > math.MaxInt32 {
		return fmt.Errorf("a record of %d bytes", len(body))
	}
	h := record{kind: kind, epoch: c.epoch, length: uint32(len(body)), sum: xxhash.Sum64(body)}.header(c.w.active.id)
	_, _ = c.chain.Write(h)
	if _, err := c.w.log.WriteAt(h, c.end); err != nil {
		return err
	}
	if _, err := c.w.log.WriteAt(body, c.end+recordHeader); err != nil {
		return err
	}
	c.end += recordHeader + int64(len(body))
	c.w.options.step("record written")
	return nil
}

// Abort gives the checkpoint up: the store is as before.
func (c *Checkpoint) Abort() error {
	c.w.open = nil
	return c.w.log.Truncate(c.w.active.end)
}

// Commit finishes the checkpoint; state is what belongs to it beside the pages.
// When it returns, and Options.SyncEvery is 1, no crash can lose it. If it fails,
// the checkpoint is given up.
func (c *Checkpoint) Commit(state []byte) (Info, error) {
	if err := c.commit(state); err != nil {
		if c.w.open == c {
			err = errors.Join(err, c.Abort())
		}
		return Info{}, err
	}
	return c.info, nil
}

func (c *Checkpoint) commit(state []byte) error {
	if c.full {
		err := c.w.head.Each(func(pfn uint32, _ Epoch) error {
			if c.seen.has(pfn) {
				return nil
			}
			return c.Page(pfn, Absent, nil)
		})
		if err != nil {
			return err
		}
	}
	if err := c.flush(); err != nil {
		return err
	}
	pages := c.end - c.first
	now := commit{epoch: c.epoch}
	delta := encodeDelta(&c.list, c.blocks, c.first)
	now.delta = place{c.end + recordHeader, uint32(len(delta))}
	if err := c.record(kindDelta, delta); err != nil {
		return err
	}
	packed := pack(state)
	now.state = place{c.end + recordHeader, uint32(len(packed))}
	if err := c.record(kindState, packed); err != nil {
		return err
	}
	if c.info.Time.IsZero() {
		c.info.Time = time.Now()
	}
	c.info.Meta = c.end - c.first - pages
	c.info.Bytes = c.end - c.first
	body, err := commitBody(c.chain.Sum64(), c.info)
	if err != nil {
		return err
	}
	if err := c.record(kindCommit, body); err != nil {
		return err
	}
	now.end = c.end
	w := c.w
	w.pending = append(w.pending, c.info)
	if len(w.pending) >= w.options.SyncEvery {
		if err := w.flushPending(); err != nil {
			w.pending = w.pending[:len(w.pending)-1]
			return err
		}
	}
	// From here on it exists.
	s := w.active
	s.end = c.end
	s.commits = append(s.commits, now)
	g := s.timeline.(growing)
	for _, pfn := range c.mine.list() {
		v := &g.get(pfn / chunkPages).growing[pfn%chunkPages]
		*v = append(*v, c.epoch)
		n := w.head.chunks[pfn/chunkPages]
		if n == nil {
			if w.head.chunks == nil {
				w.head.chunks = map[uint32]*[chunkPages]Epoch{}
			}
			n = new([chunkPages]Epoch)
			w.head.chunks[pfn/chunkPages] = n
		}
		n[pfn%chunkPages] = c.epoch
	}
	w.last, w.kept = c.epoch, c.epoch
	w.view.infos = append(w.view.infos, c.info)
	w.open = nil
	return nil
}

// Sync makes all committed checkpoints durable.
func (w *Writer) Sync() error {
	if len(w.pending) == 0 {
		return nil
	}
	return w.flushPending()
}

func (w *Writer) flushPending() error {
	w.options.step("commit written")
	if !w.options.noSync {
		if err := syscall.Fdatasync(int(w.log.Fd())); err != nil {
			return fmt.Errorf("fdatasync %s: %w", w.log.Name(), err)
		}
	}
	w.options.step("commit durable")
	if err := updateCatalogue(w.dir, w.options, w.pending, nil); err != nil {
		return err
	}
	w.options.step("commit catalogued")
	w.pending = w.pending[:0]
	return nil
}

// pageSet is a set of PFNs.
type pageSet struct {
	chunks map[uint32]*[chunkPages / 64]uint64
	number uint32 // of the chunk used last
	last   *[chunkPages / 64]uint64
}

func (s *pageSet) get(n uint32) *[chunkPages / 64]uint64 {
	if s.last == nil || s.number != n {
		if c := s.chunks[n]; c != nil {
			s.number, s.last = n, c
		} else {
			return nil
		}
	}
	return s.last
}

func (s *pageSet) has(pfn uint32) bool {
	c := s.get(pfn / chunkPages)
	return c != nil && c[pfn%chunkPages/64]>>(pfn%64)&1 == 1
}

func (s *pageSet) add(pfn uint32) {
	c := s.get(pfn / chunkPages)
	if c == nil {
		if s.chunks == nil {
			s.chunks = map[uint32]*[chunkPages / 64]uint64{}
		}
		c = new([chunkPages / 64]uint64)
		s.chunks[pfn/chunkPages] = c
	}
	c[pfn%chunkPages/64] |= 1 << (pfn % 64)
}

// list returns the set's members, in no order.
func (s *pageSet) list() []uint32 {
	var l []uint32
	for n, c := range s.chunks {
		for i, word := range c {
			for ; word != 0; word &= word - 1 {
				l = append(l, n*chunkPages+uint32(i*64+bits.TrailingZeros64(word)))
			}
		}
	}
	return l
}
