package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// uevents counts what the kernel tells of block devices. That a device mapper
// table was exchanged, and exchanged back, leaves no other trace: neither the event
// number nor anything in sysfs counts it, but the kernel sends an event before the
// ioctl that resumes the device returns. So whoever asks afterwards finds it.
//
// Nothing listens in between: events wait in the socket until somebody asks.
type uevents struct {
	mu      sync.Mutex
	fd      int
	id      string // of this listener: its counts mean nothing to another one
	err     error  // why there is none
	changes map[string]uint64
	lost    uint64
}

// ueventBuffer holds some 20 000 events, more than a busy host has between two looks.
const ueventBuffer = 8 << 20

// open begins to listen. The caller holds mu.
func (u *uevents) open() error {
	if u.id != "" || u.err != nil {
		return u.err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err == nil {
		if err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
			_ = unix.Close(fd)
		}
	}
	if err != nil {
		u.err = fmt.Errorf("the kernel's events cannot be listened to: %w", err)
		return u.err
	}
	// A smaller buffer only loses events sooner, and that is noticed.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, ueventBuffer)
	u.fd, u.id, u.changes = fd, rand.Text(), map[string]uint64{}
	return nil
}

// counts are what was told so far.
type counts struct {
	id      string
	lost    uint64            // how often events were lost
	changes map[string]uint64 // by device number
}

// ask returns what was told up to now.
func (u *uevents) ask() (counts, error) {
	if u == nil {
		return counts{}, errors.New("nobody listens to the kernel's events")
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.open(); err != nil {
		return counts{}, err
	}
	buf := make([]byte, 8192) // the kernel's own are of 2 KiB at most
	for {
		n, from, err := unix.Recvfrom(u.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return counts{u.id, u.lost, maps.Clone(u.changes)}, nil
		case errors.Is(err, unix.ENOBUFS):
			u.lost++
			continue
		case err != nil:
			return counts{}, fmt.Errorf("the kernel's events: %w", err)
		}
		if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 { // the kernel's own
			if device := changed(buf[:n]); device != "" {
				u.changes[device]++
			}
		}
	}
}

// changed returns the device number of an event that says that what is behind a
// block device may have changed, else "". What somebody asked the kernel to say
// again (udevadm trigger) is no such event, nor that a path to a disk has failed or
// come back.
func changed(event []byte) string {
	fields := strings.Split(strings.TrimSuffix(string(event), "\x00"), "\x00")
	value := func(name string) string {
		for _, f := range fields[1:] {
			if v, ok := strings.CutPrefix(f, name+"="); ok {
				return v
			}
		}
		return ""
	}
	major, err1 := strconv.ParseUint(value("MAJOR"), 10, 32)
	minor, err2 := strconv.ParseUint(value("MINOR"), 10, 32)
	if value("SUBSYSTEM") != "block" || err1 != nil || err2 != nil {
		return ""
	}
	synthetic := slices.ContainsFunc(fields, func(f string) bool { return strings.HasPrefix(f, "SYNTH_UUID=") })
	if synthetic || strings.HasPrefix(value("DM_ACTION"), "PATH_") {
		return ""
	}
	return fmt.Sprintf("%d:%d", major, minor)
}
