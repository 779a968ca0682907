package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/custody"
	"github.com/warmreboot/warmreboot/internal/reboot"
	"github.com/warmreboot/warmreboot/internal/store"
	"github.com/warmreboot/warmreboot/internal/text"
)

// Record is what the journal keeps of a domain: enough to finish a reboot, or
// to fall back to cold, after the agent was killed at any point. A step of the
// agent is recorded after Xen has taken it; every step may be repeated.
type Record struct {
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

// recordKind is what a journal file is. Its version changes whenever what a record
// says of disks changes its meaning: of an older one, the accounts do not count.
var recordKind = store.Kind{Name: "domain", Version: 2, Limit: 1 << 20}

// accountsSince is the first version whose accounts mean what they mean today.
const accountsSince = 1

func encodeRecord(r *Record) ([]byte, error) {
	body, err := text.Marshal(r)
	if err != nil {
		return nil, err
	}
	return recordKind.Encode(body)
}

// decodeRecord is encodeRecord's inverse. The error wraps store.ErrDamaged or
// store.ErrNewer.
func decodeRecord(raw []byte) (*Record, error) {
	version, body, err := decodeFirst(raw)
	if err != nil {
		version, body, err = recordKind.Decode(raw)
	}
	if err != nil {
		return nil, err
	}
	var r Record
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrDamaged, err)
	}
	maps.DeleteFunc(r.Accounts, func(_ ident.VBD, a *custody.Account) bool { return a == nil })
	maps.DeleteFunc(r.Refusals, func(_ ident.VBD, n *api.Refusals) bool { return n == nil })
	if version < accountsSince {
		r.Accounts = nil
	}
	return &r, nil
}

// decodeFirst decodes what 0.1.0 wrote: a line with the CRC-32C of the next one, in
// hexadecimal, and the record, which says its version itself.
func decodeFirst(raw []byte) (version int, body []byte, err error) {
	head, body, ok := bytes.Cut(raw, []byte("\n"))
	body = bytes.TrimSuffix(body, []byte("\n"))
	if !ok || string(head) != fmt.Sprintf("%08x", crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))) {
		return 0, nil, store.ErrDamaged
	}
	var said struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", store.ErrDamaged, err)
	}
	if said.Format != 1 { // of before there was one, in which accounts meant something else
		return 0, body, nil
	}
	return 1, body, nil
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
type Journal struct{ dir store.Dir }

// OpenJournal opens or makes the journal in the state directory.
func OpenJournal(state string) (*Journal, error) {
	j := &Journal{store.Dir{Path: filepath.Join(state, "domains")}}
	return j, j.dir.Make()
}

const recordSuffix = ".json"

func recordName(uuid ident.UUID) string { return uuid.String() + recordSuffix }

// Load returns all records. One that is damaged is set aside, and named in the error,
// as is one that merely cannot be read; the others are returned nevertheless.
func (j *Journal) Load() ([]*Record, error) {
	names, err := j.dir.Names(recordSuffix)
	if err != nil {
		return nil, err
	}
	all := []*Record{}
	var errs []error
	for _, name := range names {
		uuid, err := ident.ParseUUID(strings.TrimSuffix(name, recordSuffix))
		if err != nil {
			continue
		}
		path := filepath.Join(j.dir.Path, name)
		raw, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r, err := decodeRecord(raw)
		if err == nil && r.UUID != uuid {
			err = fmt.Errorf("%w: it is of domain %s", store.ErrDamaged, r.UUID)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
			if errors.Is(err, store.ErrDamaged) {
				to, aside := j.dir.SetAside(name)
				err = errors.Join(fmt.Errorf("%w; it is now %s", err, to), aside)
			}
			errs = append(errs, err)
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
	return j.dir.Replace(recordName(r.UUID), raw)
}

// Remove forgets a record.
func (j *Journal) Remove(uuid ident.UUID) error { return j.dir.Remove(recordName(uuid)) }
