package disk

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func rawAccess(mask uint64, fd, pid int32) []byte {
	raw := make([]byte, accessEventSize)
	binary.NativeEndian.PutUint32(raw, accessEventSize)
	raw[4] = unix.FANOTIFY_METADATA_VERSION
	binary.NativeEndian.PutUint64(raw[8:], mask)
	binary.NativeEndian.PutUint32(raw[16:], uint32(fd))
	binary.NativeEndian.PutUint32(raw[20:], uint32(pid))
	return raw
}

func TestAccessEvents(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := unix.Dup(int(w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	got, err := accessEvents(append(rawAccess(unix.FAN_OPEN, int32(fd), 7), rawAccess(unix.FAN_CLOSE_WRITE, unix.FAN_NOFD, 8)...))
	if err != nil || len(got) != 2 || got[0] != (accessEvent{unix.FAN_OPEN, 7}) || got[1] != (accessEvent{unix.FAN_CLOSE_WRITE, 8}) {
		t.Errorf("%+v, %v", got, err)
	}
	// The file that came with the event is closed: the pipe has no writer.
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
	short := rawAccess(unix.FAN_OPEN, -1, 7)
	binary.NativeEndian.PutUint32(short, 25)
	for name, raw := range map[string][]byte{"cut off": rawAccess(1, -1, 1)[:20], "too long": short, "version": make([]byte, 24)} {
		if _, err := accessEvents(raw); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAccessJudged(t *testing.T) {
	const open, closed = uint64(unix.FAN_OPEN), uint64(unix.FAN_CLOSE_WRITE)
	self := int32(os.Getpid())
	for name, c := range map[string]struct {
		events        []accessEvent
		doubt, breach string
	}{
		"nothing":                 {nil, "", ""},
		"the agent itself":        {[]accessEvent{{open | closed, self}}, "", ""},
		"the loop device goes":    {[]accessEvent{{closed, 1 << 30}}, "", ""},
		"read":                    {[]accessEvent{{open, 1 << 30}}, "was opened by process 1073741824", ""},
		"written":                 {[]accessEvent{{open, 1 << 30}, {closed, 1 << 30}}, "was opened by", "opened for writing, past the guest, by process 1073741824"},
		"written, merged":         {[]accessEvent{{open | closed, 1 << 30}}, "was opened by", "opened for writing"},
		"read, and the loop goes": {[]accessEvent{{open, 1 << 30}, {closed, 1<<30 + 1}}, "was opened by", ""},
		"too many":                {[]accessEvent{{unix.FAN_Q_OVERFLOW, 0}}, "more often than could be counted", ""},
	} {
		w := &AccessWatch{path: "/a.img", opened: map[int32]bool{}}
		for _, e := range c.events {
			w.enter(e)
		}
		if (w.doubt == "") != (c.doubt == "") || !strings.Contains(w.doubt, c.doubt) || (w.breach == "") != (c.breach == "") || !strings.Contains(w.breach, c.breach) {
			t.Errorf("%s: doubt %q, breach %q", name, w.doubt, w.breach)
		}
	}
}
