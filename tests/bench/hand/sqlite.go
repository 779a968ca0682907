package hand

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// MakeDatabase makes an SQLite database of so many rows, of some 400 bytes each.
func MakeDatabase(path string, rows int64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// There may be one that was not finished.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return sqlite(path, fmt.Sprintf(`CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price INTEGER, note BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
INSERT INTO item SELECT i, 'item-' || (i * 7919 %% %[1]d), i %% 1000, zeroblob(350) FROM n;
CREATE INDEX item_name ON item (name);
`, rows))
}

// Query makes so many queries to such a database, which follow from seed: six of
// ten by key, three by the index, one over a range of 100 rows.
func Query(path string, rows, count int64, seed uint64, disk string) (Result, error) {
	order := rand.New(rand.NewPCG(seed, 1))
	var queries strings.Builder
	for i := range count {
		row := order.Int64N(rows) + 1
		switch {
		case i%10 < 6:
			fmt.Fprintf(&queries, "SELECT price, length(note) FROM item WHERE id = %d;\n", row)
		case i%10 < 9:
			fmt.Fprintf(&queries, "SELECT price, length(note) FROM item WHERE name = 'item-%d';\n", row%rows)
		default:
			fmt.Fprintf(&queries, "SELECT sum(price), sum(length(note)) FROM item WHERE id BETWEEN %d AND %d;\n", row, row+99)
		}
	}
	r := Result{Files: 1}
	err := measure(&r, disk, func() error { return sqlite(path, queries.String()) })
	return r, err
}

// sqlite runs statements with SQLite's own shell.
func sqlite(path, statements string) error {
	command := exec.Command("sqlite3", "-bail", path)
	command.Stdin = strings.NewReader(statements)
	var failure bytes.Buffer
	command.Stderr = &failure
	if err := command.Run(); err != nil {
		return fmt.Errorf("sqlite3 %s: %w: %s", path, err, bytes.TrimSpace(failure.Bytes()))
	}
	return nil
}
