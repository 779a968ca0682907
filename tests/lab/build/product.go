package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// Checkout is the repository that is being tested.
type Checkout struct{ Dir string }

// Open returns the machine's cache, and the repository that the working
// directory is in.
func Open() (*Cache, Checkout, error) {
	checkout, err := findCheckout()
	if err != nil {
		return nil, Checkout{}, err
	}
	cache, err := openCache()
	return cache, checkout, err
}

func findCheckout() (Checkout, error) {
	dir, err := os.Getwd()
	if err != nil {
		return Checkout{}, err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "guest-kernel-patches")); err == nil {
			return Checkout{Dir: dir}, nil
		}
	}
	return Checkout{}, errors.New("not inside a checkout of warmreboot")
}

// Hypervisor returns the series for Xen, on the best base that can be had.
func (c Checkout) Hypervisor(ctx context.Context, cache *Cache) (Series, error) {
	return c.series(ctx, cache, "hypervisor-patches")
}

// QEMU returns the series of the lab's emulator, on the best base that can be had.
func (c Checkout) QEMU(ctx context.Context, cache *Cache) (Series, error) {
	return c.series(ctx, cache, "tests/lab/qemu")
}

// Bochs returns the source of the lab's other emulator, which has no patches.
func (c Checkout) Bochs(ctx context.Context, cache *Cache) (Upstream, error) {
	series, err := c.series(ctx, cache, "tests/lab/bochs")
	return series.Upstream, err
}

// GuestKernel returns the guest kernel's series, on the best base that can be had.
func (c Checkout) GuestKernel(ctx context.Context, cache *Cache) (Series, error) {
	return c.series(ctx, cache, "guest-kernel-patches")
}

// NewerGuestKernel returns the guest kernel's series for the newer Linux.
func (c Checkout) NewerGuestKernel(ctx context.Context, cache *Cache) (Series, error) {
	return c.series(ctx, cache, "guest-kernel-patches/7.3")
}

func (c Checkout) series(ctx context.Context, cache *Cache, dir string) (Series, error) {
	s, err := ReadSeries(filepath.Join(c.Dir, dir))
	if err != nil {
		return s, err
	}
	return cache.settle(ctx, s)
}

// GuestConfig is the guest kernel's configuration.
func (c Checkout) GuestConfig() string {
	return filepath.Join(c.Dir, "guest-kernel-patches", "config")
}

// GuestDebugConfig is what a kernel for debugging has beside GuestConfig.
func (c Checkout) GuestDebugConfig() string {
	return c.GuestConfig() + ".debug"
}

// Agent builds the lab's agent.
func (c *Cache) Agent(ctx context.Context, tools Root, from Checkout) (string, error) {
	path := filepath.Join(from.Dir, "build", "lab", "labagent")
	return path, c.goBuild(ctx, tools, from, path, "./tests/lab/cmd/labagent", "CGO_ENABLED=0")
}

// Product is the programs under test.
type Product struct{ CLI, Daemon string }

// Product builds warmreboot and warmrebootd, the latter with libxl.
func (c *Cache) Product(ctx context.Context, tools Root, from Checkout) (Product, error) {
	dir := filepath.Join(from.Dir, "build", "lab")
	product := Product{CLI: filepath.Join(dir, "warmreboot"), Daemon: filepath.Join(dir, "warmrebootd")}
	if err := c.Xenlight(ctx, from); err != nil {
		return product, err
	}
	if err := c.goBuild(ctx, tools, from, product.CLI, "./cmd/warmreboot", "CGO_ENABLED=0"); err != nil {
		return product, err
	}
	return product, c.goBuild(ctx, tools, from, product.Daemon, "./cmd/warmrebootd", "CGO_ENABLED=1", "GOFLAGS=-tags=xenlight -overlay="+xenlightOverlay)
}

// xenlightOverlay is the file, below the checkout, that lays libxl's binding over
// the stand-in for it when a program is built.
const xenlightOverlay = "build/xenlight.json"

// standIn is the package that stands in for libxl's binding.
const standIn = "xenctl/libxl/xenlight"

// Xenlight writes xenlightOverlay, for the Go binding of libxl in the Xen tree that
// is built on.
func (c *Cache) Xenlight(ctx context.Context, from Checkout) error {
	series, err := from.Hypervisor(ctx, c)
	if err != nil {
		return err
	}
	pristine, err := c.Pristine(ctx, series.Upstream)
	if err != nil {
		return err
	}
	return from.overlayXenlight(filepath.Join(pristine, "tools/golang/xenlight"))
}

// overlayXenlight has the files of the binding in place of those of the stand-in.
func (c Checkout) overlayXenlight(binding string) error {
	replace := make(map[string]string)
	for _, dir := range []string{filepath.Join(c.Dir, standIn), binding} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			return err
		}
		if len(files) == 0 {
			return fmt.Errorf("no files of Go in %s", dir)
		}
		for _, file := range files {
			// What the binding does not have is as if it were not there.
			with := ""
			if dir == binding {
				with = file
			}
			replace[filepath.Join(c.Dir, standIn, filepath.Base(file))] = with
		}
	}
	text, err := json.MarshalIndent(map[string]any{"Replace": replace}, "", "\t")
	if err != nil {
		return err
	}
	target := filepath.Join(c.Dir, xenlightOverlay)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return os.WriteFile(target, text, 0o644)
}

// goBuild builds one program: with the root's Go where C is involved or the
// machine has no Go, else with the machine's.
func (c *Cache) goBuild(ctx context.Context, tools Root, from Checkout, output, source string, environment ...string) error {
	if _, err := exec.LookPath("go"); err != nil || slices.Contains(environment, "CGO_ENABLED=1") {
		return c.goBuildInRoot(ctx, tools, from, output, source, environment...)
	}
	command := c.hostGo(ctx, from, goBuildArguments(output, source)...)
	command.Env = append(command.Env, environment...)
	if err := runQuietly(command); err != nil {
		return fmt.Errorf("build %s: %w", source, err)
	}
	return nil
}

// goRelease is the Go that is used in the root: one that upstream still mends, from
// trixie's backports. go.mod asks for it. Makefile has it for machines without Go.
const goRelease = "1.26"

// goTool returns Go's command. It runs in the root, but lies in a folder of its own,
// so that another Go is no reason to build Xen and kernels again.
func (c *Cache) goTool(ctx context.Context) (string, error) {
	packages := []string{"golang-" + goRelease + "-go", "golang-" + goRelease + "-src"}
	dir, err := c.Entry(ctx, "go", KeyOf("go 1", packages), func(ctx context.Context, dir string) error {
		return c.extract(ctx, dir, packages, "trixie-backports")
	})
	return filepath.Join(dir, "usr/lib/go-"+goRelease+"/bin/go"), err
}

// goBuildInRoot builds one program with our Go and the root's compilers.
func (c *Cache) goBuildInRoot(ctx context.Context, tools Root, from Checkout, output, source string, environment ...string) error {
	proxy := os.Getenv("GOPROXY")
	if _, err := exec.LookPath("go"); err == nil {
		// The machine's Go knows how to reach the module proxy from here.
		if err := runQuietly(c.hostGo(ctx, from, "mod", "download")); err != nil {
			return fmt.Errorf("build %s: %w", source, err)
		}
		proxy = "off"
	}
	goTool, err := c.goTool(ctx)
	if err != nil {
		return err
	}
	command := tools.withBind(from.Dir, "/etc/ssl/certs").Command(ctx, from.Dir, append([]string{goTool}, goBuildArguments(output, source)...)...)
	command.Env = append(append(command.Env, goEnvironment(c)...), environment...)
	command.Env = append(command.Env, "GOPROXY="+proxy, "GOCACHE="+filepath.Join(c.Dir, "go-build"), "GOTOOLCHAIN=local")
	if err := runQuietly(command); err != nil {
		return fmt.Errorf("build %s: %w", source, err)
	}
	return nil
}

func goBuildArguments(output, source string) []string {
	return []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", output, source}
}

// goEnvironment makes a build the same whatever flags the machine has set for
// itself.
func goEnvironment(c *Cache) []string {
	return []string{"GOFLAGS=", "GOMODCACHE=" + filepath.Join(c.Dir, "go-mod")}
}

// hostGo is a command of the machine's Go.
func (c *Cache) hostGo(ctx context.Context, from Checkout, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = from.Dir
	command.Env = append(os.Environ(), goEnvironment(c)...)
	return command
}
