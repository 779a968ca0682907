package build

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// QEMU is the lab's emulator in the tool root: Debian's, mended. One that is there
// is not made again, so another mend needs another name.
const (
	QEMU       = "/usr/bin/qemu-system-x86_64.lab"
	debianQEMU = "/usr/bin/qemu-system-x86_64"
)

// makeQEMU mends a copy of Debian's QEMU, where it is in the tool root: it looks
// for its modules beside itself.
//
// When VMRUN injects an interrupt, QEMU (helper_vmrun, up to 11.1 at least)
// delivers it, and also leaves its number in exception_index. If nothing has
// made the guest exit by the time that the loop of the emulated processor is
// left, because its share of instructions is used up or because another thread
// wants something, the loop finds it there and delivers it again. A guest that
// is just entering the handler does not survive that. Elsewhere exception_index
// is -1 while code runs, so it is enough not to store to it.
//
// A QEMU in which that store is not found is used as it is, which is said.
func (c *Cache) makeQEMU(root string) error {
	made := filepath.Join(root, QEMU)
	if _, err := os.Stat(made); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	unlock, err := c.Lock("qemu")
	if err != nil {
		return err
	}
	defer unlock()
	program, err := os.ReadFile(filepath.Join(root, debianQEMU))
	if err != nil {
		return err
	}
	offset, err := doubleDelivery(program)
	if err != nil {
		if c.Progress != nil {
			c.Progress(fmt.Sprintf("QEMU as it is (%v): guests may die of an interrupt that is delivered twice", err))
		}
	} else {
		copy(program[offset:], nop6)
	}
	temporary := made + ".tmp"
	if err := os.WriteFile(temporary, program, 0o755); err != nil {
		return err
	}
	return os.Rename(temporary, made)
}

// nop6 is an instruction of six bytes that does nothing.
var nop6 = []byte{0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00}

// doubleDelivery returns where in the file the instruction is that stores the
// number of the injected interrupt to exception_index.
func doubleDelivery(program []byte) (offset int, err error) {
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return 0, err
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return 0, err
	}
	named := func(name string) (elf.Symbol, error) {
		i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == name })
		if i < 0 {
			return elf.Symbol{}, fmt.Errorf("it has no %s", name)
		}
		return symbols[i], nil
	}
	vmrun, err := named("helper_vmrun")
	if err != nil {
		return 0, err
	}
	deliver, err := named("do_interrupt_x86_hardirq")
	if err != nil {
		return 0, err
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_LOAD && p.Vaddr <= vmrun.Value && vmrun.Value+vmrun.Size <= p.Vaddr+p.Filesz {
			start := vmrun.Value - p.Vaddr + p.Off
			found, err := storeBeforeCall(program[start:start+vmrun.Size], vmrun.Value, deliver.Value)
			return int(start) + found, err
		}
	}
	return 0, errors.New("helper_vmrun is not in it")
}

// storeBeforeCall finds, in code that runs at an address, the one store of the
// second argument of the one call of a function.
func storeBeforeCall(code []byte, at, function uint64) (int, error) {
	calls := []int{}
	for i := 0; i+5 <= len(code); i++ {
		if code[i] == 0xe8 && at+uint64(i)+5+uint64(int32(binary.LittleEndian.Uint32(code[i+1:]))) == function {
			calls = append(calls, i)
		}
	}
	if len(calls) != 1 {
		return 0, fmt.Errorf("helper_vmrun delivers interrupts in %d places", len(calls))
	}
	const near = 64 // bytes
	stores := []int{}
	for i := max(0, calls[0]-near); i+len(nop6) <= calls[0]; i++ {
		if storesSecond(code[i:]) {
			stores = append(stores, i)
		}
	}
	if len(stores) != 1 {
		return 0, fmt.Errorf("helper_vmrun stores the number of the interrupt in %d places", len(stores))
	}
	return stores[0], nil
}

// storesSecond reports whether code begins with `mov %esi,-offset(register)`: ESI
// has the second argument of a function, and the common part of a processor's
// state comes right before the architecture's, which the register points to.
func storesSecond(code []byte) bool {
	const withSIB = 0xb4 // a form that addresses the stack
	return code[0] == 0x89 && code[1]&0xf8 == 0xb0 && code[1] != withSIB && code[4] == 0xff && code[5] == 0xff
}
