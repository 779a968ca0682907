package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// readSize is the size of one read(2); nginx and cp use about as much.
const readSize = 1 << 18

// ReadTree reads every regular file under root once, in the order of their
// names, and tells what it cost in time and in reads of the disks named.
func ReadTree(root string, disks []string) (ReadResult, error) {
	before, err := diskReads(disks)
	if err != nil {
		return ReadResult{}, err
	}
	var result ReadResult
	buffer := make([]byte, readSize)
	start := time.Now()
	err = eachFile(root, func(path string) error {
		n, err := readFile(path, buffer)
		result.Files++
		result.Bytes += n
		return err
	})
	result.Seconds = time.Since(start).Seconds()
	if err != nil {
		return result, fmt.Errorf("read %s: %w", root, err)
	}
	after, err := diskReads(disks)
	if err != nil {
		return result, err
	}
	result.Disks = make(map[string]DiskReads, len(disks))
	for name, was := range before {
		is := after[name]
		result.Disks[name] = DiskReads{Requests: is.Requests - was.Requests, Bytes: is.Bytes - was.Bytes}
	}
	return result, nil
}

func readFile(path string, buffer []byte) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	var total int64
	for {
		n, err := file.Read(buffer)
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// SumTree returns the SHA-256 of every regular file under root.
func SumTree(root string) (Sums, error) {
	sums := make(Sums)
	err := eachFile(root, func(path string) error {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		hash := sha256.New()
		if _, err := io.CopyBuffer(hash, file, make([]byte, readSize)); err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		sums[name] = hex.EncodeToString(hash.Sum(nil))
		return err
	})
	return sums, err
}

func eachFile(root string, visit func(path string) error) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		return visit(path)
	})
}

// diskReads parses /sys/block/*/stat, whose first field counts read requests
// and whose third field counts sectors of 512 bytes
// (Documentation/block/stat.rst).
func diskReads(names []string) (map[string]DiskReads, error) {
	reads := make(map[string]DiskReads, len(names))
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join("/sys/block", name, "stat"))
		if err != nil {
			return nil, err
		}
		fields := strings.Fields(string(text))
		if len(fields) < 3 {
			return nil, fmt.Errorf("%s: unknown statistics %q", name, text)
		}
		requests, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return nil, err
		}
		sectors, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			return nil, err
		}
		reads[name] = DiskReads{Requests: requests, Bytes: sectors * 512}
	}
	return reads, nil
}
