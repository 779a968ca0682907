package internal_test

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// TestLicences: every file has a licence, its own or by REUSE.toml, and the right one:
// Apache-2.0 for all Go code, and GPL-2.0-only for what is part of Xen, Linux or QEMU, or
// compiled with their code.
func TestLicences(t *testing.T) {
	raw, err := os.ReadFile("../REUSE.toml")
	if err != nil {
		t.Fatal(err)
	}
	var reuse struct {
		Version     int `toml:"version"`
		Annotations []struct {
			Path       any    `toml:"path"`
			Precedence string `toml:"precedence"`
			Copyright  string `toml:"SPDX-FileCopyrightText"`
			Licence    string `toml:"SPDX-License-Identifier"`
		} `toml:"annotations"`
	}
	if err := toml.Unmarshal(raw, &reuse); err != nil || reuse.Version != 1 {
		t.Fatalf("%+v, %v", reuse, err)
	}
	used := map[string]bool{}
	annotated := func(name string) (licence string) {
		for _, a := range reuse.Annotations {
			if a.Precedence != "closest" || a.Copyright == "" {
				t.Fatalf("%+v", a)
			}
			paths := []any{a.Path}
			if list, ok := a.Path.([]any); ok {
				paths = list
			}
			for _, p := range paths {
				below, ok := strings.CutSuffix(p.(string), "**")
				if !ok {
					t.Fatalf("path %q: only folders", p)
				}
				if strings.HasPrefix(name, below) {
					licence, used[below] = a.Licence, true
				} else if _, known := used[below]; !known {
					used[below] = false
				}
			}
		}
		return licence
	}
	own := regexp.MustCompile(`^\W*SPDX-License-Identifier: (\S+)`)
	files := 0
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator)))
		if d.IsDir() {
			if name == "build" || name != ".." && strings.HasPrefix(d.Name(), ".") && name != ".ci" {
				return filepath.SkipDir
			}
			return nil
		}
		licence := annotated(name)
		if !slices.Contains([]string{".go", ".c", ".h", ".S", ".patch"}, filepath.Ext(name)) {
			if licence == "" {
				t.Errorf("%s has no licence", name)
			}
			return nil
		}
		files++
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for i := 0; i < 3 && filepath.Ext(name) != ".patch" && lines.Scan(); i++ {
			if m := own.FindStringSubmatch(lines.Text()); m != nil {
				licence = m[1]
			}
		}
		want := []string{"GPL-2.0", "GPL-2.0-only"} // one is the other's former name
		switch {
		case filepath.Ext(name) == ".go":
			want = []string{"Apache-2.0"}
		case strings.HasPrefix(name, "xenctl/"): // of Xen's public headers, which are
			want = []string{"MIT"}
		}
		if !slices.Contains(want, licence) {
			t.Errorf("%s is under %q, should be under %s", name, licence, want[len(want)-1])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 300 {
		t.Errorf("only %d files looked at", files)
	}
	for below, any := range used {
		if !any {
			t.Errorf("REUSE.toml: nothing is below %s", below)
		}
	}
}
