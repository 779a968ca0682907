package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/demo"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	parts, checkout, cache := prepare(t, lab.Variant{})
	dir, report := labDir(t, cache), "demo"
	if *newerKernel { // may run beside the other
		dir, report = dir+"-newer-kernel", "demo-newer-kernel"
	}
	err := demo.Run(t.Context(), parts, dir, filepath.Join(checkout.Dir, "build", report), os.Stdout, func(what string) { t.Log(what) })
	if err != nil {
		t.Fatal(err)
	}
}
