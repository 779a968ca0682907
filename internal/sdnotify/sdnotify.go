// Package sdnotify tells the service manager how a daemon is (sd_notify(3)).
// Without a service manager, which is no error, nobody is told.
//
// The protocol is one datagram per message. That is little enough to speak it
// here, without a library that would bring much else.
package sdnotify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// What can be told. Status is a line for people, as `systemctl status` shows it.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	watchdog = "WATCHDOG=1"
)

// Status is the message that shows text.
func Status(text string) string { return "STATUS=" + strings.ReplaceAll(text, "\n", " ") }

// Manager is who has started this process.
type Manager struct {
	address string // "" if nobody asks
	// Interval is how long the manager waits for a sign of life before it takes
	// the daemon for dead; 0 if it does not wait.
	Interval time.Duration
}

// FromEnvironment finds the manager, and keeps children from finding it.
func FromEnvironment() (Manager, error) {
	get := func(name string) string {
		value := os.Getenv(name)
		_ = os.Unsetenv(name) // cannot fail for a name without = in it
		return value
	}
	m := Manager{address: get("NOTIFY_SOCKET")}
	interval, pid := get("WATCHDOG_USEC"), get("WATCHDOG_PID")
	if m.address == "" || interval == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return m, nil
	}
	n, err := strconv.ParseInt(interval, 10, 64)
	if err != nil || n <= 0 || n > int64(time.Duration(1<<63-1)/time.Microsecond) {
		return m, fmt.Errorf("WATCHDOG_USEC is %q, must be microseconds", interval)
	}
	m.Interval = time.Duration(n) * time.Microsecond
	return m, nil
}

// Send tells the manager; it is no error if there is none.
func (m Manager) Send(messages ...string) error {
	if m.address == "" {
		return nil
	}
	// An address that begins with @ is an abstract one, for Go as for systemd.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.address, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	_, err = conn.Write([]byte(strings.Join(messages, "\n")))
	if err = errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// Watch gives signs of life, four in each interval, for as long as alive
// returns nil, until ctx ends. What alive finds wrong is handed to report;
// alive that does not return gives no sign, either.
func (m Manager) Watch(ctx context.Context, alive func() error, report func(error)) {
	if m.Interval == 0 {
		return
	}
	ticker := time.NewTicker(m.Interval / 4)
	defer ticker.Stop()
	for {
		err := alive()
		if err == nil {
			err = m.Send(watchdog)
		}
		if err != nil {
			report(err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
