package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// publicHeaders is where Xen has its ABI.
const publicHeaders = "xen/include/public"

// TestABIReference prints sizes, offsets and numbers from the patched headers
// and compares them with the committed reference, with which the Go structures
// are compared by the unit tests of xenctl/internal/abi.
func TestABIReference(t *testing.T) {
	t.Parallel()
	cache, checkout, series, tools := patchedXen(t)
	dir := labDir(t, cache) // the compiler's root has the cache's folder, not the machine's /tmp
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := cache.Patched(t.Context(), series, dir, headers(t, cache, series)...); err != nil {
		t.Fatal(err)
	}
	abi := filepath.Join(checkout.Dir, "xenctl/internal/abi/testdata")
	source, err := os.ReadFile(filepath.Join(abi, "layout.c"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "layout.c"), source, 0o644); err != nil {
		t.Fatal(err)
	}
	// The tools' headers are those of include/public under the name xen/.
	line := "mkdir include && ln -s ../" + publicHeaders + " include/xen && gcc -Wall -D__XEN_TOOLS__ -I include layout.c -o layout"
	if err := tools.Run(t.Context(), dir, "sh", "-c", line); err != nil {
		t.Fatal(err)
	}
	got, err := tools.Command(t.Context(), dir, "./layout").Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(abi, "layout.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("the headers say:\n%s\ntestdata/layout.txt is not that", got)
	}
}

// headers lists the public headers, those that the series adds as well.
func headers(t *testing.T, cache *build.Cache, series build.Series) []string {
	t.Helper()
	pristine, err := cache.Pristine(t.Context(), series.Upstream)
	if err != nil {
		t.Fatal(err)
	}
	files := []string{publicHeaders + "/warmcache.h"}
	err = fs.WalkDir(os.DirFS(pristine), publicHeaders, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".h") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
