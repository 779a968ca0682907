package toolstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/warmreboot/warmreboot/ident"
)

// Domain is one that runs.
type Domain struct {
	Domid ident.Domid
	UUID  ident.UUID
	Name  string
}

// Lifecycle ends domains as if they had rebooted. Who has created them creates them
// again, whichever toolstack that is.
type Lifecycle interface {
	// Reboot asks the guest to reboot and returns when it has been asked.
	Reboot(ctx context.Context, domid ident.Domid) error
	// ForceReboot takes the domain down without the guest's help, as if it had
	// rebooted.
	ForceReboot(ctx context.Context, domid ident.Domid) error
}

// Kernel is what the toolstack boots a domain with.
type Kernel struct {
	File, Initrd string // of dom0; Initrd may be ""
	Cmdline      string
	// Once is the folder of a trial (package bootonce), which says at each boot what is
	// booted instead; "" if there is none. libxl then asks the driver's Loader.
	Once string
}

// Driver is a toolstack, as far as something is to be asked of it. Domains are named
// to it by what no name can be mistaken for: domid and UUID.
type Driver interface {
	Lifecycle
	// Name is XL or Libvirt.
	Name() string
	// Can returns nil if a capability is there, else why not and what to do.
	Can(Capability) error
	// Owner says who would create a domain again. Its Toolstack is another one's, or
	// "", if the domain is not the driver's.
	Owner(ident.Domid, ident.UUID, string) (Owner, error)
	// Kernel returns what the domain will be booted with next, SetKernel changes that;
	// what runs goes on. It stays so for all following boots, until it is set again.
	// A domain that boots by a loader of its own has none: ErrOwnKernel.
	Kernel(context.Context, Domain) (Kernel, error)
	SetKernel(context.Context, Domain, Kernel) error
	// CanTry returns what kind of a guest would boot the kernels of a trial: "pvh" or
	// "pv"; or why libxl would run no loader for it.
	CanTry(Domain) (string, error)
	// Create makes a domain of a configuration in the toolstack's own language, and
	// lets it run. It is an error if it is there already.
	Create(ctx context.Context, file string) error
	// Recreate makes a domain again that has gone, though it should not have, with that
	// kernel: by its definition, or, if the toolstack has none, by a configuration file,
	// whatever kernel that names.
	Recreate(ctx context.Context, d Domain, k Kernel, file string) error
	// Destroy ends a domain at once, for good. That it is gone already is no error.
	Destroy(context.Context, Domain) error
}

// Capability is something that a driver may not be able to do on a host. Reboot,
// ForceReboot and Owner need nothing of the toolstack's programs.
type Capability string

// The capabilities.
const (
	Creates    Capability = "create domains"
	SetsKernel Capability = "set a domain's kernel"
	Destroys   Capability = "destroy domains"
)

// ErrOwnKernel is that a domain's kernel is chosen by a loader in the guest.
var ErrOwnKernel = errors.New("the domain boots a kernel of its own, by a boot loader: the toolstack does not choose it")

// ErrNoDefinition is that libvirt creates a domain once only.
var ErrNoDefinition = errors.New("libvirt has no definition of it")

// Run runs a program of the toolstack's and returns what it prints.
type Run func(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error)

// Command runs a program on this machine. The error has what it says.
func Command(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, name, args...)
	var said bytes.Buffer
	c.Stdin, c.Stderr = bytes.NewReader(stdin), &said
	out, err := c.Output()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.Join(strings.Fields(said.String()), " "))
	}
	return out, nil
}

// installed returns nil if a program is there.
func installed(program, from string) error {
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("%s is not installed: install %s", program, from)
	}
	return nil
}

// tries returns nil if a driver can set a kernel that is on trial.
func (k Kernel) tries(loader string) error {
	if k.Once != "" && !filepath.IsAbs(loader) {
		return fmt.Errorf("kernel: there is no loader to try it by (%q)", loader)
	}
	return nil
}

// configFile checks what a toolstack's program is given as a file: no name can be
// taken for an option.
func configFile(file string) error {
	if !filepath.IsAbs(file) {
		return fmt.Errorf("configuration %q: the path must be absolute", file)
	}
	return regular(file)
}

func regular(file string) error {
	st, err := os.Stat(file)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", file)
	}
	return err
}

// check returns why a domain could not be booted with k: else it would go down and
// not come back.
func (k Kernel) check() error {
	for _, file := range []string{k.File, k.Initrd} {
		if file == "" && k.File != "" {
			continue
		}
		if !filepath.IsAbs(file) {
			return fmt.Errorf("kernel %q: the path must be absolute", file)
		}
		if err := regular(file); err != nil {
			return fmt.Errorf("kernel: %w", err)
		}
	}
	if k.Once != "" && !filepath.IsAbs(k.Once) {
		return fmt.Errorf("kernel: trial %q: the path must be absolute", k.Once)
	}
	for _, text := range []string{k.File, k.Initrd, k.Cmdline, k.Once} {
		if strings.ToValidUTF8(text, "") != text || strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Errorf("kernel: %q has what cannot be printed", text)
		}
	}
	return nil
}
