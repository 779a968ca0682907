package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// Each scenario below is played on files of its own, once with the change
// synced and once without, right before the guest is made to panic. What the
// files hold afterwards is up to the filesystem; that it is the same in a warm
// and in a cold boot is what the demo checks.
var writeScenarios = []struct {
	name string
	play func(path string) error
}{
	{"overwrite", func(path string) error { return patchFile(path, 100_000, 300_000, 0) }},
	{"append", func(path string) error { return patchFile(path, scenarioSize, 123_456, 0) }},
	{"truncate", func(path string) error { return os.Truncate(path, 300_001) }},
	{"recreate", func(path string) error {
		return errors.Join(os.Remove(path), WriteContent(path, 99, 700_000))
	}},
	{"rename-over", func(path string) error {
		return errors.Join(WriteContent(path+".new", 98, 650_000), os.Rename(path+".new", path))
	}},
	{"mmap", mmapWrite},
	{"punch-hole", punchHole},
	{"direct", func(path string) error { return patchFile(path, 1<<16, 1<<18, syscall.O_DIRECT) }},
}

const scenarioSize = 1 << 20

// PrepareScenarios creates the files that WriteScenarios will change, synced,
// and reads them so that their pages are cached.
func PrepareScenarios(root string) error {
	for _, scenario := range writeScenarios {
		for _, suffix := range []string{"synced", "unsynced"} {
			path := filepath.Join(root, scenario.name+"-"+suffix)
			if err := WriteContent(path, 7, scenarioSize); err != nil {
				return err
			}
		}
	}
	syscall.Sync()
	_, err := ReadTree(root, nil)
	return err
}

// WriteScenarios changes the files that PrepareScenarios made.
func WriteScenarios(root string) error {
	for _, suffix := range []string{"synced", "unsynced"} {
		for _, scenario := range writeScenarios {
			path := filepath.Join(root, scenario.name+"-"+suffix)
			if err := scenario.play(path); err != nil {
				return fmt.Errorf("%s %s: %w", scenario.name, path, err)
			}
			if suffix != "synced" {
				continue
			}
			if err := syncFile(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func syncFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// patchFile writes length bytes at offset. The buffer is page aligned, as
// O_DIRECT wants it.
func patchFile(path string, offset, length int64, flags int) error {
	buffer, err := syscall.Mmap(-1, 0, int(length), syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer syscall.Munmap(buffer)
	if _, err := io.ReadFull(Content(97), buffer); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|flags, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(buffer, offset)
	return errors.Join(err, file.Close())
}

func mmapWrite(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	memory, err := syscall.Mmap(int(file.Fd()), 0, scenarioSize,
		syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(Content(96), memory[200_000:400_000]); err != nil {
		return err
	}
	return syscall.Munmap(memory)
}

func punchHole(path string) error {
	const keepSize, hole = 1, 2 // FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = syscall.Fallocate(int(file.Fd()), keepSize|hole, 65_536, 393_216)
	return errors.Join(err, file.Close())
}
