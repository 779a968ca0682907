package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

// monitorPath is the socket of QEMU's monitor.
func (m *Machine) monitorPath() string { return filepath.Join(m.Dir, "monitor") }

// prompt is what QEMU's monitor prints when it waits for a command.
const prompt = "(qemu) "

// Save keeps the state of the whole machine, memory and disks, under a name.
// It is lost when the lab ends.
func (m *Machine) Save(ctx context.Context, name string) error {
	return m.monitor(ctx, "savevm "+name)
}

// Load puts the machine back to a state that was saved. Connections to the
// agents that were open do not survive it.
func (m *Machine) Load(ctx context.Context, name string) error {
	return m.monitor(ctx, "loadvm "+name)
}

// monitor runs one command of QEMU's monitor. A command that succeeds prints
// nothing.
func (m *Machine) monitor(ctx context.Context, command string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", m.monitorPath())
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	reader := bufio.NewReader(conn)
	if _, err := readPrompt(reader); err != nil {
		return errors.Join(fmt.Errorf("QEMU's monitor: %w", err), ctx.Err())
	}
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return err
	}
	answer, err := readPrompt(reader)
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", command, err), ctx.Err())
	}
	// The monitor echoes the command, with the escapes of its line editor.
	if _, after, ok := strings.Cut(answer, "\n"); ok && strings.TrimSpace(after) != "" {
		return fmt.Errorf("%s: %s", command, strings.TrimSpace(after))
	}
	return nil
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
