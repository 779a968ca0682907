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
	report := "demo"
	if *newerKernel {
		report = "demo-newer-kernel"
	}
	err := demo.Run(t.Context(), parts, labDir(t, cache), filepath.Join(checkout.Dir, "build", report), os.Stdout, func(what string) { t.Log(what) })
	if err != nil {
		t.Fatal(err)
	}
}
