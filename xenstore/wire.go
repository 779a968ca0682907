package xenstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// Message types (xs_wire.h).
const (
	opDirectory  = 1
	opRead       = 2
	opWatch      = 4
	opUnwatch    = 5
	opBegin      = 6 // of a transaction
	opEnd        = 7
	opWrite      = 11
	opRm         = 13
	opWatchEvent = 15
	opError      = 16
	opIntroduced = 17
)

const (
	headerSize = 16
	// payloadMax is XENSTORE_PAYLOAD_MAX: neither side may send more.
	payloadMax = 4096
)

// message is one request, reply or event.
type message struct {
	typ, reqID, txID uint32
	payload          []byte
}

func (m message) encode() ([]byte, error) {
	if len(m.payload) > payloadMax {
		return nil, fmt.Errorf("xenstore: payload of %d bytes: %w", len(m.payload), unix.E2BIG)
	}
	b := make([]byte, headerSize, headerSize+len(m.payload))
	binary.LittleEndian.PutUint32(b[0:], m.typ)
	binary.LittleEndian.PutUint32(b[4:], m.reqID)
	binary.LittleEndian.PutUint32(b[8:], m.txID)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(m.payload)))
	return append(b, m.payload...), nil
}

// readMessage reads one message. An error leaves the stream out of step.
func readMessage(r io.Reader) (message, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return message{}, err
	}
	m := message{
		typ:   binary.LittleEndian.Uint32(h[0:]),
		reqID: binary.LittleEndian.Uint32(h[4:]),
		txID:  binary.LittleEndian.Uint32(h[8:]),
	}
	n := binary.LittleEndian.Uint32(h[12:])
	if n > payloadMax {
		return message{}, fmt.Errorf("xenstore: message of %d bytes: %w", n, unix.EPROTO)
	}
	m.payload = make([]byte, n)
	if _, err := io.ReadFull(r, m.payload); err != nil {
		return message{}, err
	}
	return m, nil
}

// splitStrings takes a list of NUL-terminated strings apart. A last one
// without its NUL counts as well.
func splitStrings(b []byte) []string {
	b = bytes.TrimSuffix(b, []byte{0})
	if len(b) == 0 {
		return nil
	}
	return strings.Split(string(b), "\x00")
}

// errnoByName has the errors that xs_wire.h lists.
var errnoByName = map[string]unix.Errno{
	"EINVAL": unix.EINVAL, "EACCES": unix.EACCES, "EEXIST": unix.EEXIST,
	"EISDIR": unix.EISDIR, "ENOENT": unix.ENOENT, "ENOMEM": unix.ENOMEM,
	"ENOSPC": unix.ENOSPC, "EIO": unix.EIO, "ENOTEMPTY": unix.ENOTEMPTY,
	"ENOSYS": unix.ENOSYS, "EROFS": unix.EROFS, "EBUSY": unix.EBUSY,
	"EAGAIN": unix.EAGAIN, "EISCONN": unix.EISCONN, "E2BIG": unix.E2BIG,
	"EPERM": unix.EPERM,
}
