package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/warmreboot/warmreboot/tests/lab/agent"
	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// A lab that Bochs emulates, for its VMX and EPT. Its clock counts instructions, as
// QEMU's does; see README.md of this folder for what else is different.

// bochsMemoryMiB is all that Bochs can give a machine without keeping parts of it in a
// file.
const bochsMemoryMiB = 2048

// bochsPerSecond is how many instructions take a second on the machine's clock: as
// long as on QEMU's, see instructionShift.
const bochsPerSecond = 1_000_000_000 >> instructionShift

// prepareBochs writes what Bochs reads, and returns how it is started, and where.
func (c Config) prepareBochs(ctx context.Context, m *Machine) (build.Root, []string, error) {
	if c.Saveable || c.Resume != "" || c.Processors > 1 || c.SpareMiB > 0 || c.MemoryMiB > bochsMemoryMiB {
		return build.Root{}, nil, fmt.Errorf("a lab on Bochs has one processor, at most %d MiB and no spare disk, and its state cannot be saved", bochsMemoryMiB)
	}
	disc := filepath.Join(c.Dir, "disc.iso")
	if err := c.Bochs.Disc(ctx, disc, c.Xen, c.xenArguments(), c.Dom0.Kernel, dom0Arguments, c.Dom0.InitrdIDE); err != nil {
		return build.Root{}, nil, err
	}
	settings, network := filepath.Join(c.Dir, "bochsrc"), filepath.Join(c.Dir, "network")
	err := errors.Join(os.WriteFile(settings, []byte(c.bochsSettings(m, disc, network)), 0o644),
		os.WriteFile(network, fmt.Appendf(nil, "# slirp config\nhostfwd = tcp:127.0.0.1:%d-10.0.2.15:%d\n", m.Port, agent.Port), 0o644))
	root := c.Bochs.Root
	root.Bind = append([]string{c.Dir}, root.Bind...)
	return root, []string{c.Bochs.Program, "-q", "-f", settings}, err
}

// bochsSettings is Bochs's configuration. It logs only what ends it: an instruction that
// a PV kernel tries and Xen emulates is an error to it, an interrupt of a domU's is worth
// a line, and logging these takes most of the time of a boot.
func (c Config) bochsSettings(m *Machine, disc, network string) string {
	return fmt.Sprintf(`display_library: nogui
speaker: enabled=0
memory: guest=%[1]d, host=%[1]d
cpu: model=%[2]s, count=1, ips=%[3]d, reset_on_triple_fault=0
clock: sync=none, time0=utc
boot: cdrom
ata0-master: type=disk, mode=volatile, path=%[4]q, journal=%[5]q
ata0-slave: type=disk, mode=volatile, path=%[6]q, journal=%[7]q
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata1-master: type=cdrom, path=%[8]q, status=inserted
com1: enabled=1, mode=file, dev=%[9]q
pci: enabled=1, chipset=i440fx, slot1=e1000
e1000: enabled=1, mac=52:54:00:12:34:56, ethmod=slirp, script=%[10]q
log: -
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
`, cmp.Or(c.MemoryMiB, bochsMemoryMiB), bochsModel, bochsPerSecond, c.Dom0.Disk, filepath.Join(c.Dir, "dom0"), c.Guest.Disk, filepath.Join(c.Dir, "domU"),
		disc, m.ConsoleLog(), network) + build.BochsFirmware
}

// bochsModel has no posted interrupts: Bochs 3.0 refuses a VMCS whose descriptor of
// them is not at the beginning of a page, where Xen's never is.
const bochsModel = "corei7_haswell_4770"
