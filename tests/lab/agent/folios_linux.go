package agent

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What /proc/self/pagemap and /proc/kpageflags say
// (Documentation/admin-guide/mm/pagemap.rst).
const (
	pagemapPresent = 1 << 63
	pagemapPFN     = 1<<55 - 1
	flagCompound   = 1<<15 | 1<<16 // head or tail
)

// CountFolios maps a file and tells how its pages lie in memory, reading from
// the disk those that do not.
func CountFolios(path string) (FolioCount, error) {
	var count FolioCount
	file, err := os.Open(path)
	if err != nil {
		return count, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return count, err
	}
	memory, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return count, err
	}
	defer unix.Munmap(memory)
	if err := unix.Madvise(memory, unix.MADV_POPULATE_READ); err != nil {
		return count, err
	}
	count.Pages = (len(memory) + os.Getpagesize() - 1) / os.Getpagesize()
	address, err := mappedAt(path)
	if err != nil {
		return count, err
	}
	frames, err := readWords("/proc/self/pagemap", address/uint64(os.Getpagesize()), count.Pages)
	if err != nil {
		return count, err
	}
	for i, frame := range frames {
		if frame&pagemapPresent == 0 {
			return count, fmt.Errorf("%s: page %d is not mapped", path, i)
		}
		flags, err := readWords("/proc/kpageflags", frame&pagemapPFN, 1)
		if err != nil {
			return count, err
		}
		if flags[0]&flagCompound != 0 {
			count.Large++
		}
	}
	return count, nil
}

// mappedAt returns the address that this process has mapped a file at.
func mappedAt(path string) (uint64, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if address, rest, ok := strings.Cut(line, "-"); ok && strings.HasSuffix(rest, " "+path+"\n") {
			return strconv.ParseUint(address, 16, 64)
		}
	}
	return 0, fmt.Errorf("%s is not mapped", path)
}

// readWords reads n of the 64-bit words that a file consists of, from the first.
func readWords(path string, first uint64, n int) ([]uint64, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	buffer := make([]byte, 8*n)
	if _, err := file.ReadAt(buffer, 8*int64(first)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	words := make([]uint64, n)
	for i := range words {
		words[i] = binary.NativeEndian.Uint64(buffer[8*i:])
	}
	return words, nil
}
