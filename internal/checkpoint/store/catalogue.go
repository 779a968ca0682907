package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// The catalogue is opened for each transaction only, as bbolt locks the file
// against readers for as long as a writer has it open.
const catalogueName = "catalogue.bolt"

var (
	keptBucket = []byte("checkpoints") // epoch, big endian → Info, packed
	metaBucket = []byte("meta")
	lastKey    = []byte("last") // the highest epoch that was ever in
)

// catalogueWait is how long another's transaction may take.
const catalogueWait = 30 * time.Second

func epochKey(e Epoch) []byte { return binary.BigEndian.AppendUint32(nil, uint32(e)) }

func openCatalogue(dir string, options bbolt.Options) (*bbolt.DB, error) {
	path := filepath.Join(dir, catalogueName)
	options.Timeout = catalogueWait
	db, err := bbolt.Open(path, 0o600, &options)
	if errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return db, nil
}

// readCatalogue returns the kept checkpoints, oldest first, and the highest epoch
// that the catalogue has ever had. A folder without one has none.
func readCatalogue(dir string) (infos []Info, last Epoch, err error) {
	db, err := openCatalogue(dir, bbolt.Options{ReadOnly: true})
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(metaBucket); b != nil {
			if v := b.Get(lastKey); len(v) == 4 {
				last = Epoch(binary.BigEndian.Uint32(v))
			}
		}
		b := tx.Bucket(keptBucket)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			if len(k) != 4 {
				return damaged("catalogue: a key of %d bytes", len(k))
			}
			var before *Info
			if n := len(infos); n > 0 {
				before = &infos[n-1]
			}
			i, err := unpackInfo(v, before)
			if err != nil {
				return err
			}
			i.Epoch = Epoch(binary.BigEndian.Uint32(k))
			infos = append(infos, i)
			return nil
		})
	})
	return infos, last, errors.Join(err, db.Close())
}

// updateCatalogue adds checkpoints and removes others, in one transaction.
func updateCatalogue(dir string, o Options, add []Info, remove []Epoch) error {
	db, err := openCatalogue(dir, bbolt.Options{NoSync: o.noSync})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists(metaBucket)
		if err != nil {
			return err
		}
		kept, err := tx.CreateBucketIfNotExists(keptBucket)
		if err != nil {
			return err
		}
		for _, i := range add {
			v, err := packInfo(i)
			if err != nil {
				return err
			}
			if err := errors.Join(kept.Put(epochKey(i.Epoch), v), meta.Put(lastKey, epochKey(i.Epoch))); err != nil {
				return err
			}
		}
		for _, e := range remove {
			if err := kept.Delete(epochKey(e)); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, db.Close())
}

// newCatalogue makes an empty one.
func newCatalogue(path string, o Options) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: o.noSync})
	if err != nil {
		return err
	}
	return db.Close()
}
