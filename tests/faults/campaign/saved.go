package campaign

import (
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// saved is what has to be known of the machine's saved state. It lies beside
// it, so that a campaign that goes on need not boot the lab again.
type saved struct {
	Key    string `json:"key"`    // of what the lab was made from
	Lookup string `json:"lookup"` // address of kallsyms_lookup_name in the domU
	Domid  string `json:"domid"`  // of the domU
	Before int    `json:"before"` // reboots that the agent had seen
}

const savedName = "saved.json"

func readSaved(dir string) (saved, error) {
	var s saved
	text, err := os.ReadFile(filepath.Join(dir, savedName))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

func (s saved) write(dir string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, savedName), text, 0o644)
}

// key identifies what the state is made from. The parts of the lab lie in
// folders that are named by their content; dom0 is given the hand anew in each
// run.
func (b *Bench) key() (string, error) {
	c := b.parts.Config
	list := []any{"state 1", c.Xen, c.Dom0, c.Guest.Disk, c.Kernel, b.tools.Module, Served}
	for _, program := range []string{b.parts.Product.CLI, b.parts.Product.Daemon} {
		content, err := os.ReadFile(program)
		if err != nil {
			return "", err
		}
		list = append(list, sha256.Sum256(content))
	}
	return build.KeyOf(list...).String(), nil
}
