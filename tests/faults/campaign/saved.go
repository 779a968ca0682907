package campaign

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// keyName is the file beside the machine's saved state that says what the state
// is made from, so that a campaign that goes on need not boot the lab again.
const keyName = "saved.key"

// readKey returns "" where there is no state.
func readKey(dir string) string {
	text, _ := os.ReadFile(filepath.Join(dir, keyName)) // one that can't be read is made anew
	return string(text)
}

func writeKey(dir, key string) error {
	return os.WriteFile(filepath.Join(dir, keyName), []byte(key), 0o644)
}

func forgetKey(dir string) error {
	err := os.Remove(filepath.Join(dir, keyName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// copyState copies a saved state into another folder, unless it is there.
func copyState(from, to string) error {
	if readKey(to) == readKey(from) {
		return nil
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := forgetKey(to); err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(from, "*.qcow2"))
	if err != nil {
		return err
	}
	for _, image := range images {
		if err := build.CopyFile(image, filepath.Join(to, filepath.Base(image))); err != nil {
			return err
		}
	}
	return writeKey(to, readKey(from))
}

// key identifies what the state is made from: only the QEMU that has saved it can
// load it.
func (b *Bench) key() (string, error) {
	key, err := b.parts.Key([]string{b.tools.Hand, b.tools.Guest, b.tools.Module}, "state 5", config, blockScriptText, order)
	return key.String(), err
}
