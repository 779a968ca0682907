package agent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Dataset describes files whose content follows from a seed, so that dom0 and
// the domU can each know what a file has to be.
type Dataset struct {
	Seed  uint64
	Bytes int64 // at least this much in all
}

// fileSizes are the sizes of the files, taken in turn: what a web server has,
// from a thumbnail to an archive. Some end in the middle of a page.
var fileSizes = []int64{
	3_000, 4 << 20, 70_001, 1 << 20, 16 << 10, 262_144, 6 << 20, 500, 131_073, 2 << 20, 24_576, 900_000,
}

// Write creates the files under root.
func (d Dataset) Write(root string) error {
	var total int64
	for i := 0; total < d.Bytes; i++ {
		size := fileSizes[i%len(fileSizes)]
		path := filepath.Join(root, fmt.Sprintf("%02d", i%8), fmt.Sprintf("file-%04d.bin", i))
		if err := WriteContent(path, d.Seed+uint64(i), size); err != nil {
			return err
		}
		total += size
	}
	return nil
}

// WriteContent creates a file with size bytes that follow from seed. A file
// that exists is overwritten in place: it keeps its inode and its blocks.
func WriteContent(path string, seed uint64, size int64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(file, readSize)
	_, err = io.CopyN(buffered, Content(seed), size)
	return errors.Join(err, buffered.Flush(), file.Truncate(size), file.Close())
}

// Content is an endless stream of bytes that follow from seed.
func Content(seed uint64) io.Reader {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return rand.NewChaCha8(key)
}
