package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// AccessWatch notices who opens an image file while a guest uses it. The
// guest's own writes change the file all the time, so its times tell nothing;
// but the loop device has opened it once and for all, and nobody else should.
type AccessWatch struct {
	fd     int
	path   string
	opened map[int32]bool // processes that did

	doubt, breach string
}

// WatchAccess starts watching, and looks once for those who have the file open
// for writing already. Close it.
func (b Backing) WatchAccess() (*AccessWatch, error) {
	if b.File == nil || b.emulated {
		return nil, fmt.Errorf("access to %s: %w", b.Name, ErrUnsupported)
	}
	// Opened once, so that the file that is looked at is the one that is watched,
	// whatever becomes of its name.
	file, err := os.Open(b.File.Path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if st, err := file.Stat(); err != nil || !sameFile(st, b.File.Device, b.File.Inode) {
		return nil, fmt.Errorf("%s is not the file that is attached: %w", b.File.Path, errors.Join(err, fs.ErrNotExist))
	}
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_LARGEFILE)
	if err != nil {
		return nil, fmt.Errorf("fanotify: %w", err)
	}
	w := &AccessWatch{fd: fd, path: b.Name, opened: map[int32]bool{}}
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN|unix.FAN_CLOSE_WRITE, int(file.Fd()), ""); err != nil {
		return nil, errors.Join(fmt.Errorf("fanotify: %s: %w", b.File.Path, err), w.Close())
	}
	s, err := b.search()
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	users, err := writers(1, func(_ int, st *unix.Stat_t) bool { return s.is(st) })
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	if user := users[0]; user != "" {
		w.doubt = fmt.Sprintf("%s was used by %s", b.Name, user)
	}
	return w, nil
}

// Ask returns what is known by now: doubt if somebody has opened the file,
// breach if he did so for writing and has closed it again; both "" if nobody.
// An error means that it can no longer be told.
func (w *AccessWatch) Ask() (doubt, breach string, err error) {
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(w.fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return w.doubt, w.breach, nil
		}
		if err != nil {
			return w.doubt, w.breach, fmt.Errorf("fanotify: %w", err)
		}
		events, err := accessEvents(buf[:n])
		for _, e := range events {
			w.enter(e)
		}
		if err != nil {
			return w.doubt, w.breach, err
		}
	}
}

// accessEvent is one of fanotify's: what was done by whom.
type accessEvent struct {
	mask uint64
	pid  int32
}

const accessEventSize = 24

// accessEvents parses what a read of a fanotify descriptor gave (fanotify(7),
// struct fanotify_event_metadata), and closes the files that come with it.
func accessEvents(raw []byte) ([]accessEvent, error) {
	var all []accessEvent
	for len(raw) > 0 {
		if len(raw) < accessEventSize || raw[4] != unix.FANOTIFY_METADATA_VERSION {
			return all, errors.New("fanotify: unknown event")
		}
		length := binary.NativeEndian.Uint32(raw)
		if length < accessEventSize || int(length) > len(raw) {
			return all, errors.New("fanotify: unknown event")
		}
		if fd := int32(binary.NativeEndian.Uint32(raw[16:])); fd >= 0 {
			_ = unix.Close(int(fd))
		}
		all = append(all, accessEvent{binary.NativeEndian.Uint64(raw[8:]), int32(binary.NativeEndian.Uint32(raw[20:]))})
		raw = raw[length:]
	}
	return all, nil
}

// enter enters an event. The kernel merges events of one process.
func (w *AccessWatch) enter(e accessEvent) {
	if e.pid == int32(os.Getpid()) {
		return
	}
	if e.mask&unix.FAN_Q_OVERFLOW != 0 && w.doubt == "" {
		w.doubt = fmt.Sprintf("%s was opened more often than could be counted", w.path)
	}
	if e.mask&unix.FAN_OPEN != 0 {
		w.opened[e.pid] = true
		if w.doubt == "" {
			w.doubt = fmt.Sprintf("%s was opened by %s while the guest used it", w.path, processName(int(e.pid)))
		}
	}
	// The loop device's own file is closed, too, when it is taken down; but
	// that had been opened before.
	if e.mask&unix.FAN_CLOSE_WRITE != 0 && w.opened[e.pid] && w.breach == "" {
		w.breach = fmt.Sprintf("%s was opened for writing, past the guest, by %s", w.path, processName(int(e.pid)))
	}
}

// Close ends the watch.
func (w *AccessWatch) Close() error { return unix.Close(w.fd) }
