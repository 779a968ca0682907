package agent

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// writeTar streams every regular file under root. Only names, sizes and bytes
// matter to the reader.
func writeTar(w io.Writer, root string) error {
	archive := tar.NewWriter(w)
	err := eachFile(root, func(path string) error {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if err := archive.WriteHeader(&tar.Header{Name: name, Size: info.Size(), Mode: 0o644}); err != nil {
			return err
		}
		_, err = io.Copy(archive, file)
		return err
	})
	return errors.Join(err, archive.Close())
}

// SumTar returns the SHA-256 of every file in a tar stream.
//
// Hashing is left to the receiver: on the emulated processor it takes longer
// than everything else that the demo does.
func SumTar(r io.Reader) (Sums, error) {
	sums := make(Sums)
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return sums, nil
		}
		if err != nil {
			return nil, err
		}
		hash := sha256.New()
		if _, err := io.Copy(hash, archive); err != nil {
			return nil, err
		}
		sums[header.Name] = hex.EncodeToString(hash.Sum(nil))
	}
}
