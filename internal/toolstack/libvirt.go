package toolstack

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/warmreboot/warmreboot/ident"
)

// LibvirtDriver is libvirt, asked by virsh. Its daemon creates a domain again, by the
// definition that it has of it; that may be changed while the domain runs.
type LibvirtDriver struct {
	Lifecycle
	Host Host
	Run  Run
	// Loader is Xl.Loader. A profile of AppArmor's lets libvirtd run what is in the
	// folders of programs only.
	Loader string
}

var _ Driver = LibvirtDriver{}

// Name implements Driver.
func (LibvirtDriver) Name() string { return Libvirt }

// Can implements Driver.
func (LibvirtDriver) Can(Capability) error { return installed("virsh", "libvirt-clients") }

// Owner implements Driver.
func (l LibvirtDriver) Owner(domid ident.Domid, uuid ident.UUID, name string) (Owner, error) {
	return l.Host.Owner(domid, uuid, name)
}

func (l LibvirtDriver) virsh(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	return l.Run(ctx, stdin, "virsh", append([]string{"-q", "-c", "xen:///system"}, args...)...)
}

// Create implements Driver: it defines the domain, and starts it.
func (l LibvirtDriver) Create(ctx context.Context, file string) error {
	if err := configFile(file); err != nil {
		return err
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var config struct {
		UUID string `xml:"uuid"`
	}
	if err := xml.Unmarshal(raw, &config); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	uuid, err := ident.ParseUUID(strings.TrimSpace(config.UUID))
	if err != nil {
		return fmt.Errorf("%s: it must have a uuid: %w", file, err)
	}
	running, err := l.listed(ctx, "--state-running", "--state-paused")
	if err != nil {
		return err
	}
	if slices.Contains(running, uuid.String()) {
		return fmt.Errorf("%s: domain %s runs already", file, uuid)
	}
	if _, err := l.virsh(ctx, raw, "define", "/dev/stdin"); err != nil {
		return err
	}
	_, err = l.virsh(ctx, nil, "start", uuid.String())
	return err
}

// Recreate implements Driver.
func (l LibvirtDriver) Recreate(ctx context.Context, d Domain, k Kernel, _ string) error {
	if err := l.SetKernel(ctx, d, k); err != nil {
		return err
	}
	_, err := l.virsh(ctx, nil, "start", d.UUID.String())
	return err
}

// listed returns the UUIDs of domains.
func (l LibvirtDriver) listed(ctx context.Context, which ...string) ([]string, error) {
	out, err := l.virsh(ctx, nil, append([]string{"list", "--uuid"}, which...)...)
	return strings.Fields(string(out)), err
}

// Destroy implements Driver. It stays defined.
func (l LibvirtDriver) Destroy(ctx context.Context, d Domain) error {
	if _, err := os.Stat(l.Host.userdata(d.Domid, d.UUID, "libvirt-xml")); errors.Is(err, os.ErrNotExist) {
		return nil // it is gone, or another one has its UUID now
	}
	_, err := l.virsh(ctx, nil, "destroy", d.UUID.String())
	return err
}

// definition returns what a domain will be created by when it reboots.
func (l LibvirtDriver) definition(ctx context.Context, d Domain) ([]byte, error) {
	persistent, err := l.listed(ctx, "--all", "--persistent")
	if err != nil {
		return nil, err
	}
	if !slices.Contains(persistent, d.UUID.String()) {
		return nil, fmt.Errorf("%w: domain %s (%s), which was created without: virsh define it", ErrNoDefinition, d.Name, d.UUID)
	}
	return l.virsh(ctx, nil, "dumpxml", "--inactive", "--security-info", d.UUID.String())
}

// Kernel implements Driver.
func (l LibvirtDriver) Kernel(ctx context.Context, d Domain) (Kernel, error) {
	raw, err := l.definition(ctx, d)
	if err != nil {
		return Kernel{}, err
	}
	return l.kernelOf(raw)
}

func (l LibvirtDriver) kernelOf(definition []byte) (Kernel, error) {
	var v struct {
		Bootloader string `xml:"bootloader"`
		Args       string `xml:"bootloader_args"`
		OS         struct {
			Kernel  string `xml:"kernel"`
			Initrd  string `xml:"initrd"`
			Cmdline string `xml:"cmdline"`
		} `xml:"os"`
	}
	if err := xml.Unmarshal(definition, &v); err != nil {
		return Kernel{}, fmt.Errorf("libvirt's definition: %w", err)
	}
	if v.OS.Kernel == "" || v.Bootloader != "" && v.Bootloader != l.Loader {
		return Kernel{}, ErrOwnKernel
	}
	k := Kernel{File: v.OS.Kernel, Initrd: v.OS.Initrd, Cmdline: v.OS.Cmdline}
	if v.Bootloader != "" {
		k.Once = v.Args
	}
	return k, nil
}

// SetKernel implements Driver.
func (l LibvirtDriver) SetKernel(ctx context.Context, d Domain, k Kernel) error {
	if err := errors.Join(k.check(), k.tries(l.Loader)); err != nil {
		return err
	}
	if strings.ContainsAny(k.Once, " \t") {
		return fmt.Errorf("kernel: trial %q: libvirt takes blanks for what is between arguments", k.Once)
	}
	raw, err := l.definition(ctx, d)
	if err != nil {
		return err
	}
	if _, err := l.kernelOf(raw); err != nil {
		return err
	}
	if raw, err = withKernel(raw, k, l.Loader); err != nil {
		return err
	}
	_, err = l.virsh(ctx, raw, "define", "/dev/stdin")
	return err
}

// CanTry implements Driver: what libxl has stored is libvirt's doing, too.
func (l LibvirtDriver) CanTry(d Domain) (string, error) { return l.Host.canTry(d) }

func element(out *bytes.Buffer, name, text string) error {
	fmt.Fprintf(out, "<%s>", name)
	err := xml.EscapeText(out, []byte(text))
	fmt.Fprintf(out, "</%s>", name)
	return err
}

// withKernel returns a definition with another kernel. All else is left as it is, byte
// for byte: what this program does not know of must not be lost.
func withKernel(definition []byte, k Kernel, loader string) ([]byte, error) {
	var out bytes.Buffer
	var path []string
	var copied, begin int64 // up to where it is copied; where an element to be left out begins
	d := xml.NewDecoder(bytes.NewReader(definition))
	replaced := func() bool {
		if len(path) == 2 && path[0] == "domain" && slices.Contains([]string{"bootloader", "bootloader_args"}, path[1]) {
			return true
		}
		return len(path) == 3 && path[0] == "domain" && path[1] == "os" && slices.Contains([]string{"kernel", "initrd", "cmdline"}, path[2])
	}
	done := false
	for {
		before := d.InputOffset()
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("libvirt's definition: %w", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			path = append(path, token.Name.Local)
			switch {
			case replaced():
				begin = before
			case len(path) == 2 && path[0] == "domain" && path[1] == "os" && k.Once != "":
				out.Write(definition[copied:before])
				copied = before
				if err := element(&out, "bootloader", loader); err != nil {
					return nil, err
				}
				if err := element(&out, "bootloader_args", k.Once); err != nil {
					return nil, err
				}
			}
		case xml.EndElement:
			if replaced() {
				out.Write(definition[copied:begin])
				copied = d.InputOffset()
			}
			if len(path) == 2 && path[0] == "domain" && path[1] == "os" {
				out.Write(definition[copied:before])
				copied, done = before, true
				for _, e := range []struct{ name, text string }{{"kernel", k.File}, {"initrd", k.Initrd}, {"cmdline", k.Cmdline}} {
					if e.text == "" {
						continue
					}
					if err := element(&out, e.name, e.text); err != nil {
						return nil, err
					}
				}
			}
			path = path[:len(path)-1]
		}
	}
	if !done {
		return nil, errors.New("libvirt's definition has no <os>")
	}
	out.Write(definition[copied:])
	return out.Bytes(), nil
}
