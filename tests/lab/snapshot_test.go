package lab

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
)

// serveMonitor answers one command as QEMU's monitor does.
func serveMonitor(t *testing.T, m *Machine, answer string) {
	t.Helper()
	listener, err := net.Listen("unix", m.monitorPath())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer listener.Close()
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "QEMU 11.1 monitor - type 'help' for more information\r\n(qemu) ")
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			return
		}
		fmt.Fprintf(conn, "%s\r\n%s(qemu) ", strings.TrimSpace(line), answer)
	}()
}

func TestMonitorTellsErrors(t *testing.T) {
	m := &Machine{Dir: t.TempDir()}
	serveMonitor(t, m, "Error: no such snapshot\r\n")
	if err := m.monitor(t.Context(), "delvm nothing"); err == nil || !strings.Contains(err.Error(), "no such snapshot") {
		t.Errorf("got %v", err)
	}
}

func TestMonitorSucceedsSilently(t *testing.T) {
	m := &Machine{Dir: t.TempDir()}
	serveMonitor(t, m, "")
	if err := m.Save(t.Context(), "ready"); err != nil {
		t.Error(err)
	}
}
