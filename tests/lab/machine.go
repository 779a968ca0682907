// Package lab boots Xen, a Debian dom0 and a Debian domU in QEMU, or in Bochs, with
// pure emulation, and drives them. What it boots is built by the package build.
package lab

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab/agent"
	"github.com/warmreboot/warmreboot/tests/lab/build"
	"github.com/warmreboot/warmreboot/tests/lab/proc"
)

// Domain is the name of the lab's domU, and DomainAddress its address as seen
// from dom0.
const (
	Domain        = "domU-web"
	DomainAddress = "10.0.5.2"
)

// Throttle is what the domU's disk is limited to. See README.md of this folder
// for where the figures come from.
var Throttle = struct{ BytesPerSecond int }{24 << 20}

// Config says what to boot. All paths are the host's.
type Config struct {
	Dir     string     // of this lab: logs and the state file
	Root    build.Root // that QEMU runs in
	QEMU    string     // the program
	Xen     string     // 32-bit ELF, not compressed
	Dom0    build.Dom0
	Guest   build.Guest
	Kernel  string       // of the domU: bzImage
	Bochs   *build.Bochs // that emulates the machine; nil for QEMU
	Console []string     // further words for Xen's command line
	// Unthrottled takes the brake off the domU's disk.
	Unthrottled bool
	// Saveable lets the machine's state be saved; Resume is the name of one to
	// begin with.
	Saveable bool
	Resume   string
	// MemoryMiB is the machine's memory, SpareMiB an empty disk's size, and
	// Processors how many it has; see Variant.
	MemoryMiB, SpareMiB, Processors int
}

// Machine is a lab that runs.
type Machine struct {
	Dir   string `json:"dir"`
	PID   int    `json:"pid"`
	Port  int    `json:"port"`
	Start uint64 `json:"start"` // of the process, in clock ticks since boot: its identity
}

// Dom0 returns the agent in dom0.
func (m *Machine) Dom0() *Client {
	return newClient(fmt.Sprintf("http://127.0.0.1:%d", m.Port))
}

// DomU returns the agent in the domU, which answers while the domU is up.
func (m *Machine) DomU() *Client {
	return newClient(fmt.Sprintf("http://127.0.0.1:%d/via/%s:%d", m.Port, DomainAddress, agent.Port))
}

// ConsoleLog is the file with what Xen and dom0 print.
func (m *Machine) ConsoleLog() string { return filepath.Join(m.Dir, "console.log") }

// emulatorLog is the file with what the emulator prints.
const emulatorLog = "emulator.log"

// Boot starts the emulator and returns when dom0 answers. Whatever is written to the
// disks is lost with the machine.
func Boot(ctx context.Context, c Config) (*Machine, error) {
	if c.Processors > 1 && c.Saveable {
		return nil, errors.New("the state of a lab with more than one processor cannot be saved: that needs a clock that counts instructions")
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, err
	}
	if old, err := Open(c.Dir); err == nil {
		return nil, fmt.Errorf("a lab runs in %s already (process %d); stop it first", c.Dir, old.PID)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	m := &Machine{Dir: c.Dir, Port: port}
	if c.Saveable && c.Resume == "" {
		if err := c.createOverlays(); err != nil {
			return nil, err
		}
	}
	if c.SpareMiB > 0 {
		if err := build.EmptyDisk(c.spare(), int64(c.SpareMiB)); err != nil {
			return nil, err
		}
	}
	root, line := c.Root, append([]string{c.QEMU}, c.arguments(m)...)
	if c.Bochs != nil {
		if root, line, err = c.prepareBochs(ctx, m); err != nil {
			return nil, err
		}
	}
	log, err := os.Create(filepath.Join(c.Dir, emulatorLog))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command := root.Command(context.WithoutCancel(ctx), "/", line...)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // outlives the command that booted it
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start the emulator: %w", err)
	}
	m.PID = command.Process.Pid
	if m.Start, err = proc.Start(m.PID); err != nil {
		return nil, err
	}
	if err := m.save(); err != nil {
		return nil, errors.Join(err, m.Stop())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		cancel(fmt.Errorf("the emulator ended: %w", errors.Join(command.Wait(), errors.New(m.tail(emulatorLog)))))
	}()
	if err := m.awaitDom0(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("boot dom0: %w\n%s", err, m.tail("console.log")), context.Cause(ctx), m.Stop())
	}
	return m, nil
}

func (m *Machine) awaitDom0(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // with systemd, on a busy machine
	defer cancel()
	return m.Dom0().Await(ctx)
}

// instructionShift is the binary logarithm of the nanoseconds that one
// instruction takes on the machine's clock. What time the emulator itself needs
// does not count, so neither does what else the host is doing. While the
// machine is idle its clock goes with the host's; if its state can be saved, the
// clock then goes at once to when the machine has something to do, as the host
// waits for it and not the other way round.
const instructionShift = 1

// dom0Arguments is the command line of dom0's kernel.
const dom0Arguments = "root=/dev/vda rw console=hvc0 quiet loglevel=4 mitigations=off"

// xenArguments is Xen's command line.
func (c Config) xenArguments() string {
	return strings.Join(append([]string{"console=com1", "com1=115200,8n1", "dom0_mem=1024M,max:1024M",
		"loglvl=all", "guest_loglvl=all", "spec-ctrl=no,eager-fpu", "global-pages"}, c.Console...), " ")
}

func (c Config) arguments(m *Machine) []string {
	throttle, sleep := "", "on"
	if c.Saveable {
		sleep = "off"
	}
	if !c.Unthrottled {
		throttle = fmt.Sprintf(",throttling.bps-total=%d", Throttle.BytesPerSecond)
	}
	// One virtual CPU, so that the clock can count its instructions, or else
	// several, each on a thread of its own.
	processors := []string{"-accel", "tcg,thread=single", "-smp", "1", "-icount", fmt.Sprintf("shift=%d,sleep=%s", instructionShift, sleep)}
	if c.Processors > 1 {
		processors = []string{"-accel", "tcg,thread=multi", "-smp", strconv.Itoa(c.Processors)}
	}
	return slices.Concat(build.QEMUFirmware(), processors, []string{
		// With MONITOR Xen takes a #GP in mwait; with RDTSCP PVH guests stall.
		"-cpu", "EPYC,+svm,-monitor,-rdtscp",
		"-m", strconv.Itoa(cmp.Or(c.MemoryMiB, 2560)), "-nodefaults", "-no-reboot", "-display", "none",
		"-kernel", c.Xen,
		"-initrd", c.Dom0.Kernel + " " + dom0Arguments + "," + c.Dom0.Initrd,
		"-append", c.xenArguments(),
		"-serial", "file:" + m.ConsoleLog(),
		"-monitor", "unix:" + m.monitorPath() + ",server=on,wait=off",
		"-netdev", fmt.Sprintf("user,id=net0,hostfwd=tcp:127.0.0.1:%d-:%d", m.Port, agent.Port),
		"-device", "virtio-net-pci,netdev=net0,romfile=",
	}, c.drives(throttle))
}

// spare is the file of the empty disk. It stays empty: what is written to the
// disk goes where QEMU keeps it, and is gone when the lab ends.
func (c Config) spare() string { return filepath.Join(c.Dir, "spare.img") }

// Open returns the lab that runs in dir.
func Open(dir string) (*Machine, error) {
	text, err := os.ReadFile(filepath.Join(dir, "machine.json"))
	if err != nil {
		return nil, fmt.Errorf("no lab in %s: %w", dir, err)
	}
	m := new(Machine)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, err
	}
	if start, err := proc.Start(m.PID); err != nil || start != m.Start {
		return nil, fmt.Errorf("the lab in %s has ended", dir)
	}
	return m, nil
}

// Stop ends the emulator. It is no error if it has ended already.
func (m *Machine) Stop() error {
	if start, err := proc.Start(m.PID); err == nil && start == m.Start {
		if err := syscall.Kill(m.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop the emulator: %w", err)
		}
	}
	err := os.Remove(filepath.Join(m.Dir, "machine.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (m *Machine) save() error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.Dir, "machine.json"), text, 0o644)
}

// tail returns the end of one of the lab's logs.
func (m *Machine) tail(name string) string {
	text, _ := os.ReadFile(filepath.Join(m.Dir, name)) // best effort: for a message only
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-15):], []byte("\n")))
}

// freePort asks the kernel for a TCP port that nobody uses.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// ProcessorTime is how long the emulator has had a processor of the host, in
// seconds.
func (m *Machine) ProcessorTime() (float64, error) {
	return proc.Time(m.PID)
}

func joinStop(err error, m *Machine) error { return errors.Join(err, m.Stop()) }
