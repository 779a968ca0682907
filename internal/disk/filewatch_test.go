package disk

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFileWatch(t *testing.T) {
	for name, touch := range map[string]func(path string) error{
		"write": func(p string) error {
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte("x"), 3)
			return err
		},
		"write and restore the times": func(p string) error {
			st, err := os.Stat(p)
			if err != nil {
				return err
			}
			if err := os.WriteFile(p, []byte("other"), 0o600); err != nil {
				return err
			}
			return os.Chtimes(p, st.ModTime(), st.ModTime())
		},
		"replace": func(p string) error {
			if err := os.WriteFile(p+".new", []byte("other"), 0o600); err != nil {
				return err
			}
			return os.Rename(p+".new", p)
		},
		"remove": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.img")
			if err := os.WriteFile(path, []byte("image"), 0o600); err != nil {
				t.Fatal(err)
			}
			w, err := WatchFile(path)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if _, err := os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(filepath.Dir(path), "b.img"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
			if b := w.Breach(); b != "" {
				t.Fatalf("breach before: %s", b)
			}
			if err := touch(path); err != nil {
				t.Fatal(err)
			}
			for i := 0; w.Breach() == ""; i++ {
				if i == 200 {
					t.Fatal("not noticed")
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}
