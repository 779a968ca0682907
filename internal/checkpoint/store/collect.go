package store

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"slices"
	"sort"

	"github.com/cespare/xxhash/v2"
)

// Collected says what Collect did.
type Collected struct {
	// Dropped versions of pages, Rewritten and Removed segments.
	Dropped, Rewritten, Removed int
	// Before and After are the store's size in bytes.
	Before, After int64
}

// version names a version of a page: epoch in the upper half, PFN in the lower.
type version uint64

func versionOf(pfn uint32, e Epoch) version { return version(e)<<32 | version(pfn) }

// Collect frees what no kept checkpoint needs: versions of pages, and the rest of
// forgotten checkpoints' states. Segments that hold such are written anew, newest
// first: so long as a segment is the old one, so is all that it is encoded
// against. It may be broken off, or crash, at any moment, and be called again.
// Readers that are open go on with the old files.
func (w *Writer) Collect() (Collected, error) {
	var out Collected
	if w.open != nil {
		return out, errors.New("a checkpoint is being written")
	}
	if err := w.Sync(); err != nil {
		return out, err
	}
	out.Before = w.size()
	dead, touched, err := w.dead()
	if err != nil {
		return out, err
	}
	out.Dropped = len(dead)
	for i := len(w.view.firsts) - 1; i >= 0; i-- {
		s, err := w.view.segment(i)
		if err != nil {
			return out, err
		}
		if !touched[s.first] && !w.hasForgottenState(s) {
			continue
		}
		removed, err := w.rewrite(s, dead)
		if err != nil {
			return out, err
		}
		if removed {
			out.Removed++
		} else {
			out.Rewritten++
		}
	}
	if err := w.reopen(); err != nil {
		return out, err
	}
	if err := w.indexAll(); err != nil {
		return out, err
	}
	out.After = w.size()
	return out, nil
}

// indexAll makes the indices that a crash has left out.
func (w *Writer) indexAll() error {
	for i := range len(w.view.firsts) - 1 {
		s, err := w.view.segment(i)
		if err != nil {
			return err
		}
		if !s.sealed && s.end == s.size {
			if err := writeIndex(s, w.options); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *Writer) size() int64 {
	if w.active != nil {
		return w.sealed + w.active.end
	}
	return w.sealed
}

// reopen reads all again after files were replaced.
func (w *Writer) reopen() error {
	err := w.view.Close()
	if w.log != nil {
		err = errors.Join(err, w.log.Close())
	}
	w.log, w.active, w.view = nil, nil, nil
	return errors.Join(err, w.recover())
}

func (w *Writer) hasForgottenState(s *segment) bool {
	return slices.ContainsFunc(s.commits, func(c commit) bool {
		_, err := w.view.Find(c.epoch)
		return err != nil && c.state.length > 0
	})
}

// dead returns the versions that no kept checkpoint has, and the segments that
// hold one, or something that is encoded against one.
func (w *Writer) dead() (map[version]bool, map[Epoch]bool, error) {
	dead, touched := map[version]bool{}, map[Epoch]bool{}
	kept := w.view.infos
	needed := func(from, next Epoch) bool { // is there a kept one in [from, next)?
		i := sort.Search(len(kept), func(i int) bool { return kept[i].Epoch >= from })
		return i < len(kept) && kept[i].Epoch < next
	}
	segments := make([]*segment, len(w.view.firsts))
	numbers := map[uint32]bool{}
	for i := range segments {
		s, err := w.view.segment(i)
		if err != nil {
			return nil, nil, err
		}
		segments[i] = s
		for _, n := range s.numbers() {
			numbers[n] = true
		}
	}
	type at struct {
		e Epoch
		s *segment
	}
	for n := range numbers {
		var history [chunkPages][]at
		for _, s := range segments {
			c, err := s.chunk(n)
			if err != nil {
				return nil, nil, err
			}
			if c == nil {
				continue
			}
			for i := range history {
				for _, e := range c.versions(i) {
					history[i] = append(history[i], at{e, s})
				}
			}
		}
		for i, list := range history {
			pfn := n*chunkPages + uint32(i)
			some := false
			for k, v := range list {
				next := Epoch(math.MaxUint32)
				if k+1 < len(list) {
					next = list[k+1].e
				}
				if !needed(v.e, next) {
					dead[versionOf(pfn, v.e)] = true
					touched[v.s.first] = true
					some = true
				} else if some {
					base, err := w.baseOf(pfn, v.e)
					if err != nil {
						return nil, nil, err
					}
					if base != 0 && dead[versionOf(pfn, base)] {
						touched[v.s.first] = true
					}
				}
			}
		}
	}
	return dead, touched, nil
}

// baseOf returns what a version is encoded against, 0 if nothing.
func (w *Writer) baseOf(pfn uint32, e Epoch) (Epoch, error) {
	code, n, err := w.view.load(pfn, e)
	if err != nil || code <= codeData || n < 2 {
		return 0, err
	}
	return w.view.chain[0].base, nil
}

// rewrite writes a segment without what is dead. One of which nothing is left is
// removed.
func (w *Writer) rewrite(s *segment, dead map[version]bool) (removed bool, err error) {
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return false, err
	}
	path := s.path
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return false, err
	}
	out := &rewriter{w: w, f: f, id: binary.LittleEndian.Uint64(id), end: segmentHeader, dead: dead, enc: newEncoder()}
	if _, err = f.WriteAt(segmentHead(out.id, s.first), 0); err == nil {
		for _, c := range s.commits {
			if err = out.checkpoint(s, c); err != nil {
				break
			}
		}
	}
	if err != nil {
		return false, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	w.options.step("segment rewritten")
	if out.commits == 0 {
		err := errors.Join(f.Close(), os.Remove(f.Name()), removeIfThere(indexPath(path)), os.Remove(path), syncDir(w.dir, w.options))
		w.options.step("segment removed")
		return true, err
	}
	// The index belongs to the old one; the new one is made from the segment, once
	// all are rewritten.
	if err := publish(f, path, w.options, "segment"); err != nil {
		return false, err
	}
	if !s.sealed {
		return false, nil
	}
	return false, w.index(path, s)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// index makes the index of a segment that was written anew. Where it begins is as
// before; what was dead there, no kept checkpoint ever sees.
func (w *Writer) index(path string, old *segment) error {
	s, err := openSegment(path, old.first, func() (*Map, error) { return mapAt(old, 0) })
	if err != nil {
		return err
	}
	defer s.close()
	return writeIndex(s, w.options)
}

type rewriter struct {
	w       *Writer
	f       *os.File
	id      uint64
	end     int64
	dead    map[version]bool
	enc     *encoder
	commits int
}

// checkpoint copies what is alive of one checkpoint.
func (o *rewriter) checkpoint(s *segment, c commit) error {
	info, err := o.w.view.Find(c.epoch)
	kept := err == nil
	old, err := s.entries(c)
	if err != nil {
		return err
	}
	order := make([]int, 0, len(old.pfn))
	for i, pfn := range old.pfn {
		if !o.dead[versionOf(pfn, c.epoch)] {
			order = append(order, i)
		}
	}
	if len(order) == 0 && !kept {
		return nil
	}
	chain := xxhash.New()
	record := func(kind byte, body []byte) error {
		h := record{kind: kind, epoch: c.epoch, length: uint32(len(body)), sum: xxhash.Sum64(body)}.header(o.id)
		_, _ = chain.Write(h)
		if _, err := o.f.WriteAt(append(h, body...), o.end); err != nil {
			return err
		}
		o.end += int64(len(h) + len(body))
		return nil
	}
	var list entries
	var blocks []block
	var buf []byte
	inBuf := 0
	first := o.end
	flush := func() error {
		if inBuf == 0 {
			return nil
		}
		blocks = append(blocks, block{inBuf, len(buf)})
		err := record(kindPages, buf)
		buf, inBuf = buf[:0], 0
		return err
	}
	for _, i := range order {
		pfn, code := old.pfn[i], old.code[i]
		if code > codeData {
			before := len(buf)
			if buf, err = o.page(buf, pfn, c.epoch); err != nil {
				return err
			}
			code = codeData + uint32(len(buf)-before)
			inBuf++
		}
		list.add(pfn, code)
		if len(buf) >= blockBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	pages := o.end - first
	if err := record(kindDelta, encodeDelta(&list, blocks, first)); err != nil {
		return err
	}
	if kept {
		raw, err := readPlace(s.f, c.state)
		if err != nil {
			return err
		}
		if err := record(kindState, raw); err != nil {
			return err
		}
	} else {
		info = Info{Epoch: c.epoch, Forgotten: true}
	}
	info.Changed, info.Bytes, info.Meta = len(list.pfn), o.end-first, o.end-first-pages
	body, err := commitBody(chain.Sum64(), info)
	if err != nil {
		return err
	}
	o.commits++
	return record(kindCommit, body)
}

// page appends a version's record: as it is, unless it is encoded against what
// goes; then against the nearest of its bases that stays, or none.
func (o *rewriter) page(to []byte, pfn uint32, e Epoch) ([]byte, error) {
	view := o.w.view
	_, n, err := view.load(pfn, e)
	if err != nil {
		return nil, err
	}
	if base := view.chain[0].base; base == 0 || !o.dead[versionOf(pfn, base)] {
		x, _, err := view.entries(e)
		if err != nil {
			return nil, err
		}
		return append(to, view.records[0][:x.code[x.find(pfn)]-codeData]...), nil
	}
	var from *base
	for i := 1; i < n; i++ { // chain[i] is the version chain[i-1].base
		if b := view.chain[i-1].base; !o.dead[versionOf(pfn, b)] {
			from = &base{epoch: b, data: make([]byte, PageSize)}
			break
		}
	}
	if from != nil {
		if _, from.depth, err = view.content(pfn, from.epoch, from.data, nil); err != nil {
			return nil, err
		}
	}
	data := make([]byte, PageSize)
	if _, _, err := view.content(pfn, e, data, nil); err != nil {
		return nil, err
	}
	return o.enc.append(to, data, e, from, nil), nil
}
