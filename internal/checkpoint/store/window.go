package store

// windows are parts of segments that were read last. Pages are mostly read in their
// order, which is that of their records in each checkpoint; as each may come from
// another checkpoint, and with what it is encoded against, there are several.
type windows struct {
	list [2 * (maxDepth + 1)]window
	now  uint64
}

type window struct {
	s    *segment
	off  int64
	b    []byte
	used uint64
}

// windowBytes is what is read at once: some hundred small differences, and what a
// disk, or a copy from the page cache, does not take much longer for.
const windowBytes = 16 << 10

// read fills b with a segment's bytes from off on. Nothing behind the segment's last
// whole checkpoint is kept, as that may become another one.
func (w *windows) read(s *segment, b []byte, off int64) error {
	w.now++
	oldest := &w.list[0]
	for i := range w.list {
		x := &w.list[i]
		if x.s == s && off >= x.off && off+int64(len(b)) <= x.off+int64(len(x.b)) {
			x.used = w.now
			copy(b, x.b[off-x.off:])
			return nil
		}
		if x.used < oldest.used {
			oldest = x
		}
	}
	n := min(int64(max(windowBytes, len(b))), s.end-off)
	if n < int64(len(b)) {
		return damaged("%d bytes at %d are behind the last whole checkpoint", len(b), off)
	}
	oldest.s = nil // if the read fails, there is none
	if int64(cap(oldest.b)) < n {
		oldest.b = make([]byte, max(n, windowBytes))
	}
	oldest.b = oldest.b[:n]
	if _, err := s.f.ReadAt(oldest.b, off); err != nil {
		return err
	}
	oldest.s, oldest.off, oldest.used = s, off, w.now
	copy(b, oldest.b)
	return nil
}
