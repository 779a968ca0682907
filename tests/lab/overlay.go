package lab

import (
	"bytes"
	"encoding/binary"
	"os"
)

// Layout of an empty overlay; see QEMU's docs/interop/qcow2.txt. Each of its
// parts fits into one cluster: the header, the refcount table, the only
// refcount block, the L1 table.
const (
	clusterBits = 16
	clusterSize = 1 << clusterBits

	headerLength    = 104
	backingFormat   = 0xe2792aca // type of the header's extension
	refcountOrder   = 4          // 16 bits each
	overlayClusters = 4
)

// createOverlay creates a disk image in QEMU's own format that takes all
// writes to the raw image backing, which is only read. A state of the machine
// can be saved into it.
func createOverlay(path, backing string) error {
	info, err := os.Stat(backing)
	if err != nil {
		return err
	}
	return os.WriteFile(path, overlay(backing, uint64(info.Size())), 0o644)
}

func overlay(backing string, size uint64) []byte {
	const extensions = 8 + 8 + 8 // the format's name, padded, and the end
	perTable := uint64(clusterSize / 8 * clusterSize)
	var header bytes.Buffer
	for _, field := range []any{
		uint32(0x514649fb), uint32(3), // magic, version
		uint64(headerLength + extensions), uint32(len(backing)),
		uint32(clusterBits), size, uint32(0), // not encrypted
		uint32((size + perTable - 1) / perTable), uint64(3 * clusterSize), // L1
		uint64(clusterSize), uint32(1), // refcount table
		uint32(0), uint64(0), // no snapshots
		uint64(0), uint64(0), uint64(0), // no features
		uint32(refcountOrder), uint32(headerLength),
		uint32(backingFormat), uint32(3), []byte("raw\x00\x00\x00\x00\x00"),
		uint32(0), uint32(0), // end of the extensions
		[]byte(backing),
	} {
		_ = binary.Write(&header, binary.BigEndian, field) // to memory
	}
	image := make([]byte, overlayClusters*clusterSize)
	copy(image, header.Bytes())
	binary.BigEndian.PutUint64(image[clusterSize:], 2*clusterSize)
	for i := range overlayClusters {
		binary.BigEndian.PutUint16(image[2*clusterSize+2*i:], 1)
	}
	return image
}
