package agent

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/custody"
	"github.com/warmreboot/warmreboot/internal/reboot"
)

// Record is what the journal keeps of a domain: enough to finish a reboot, or
// to fall back to cold, after the agent was killed at any point. A step of the
// agent is recorded after Xen has taken it; every step may be repeated.
type Record struct {
	// Format is recordFormat of the agent that wrote it.
	Format int `json:"format"`
	reboot.State
	Policy api.Policy `json:"policy"`
	// Boot is the boot id of dom0 that the rest is about; after another boot
	// of the machine Xen has forgotten everything.
	Boot string `json:"boot"`
	// Accounts are those of the disks of the domain that was last seen.
	Accounts map[ident.VBD]*custody.Account `json:"accounts,omitempty"`
	// Refusals are those of all reboots, by vbd.
	Refusals map[ident.VBD]*api.Refusals `json:"refusals,omitempty"`
}

// Asker is who asked for a reboot.
type Asker = reboot.Asker

// A journal file is two lines: the CRC-32C of the second, in hexadecimal, and
// the record as JSON.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errCorrupt = errors.New("journal: corrupt record")

// recordFormat changes whenever what a record says of disks changes its meaning.
const recordFormat = 1

func encodeRecord(r *Record) ([]byte, error) {
	out := *r
	out.Format = recordFormat
	body, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x\n%s\n", crc32.Checksum(body, castagnoli), body), nil
}

// decodeRecord is encodeRecord's inverse; errCorrupt for anything else.
func decodeRecord(raw []byte) (*Record, error) {
	head, body, ok := bytes.Cut(raw, []byte("\n"))
	sum, err := hex.DecodeString(string(head))
	body = bytes.TrimSuffix(body, []byte("\n"))
	if !ok || err != nil || len(sum) != 4 {
		return nil, errCorrupt
	}
	want := uint32(sum[0])<<24 | uint32(sum[1])<<16 | uint32(sum[2])<<8 | uint32(sum[3])
	if crc32.Checksum(body, castagnoli) != want {
		return nil, errCorrupt
	}
	var r Record
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	for v, a := range r.Accounts {
		if a == nil {
			delete(r.Accounts, v)
		}
	}
	for v, n := range r.Refusals {
		if n == nil {
			delete(r.Refusals, v)
		}
	}
	if r.Format != recordFormat {
		// Of an older or newer agent: what it knew of the disks does not count.
		r.Accounts = nil
	}
	return &r, nil
}

// Records is the agent's use of the journal.
type Records interface {
	Load() ([]*Record, error)
	Save(*Record) error
	Remove(ident.UUID) error
}

// History is where the agent enters the reboots that have ended. A reboot that
// is entered again, because the agent was killed, has to count once.
type History interface {
	Add(api.HistoryEntry) (id uint64, err error)
}

// Journal keeps records in a directory, a file for each UUID. A record is
// replaced as a whole: a crash leaves the old or the new one.
type Journal struct{ dir string }

// OpenJournal opens or makes the journal in dir.
func OpenJournal(dir string) (*Journal, error) {
	if err := os.MkdirAll(filepath.Join(dir, "domains"), 0o700); err != nil {
		return nil, err
	}
	return &Journal{dir}, nil
}

const recordSuffix = ".json"

func (j *Journal) path(uuid ident.UUID) string {
	return filepath.Join(j.dir, "domains", uuid.String()+recordSuffix)
}

// Load returns all records. A corrupt one is set aside, and named in the
// error; the others are returned nevertheless.
func (j *Journal) Load() ([]*Record, error) {
	names, err := os.ReadDir(filepath.Join(j.dir, "domains"))
	if err != nil {
		return nil, err
	}
	var all []*Record
	var errs []error
	for _, n := range names {
		id, ok := strings.CutSuffix(n.Name(), recordSuffix)
		if !ok {
			continue
		}
		uuid, err := ident.ParseUUID(id)
		if err != nil {
			continue
		}
		path := j.path(uuid)
		raw, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r, err := decodeRecord(raw)
		if err == nil && r.UUID != uuid {
			err = errCorrupt
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err), os.Rename(path, path+".corrupt"))
			continue
		}
		all = append(all, r)
	}
	return all, errors.Join(errs...)
}

// Save replaces a record, durably.
func (j *Journal) Save(r *Record) error {
	raw, err := encodeRecord(r)
	if err != nil {
		return err
	}
	return replaceFile(j.path(r.UUID), raw)
}

// Remove forgets a record.
func (j *Journal) Remove(uuid ident.UUID) error {
	err := os.Remove(j.path(uuid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// replaceFile writes a file so that a crash leaves the old or the new content.
func replaceFile(path string, raw []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
