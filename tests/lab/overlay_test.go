package lab

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

func TestOverlayIsWhole(t *testing.T) {
	dir := t.TempDir()
	backing, path := filepath.Join(dir, "raw"), filepath.Join(dir, "overlay")
	if err := os.WriteFile(backing, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(backing, 1000<<20); err != nil {
		t.Fatal(err)
	}
	if err := createOverlay(path, backing); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := binary.BigEndian.Uint64(image[8:])
	if got := string(image[at : at+uint64(binary.BigEndian.Uint32(image[16:]))]); got != backing {
		t.Errorf("backing file %q", got)
	}
	if size := binary.BigEndian.Uint64(image[24:]); size != 1000<<20 {
		t.Errorf("size %d", size)
	}
	if n := binary.BigEndian.Uint32(image[36:]); n != 2 { // 512 MiB each
		t.Errorf("%d entries in the first table", n)
	}
	// What the header points to lies in the image, and is counted.
	for _, offset := range []int{40, 48} {
		cluster := binary.BigEndian.Uint64(image[offset:]) / clusterSize
		if cluster == 0 || cluster >= overlayClusters || binary.BigEndian.Uint16(image[2*clusterSize+2*cluster:]) != 1 {
			t.Errorf("field at %d points to cluster %d", offset, cluster)
		}
	}
}
