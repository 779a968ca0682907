package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab/proc"
)

// A lab whose state can be saved. It writes to overlays of the disks, which
// stay until the next boot.

// prompt is what QEMU's monitor prints when it waits for a command.
const prompt = "(qemu) "

// monitorPath is the socket of QEMU's monitor.
func (m *Machine) monitorPath() string { return filepath.Join(m.Dir, "monitor") }

// overlays are the names of the overlays of dom0's disk and the domU's.
var overlays = [2]string{"dom0.qcow2", "domU.qcow2"}

// createOverlays makes the overlays of a lab that boots.
func (c Config) createOverlays() error {
	for i, backing := range []string{c.Dom0.Disk, c.Guest.Disk} {
		path := filepath.Join(c.Dir, overlays[i])
		if err := createOverlay(path, backing); err != nil {
			return err
		}
	}
	return nil
}

// drives are QEMU's arguments for the disks.
func (c Config) drives(throttle string) []string {
	const fresh = "file=%s,if=virtio,format=raw,snapshot=on,cache=unsafe%s"
	disk := fresh
	files := [2]string{c.Dom0.Disk, c.Guest.Disk}
	if c.Saveable {
		disk = "file=%s,if=virtio,format=qcow2,cache=unsafe%s"
		for i := range files {
			files[i] = filepath.Join(c.Dir, overlays[i])
		}
	}
	arguments := []string{"-drive", fmt.Sprintf(disk, files[0], ""), "-drive", fmt.Sprintf(disk, files[1], throttle)}
	if c.SpareMiB > 0 {
		arguments = append(arguments, "-drive", fmt.Sprintf(fresh, c.spare(), ""))
	}
	if c.Resume != "" {
		arguments = append(arguments, "-loadvm", c.Resume)
	}
	return arguments
}

// Save keeps the state of the whole machine, memory and disks, under a name. A
// lab that is booted with the same configuration and that name for Resume goes
// on from there.
//
// It has to be another process: QEMU's time stamp counter does not go back,
// its other clocks do, and Xen would be lost between them.
func (m *Machine) Save(ctx context.Context, name string) error {
	return m.monitor(ctx, "savevm "+name)
}

// Quit ends QEMU as Stop does, but so that the overlays are whole.
func (m *Machine) Quit(ctx context.Context) error {
	if start, err := proc.Start(m.PID); err != nil || start != m.Start {
		return m.Stop()
	}
	// The answer is that the connection ends.
	if err := m.monitor(ctx, "quit"); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		return errors.Join(err, m.Stop())
	}
	for start, err := proc.Start(m.PID); err == nil && start == m.Start; start, err = proc.Start(m.PID) {
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), m.Stop())
		case <-time.After(20 * time.Millisecond): // whoever started it may be another process
		}
	}
	return m.Stop()
}

// monitor runs one command of QEMU's monitor. A command that succeeds prints
// nothing.
func (m *Machine) monitor(ctx context.Context, command string) error {
	q, err := m.openMonitor(ctx)
	if err != nil {
		return err
	}
	defer q.Close()
	answer, err := q.ask(command)
	if err != nil {
		return err
	}
	// The monitor echoes the command, with the escapes of its line editor.
	if _, after, ok := strings.Cut(answer, "\n"); ok && strings.TrimSpace(after) != "" {
		return fmt.Errorf("%s: %s", command, strings.TrimSpace(after))
	}
	return nil
}

// monitorConn is a connection to QEMU's monitor, which serves one at a time.
type monitorConn struct {
	net.Conn
	ctx    context.Context
	stop   func() bool // keeps the connection from being closed when ctx ends
	reader *bufio.Reader
}

// Close ends the connection.
func (q *monitorConn) Close() error {
	q.stop()
	return q.Conn.Close()
}

// openMonitor returns when the monitor is ready for a command.
func (m *Machine) openMonitor(ctx context.Context) (*monitorConn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", m.monitorPath())
	if err != nil {
		return nil, err
	}
	q := &monitorConn{conn, ctx, context.AfterFunc(ctx, func() { conn.Close() }), bufio.NewReader(conn)}
	if _, err := readPrompt(q.reader); err != nil {
		q.Close()
		return nil, errors.Join(fmt.Errorf("QEMU's monitor: %w", err), ctx.Err())
	}
	return q, nil
}

// ask returns what a command prints, after its echo.
func (q *monitorConn) ask(command string) (string, error) {
	if _, err := fmt.Fprintln(q, command); err != nil {
		return "", errors.Join(err, q.ctx.Err())
	}
	answer, err := readPrompt(q.reader)
	if err != nil {
		return "", errors.Join(fmt.Errorf("%s: %w", command, err), q.ctx.Err())
	}
	return answer, nil
}

// readPrompt returns what comes before the next prompt.
func readPrompt(reader *bufio.Reader) (string, error) {
	var text strings.Builder
	for !strings.HasSuffix(text.String(), prompt) {
		b, err := reader.ReadByte()
		if err != nil {
			return text.String(), err
		}
		text.WriteByte(b)
	}
	return strings.TrimSuffix(text.String(), prompt), nil
}
