// Package guest is what the fault injection does in the domU, where it is the
// only process: the work during which the faults happen. It talks with package
// hand, in dom0, over the domU's console. A program of little more than this is
// its init, as every reboot reads all of it. The stress of a lab with several
// processors has the same work done by many at once, by a program of its own.
package guest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/internal/disk"
)

// Where things are in the domU.
const (
	Program  = "/usr/local/sbin/faultguest" // its init
	Module   = "/usr/local/lib/faults.ko"   // the injector
	inMemory = "/tmp/faultguest"            // what Program goes on as: no fault gets at it through the disk
	injector = "/proc/faults"               // takes its orders
)

// Order is what a run is to do.
type Order struct {
	Domain  string `json:"domain"`
	Served  string `json:"served"` // folders of files that are never written, separated by commas
	Work    string `json:"work"`   // folder that is written to
	Seen    string `json:"seen"`   // folder of served files that the guest compares with the disk
	Type    string `json:"type"`   // of the faults
	Seed    uint64 `json:"seed"`
	Faults  int    `json:"faults"`
	Seconds int    `json:"seconds"` // that the guest works, with the faults spread over the first half
}

// What the guest prints for dom0, at the start of a line.
const (
	SayUp       = "hand: up"
	SayPrepared = "hand: prepared "
	SaySeen     = "hand: seen "
	SayFailed   = "hand: failed: "
	SayTimeOver = "hand: the time is over"
)

// Seen is what the guest sees of some of its served files.
type Seen struct {
	Files  int      `json:"files"`
	Differ []string `json:"differ"` // when read through the page cache and past it
}

// Watched is how long the work goes on while the injector notes which functions
// of the kernel it runs through.
const Watched = 20 * time.Second

// Main is the domU's init: it does what it is told on the console. It ends
// only by an error, of which the kernel panics.
func Main() error {
	if os.Args[0] != inMemory {
		return moveToMemory()
	}
	fmt.Println(SayUp)
	for lines := bufio.NewReader(os.Stdin); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		command, text, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		var order Order
		if err = json.Unmarshal([]byte(text), &order); err == nil {
			err = do(command, order)
		}
		if err != nil {
			fmt.Printf("%s%v\n", SayFailed, err)
		}
	}
}

// moveToMemory mounts what is needed and goes on as inMemory.
func moveToMemory() error {
	if err := errors.Join(syscall.Mount("proc", "/proc", "proc", 0, ""), syscall.Mount("tmpfs", "/tmp", "tmpfs", 0, "")); err != nil {
		return err
	}
	content, err := os.ReadFile(Program)
	if err != nil {
		return err
	}
	if err := os.WriteFile(inMemory, content, 0o755); err != nil {
		return err
	}
	return syscall.Exec(inMemory, []string{inMemory}, os.Environ())
}

func do(command string, order Order) error {
	switch command {
	case "prepare":
		return say(SayPrepared)(prepareGuest(order))
	case "work":
		return work(order)
	case "see":
		return say(SaySeen)(see(order.Seen, order.Seed))
	}
	return fmt.Errorf("unknown command %q", command)
}

func say(what string) func(value any, err error) error {
	return func(value any, err error) error {
		if err != nil {
			return err
		}
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		_, err = fmt.Printf("%s%s\n", what, text)
		return err
	}
}

// prepareGuest loads the injector, has it watch some work, and then fills the cache.
func prepareGuest(order Order) (inodes []uint64, err error) {
	if err := loadInjector(); err != nil {
		return nil, err
	}
	if err := os.WriteFile(injector, []byte("watch"), 0); err != nil {
		return nil, err
	}
	if _, err := Prepare(order.Served, order.Work); err != nil {
		return nil, err
	}
	if err := Work(order.Served, order.Work, 0, Watched, Watched/100); err != nil {
		return nil, err
	}
	if err := os.WriteFile(injector, []byte("enough"), 0); err != nil {
		return nil, err
	}
	if inodes, err = Prepare(order.Served, order.Work); err != nil {
		return nil, err
	}
	return inodes, emptyJournal("/")
}

// emptyJournal has a file system write all that is in its journal where it
// belongs, so that the next boot replays what a run has written, and no more.
func emptyJournal(mountpoint string) error {
	root, err := os.Open(mountpoint)
	if err != nil {
		return err
	}
	defer root.Close()
	const freeze, thaw = 0xc0045877, 0xc0045878 // FIFREEZE, FITHAW
	for _, request := range []uint{freeze, thaw} {
		if err := unix.IoctlSetInt(int(root.Fd()), request, 0); err != nil {
			return fmt.Errorf("freeze and thaw %s: %w", mountpoint, err)
		}
	}
	return nil
}

func loadInjector() error {
	module, err := os.ReadFile(Module)
	if err != nil {
		return err
	}
	symbols, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return err
	}
	before, _, ok := bytes.Cut(symbols, []byte(" T kallsyms_lookup_name\n"))
	if !ok {
		return errors.New("the kernel has no kallsyms_lookup_name")
	}
	lookup := before[bytes.LastIndexByte(before, '\n')+1:]
	if err := unix.InitModule(module, "lookup=0x"+string(lookup)); err != nil {
		return fmt.Errorf("the injector: %w", err)
	}
	return nil
}

// work makes the faults and the work, then the kernel panics, even if the work
// hangs. Should the faults keep it even from that, dom0 takes the domain down.
func work(order Order) error {
	sysrq, err := os.OpenFile("/proc/sysrq-trigger", os.O_WRONLY, 0) // while the kernel still can
	if err != nil {
		return err
	}
	defer sysrq.Close()
	faults := fmt.Sprintf("inject %s %d %d %d", order.Type, order.Seed, order.Faults, order.Seconds*1000/2)
	if err := os.WriteFile(injector, []byte(faults), 0); err != nil {
		return fmt.Errorf("%s: %w", faults, err)
	}
	duration := time.Duration(order.Seconds) * time.Second
	go func() {
		if err := Work(order.Served, order.Work, order.Seed, duration, duration/operations); err != nil {
			fmt.Printf("work: %v\n", err)
		}
	}()
	time.Sleep(duration)
	fmt.Println(SayTimeOver)
	if _, err := sysrq.WriteString("c"); err != nil {
		fmt.Printf("panic: %v\n", err)
	}
	return nil
}

// see compares every third file, from one that the seed selects.
func see(root string, seed uint64) (Seen, error) {
	paths, err := files(root)
	if err != nil {
		return Seen{}, err
	}
	var some []string
	for i, path := range paths {
		if uint64(i)%3 == seed%3 {
			some = append(some, path)
		}
	}
	return compare(some)
}

// Compare compares all files below folders, which are separated by commas.
func Compare(roots string) (Seen, error) {
	paths, err := files(roots)
	if err != nil {
		return Seen{}, err
	}
	return compare(paths)
}

// compare compares what files hold when read through the page cache with what they
// hold when read past it.
func compare(paths []string) (Seen, error) {
	seen := Seen{Differ: []string{}}
	const size = 1 << 20
	direct, err := disk.AlignedBuffer(size)
	if err != nil {
		return seen, err
	}
	defer direct.Free()
	cached := make([]byte, size)
	for _, path := range paths {
		same, err := sameOnDisk(path, cached, direct)
		if err != nil {
			return seen, err
		}
		seen.Files++
		if !same {
			seen.Differ = append(seen.Differ, filepath.Base(path))
		}
	}
	return seen, nil
}

func sameOnDisk(path string, buffer, direct []byte) (bool, error) {
	cached, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer cached.Close()
	disk, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return false, err
	}
	defer disk.Close()
	for offset := int64(0); ; offset += int64(len(buffer)) {
		n, err := cached.ReadAt(buffer, offset)
		if ignoreEOF(err) != nil {
			return false, err
		}
		m, err := disk.ReadAt(direct, offset)
		if ignoreEOF(err) != nil && !errors.Is(err, unix.EINVAL) { // past an end that is in the middle of a block
			return false, err
		}
		if !bytes.Equal(buffer[:n], direct[:m]) {
			return false, nil
		}
		if n < len(buffer) {
			return true, nil
		}
	}
}
