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
		return nil, fmt.Errorf("libvirt has no definition of domain %s (%s), which was created without: virsh define it", d.Name, d.UUID)
	}
	return l.virsh(ctx, nil, "dumpxml", "--inactive", "--security-info", d.UUID.String())
}

// Kernel implements Driver.
func (l LibvirtDriver) Kernel(ctx context.Context, d Domain) (Kernel, error) {
	raw, err := l.definition(ctx, d)
	if err != nil {
		return Kernel{}, err
	}
	return kernelOf(raw)
}

func kernelOf(definition []byte) (Kernel, error) {
	var v struct {
		Bootloader string `xml:"bootloader"`
		OS         struct {
			Kernel  string `xml:"kernel"`
			Initrd  string `xml:"initrd"`
			Cmdline string `xml:"cmdline"`
		} `xml:"os"`
	}
	if err := xml.Unmarshal(definition, &v); err != nil {
		return Kernel{}, fmt.Errorf("libvirt's definition: %w", err)
	}
	if v.OS.Kernel == "" || v.Bootloader != "" {
		return Kernel{}, ErrOwnKernel
	}
	return Kernel{v.OS.Kernel, v.OS.Initrd, v.OS.Cmdline}, nil
}

// SetKernel implements Driver.
func (l LibvirtDriver) SetKernel(ctx context.Context, d Domain, k Kernel) error {
	if err := k.check(); err != nil {
		return err
	}
	raw, err := l.definition(ctx, d)
	if err != nil {
		return err
	}
	if _, err := kernelOf(raw); err != nil {
		return err
	}
	if raw, err = withKernel(raw, k); err != nil {
		return err
	}
	_, err = l.virsh(ctx, raw, "define", "/dev/stdin")
	return err
}

// withKernel returns a definition with another kernel. All else is left as it is, byte
// for byte: what this program does not know of must not be lost.
func withKernel(definition []byte, k Kernel) ([]byte, error) {
	var out bytes.Buffer
	var path []string
	var copied, begin int64 // up to where it is copied; where an element to be left out begins
	d := xml.NewDecoder(bytes.NewReader(definition))
	replaced := func() bool {
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
			if path = append(path, token.Name.Local); replaced() {
				begin = before
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
					if e.text != "" {
						fmt.Fprintf(&out, "<%s>", e.name)
						if err := xml.EscapeText(&out, []byte(e.text)); err != nil {
							return nil, err
						}
						fmt.Fprintf(&out, "</%s>", e.name)
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
