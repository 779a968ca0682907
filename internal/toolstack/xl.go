package toolstack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/warmreboot/warmreboot/ident"
)

// Xl is xl. An xl process waits for the end of each domain that it has created, and
// creates it again by what libxl has stored of its configuration.
type Xl struct {
	Lifecycle
	Host Host
	Run  Run
	// Beside is what `xl create` is begun by, so that the process which waits for the
	// domain is not the caller's child, and does not end with it: see Detached.
	Beside []string
	// Loader is the program that libxl is told to run where a kernel is on trial: one
	// that does what bootonce.Main does.
	Loader string
}

var _ Driver = Xl{}

// Detached is Xl.Beside for this machine: under systemd a unit of its own, else nothing,
// as xl makes itself a daemon.
func Detached() []string {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil
	}
	return []string{"systemd-run", "--quiet", "--collect", forking, "--"}
}

// What systemd-run waits for: that the process has made itself a daemon, or has ended.
const (
	forking = "--service-type=forking"
	oneshot = "--service-type=oneshot"
)

// Name implements Driver.
func (Xl) Name() string { return XL }

// Can implements Driver.
func (Xl) Can(c Capability) error {
	if c == SetsKernel { // by libxl's files
		return nil
	}
	return installed("xl", "xen-utils-common")
}

// Owner implements Driver.
func (x Xl) Owner(domid ident.Domid, uuid ident.UUID, name string) (Owner, error) {
	return x.Host.Owner(domid, uuid, name)
}

// Create implements Driver. xl itself refuses a second domain of one name.
func (x Xl) Create(ctx context.Context, file string) error { return x.create(ctx, file, nil) }

// create has xl create a domain by a file, to which it adds lines.
func (x Xl) create(ctx context.Context, file string, lines []string) error {
	if err := configFile(file); err != nil {
		return err
	}
	if strings.Contains(file, "=") {
		return fmt.Errorf("configuration %q: xl takes a path with = in it for a setting: give it another name", file)
	}
	args := append([]string{"xl", "create", file}, lines...)
	if len(x.Beside) > 0 { // systemd takes ${…} for a variable of the environment, and $$ for $
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "$", "$$")
		}
	}
	args = append(slices.Clone(x.Beside), args...)
	_, err := x.Run(ctx, nil, args[0], args[1:]...)
	return err
}

// Recreate implements Driver. What libxl had stored went with the domain; of what the
// file says of its kernel and its UUID, that which is added to it counts.
func (x Xl) Recreate(ctx context.Context, d Domain, k Kernel, file string) error {
	if file == "" {
		return fmt.Errorf("domain %s (%s): it is not known which configuration it was created by: xl create it", d.Name, d.UUID)
	}
	if err := k.check(); err != nil {
		return err
	}
	raw, err := os.ReadFile(file)
	var all []assignment
	if err == nil {
		all, err = parseConfig(raw)
	}
	if err == nil {
		err = about(all, d)
	}
	if err == nil {
		err = noLoader(all)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	var more settings
	more.text("uuid", d.UUID.String())
	more.text("kernel", k.File)
	more.text("ramdisk", k.Initrd) // "" is none, to libxl
	more.text("cmdline", k.Cmdline)
	if more.err != nil {
		return more.err
	}
	return x.create(ctx, file, more.lines)
}

// Destroy implements Driver. A domid is not given to another domain while a host is
// up, before 2¹⁵ others were.
func (x Xl) Destroy(ctx context.Context, d Domain) error {
	if _, err := os.Stat(x.Host.userdata(d.Domid, d.UUID, "libxl-json")); errors.Is(err, os.ErrNotExist) {
		return nil // libxl removes it with the domain
	}
	_, err := x.Run(ctx, nil, "xl", "destroy", fmt.Sprint(d.Domid))
	return err
}

// stored is a domain's configuration as libxl stores it (libxl_domain_config of
// libxl_types.idl), of which only the named fields are looked at.
type stored struct {
	all, build map[string]json.RawMessage
}

func parseStored(raw []byte) (s stored, err error) {
	if err := json.Unmarshal(bytes.TrimRight(raw, "\x00"), &s.all); err != nil {
		return s, err
	}
	return s, json.Unmarshal(s.all["b_info"], &s.build)
}

func (s stored) text(key string) string {
	var text string
	_ = json.Unmarshal(s.build[key], &text) // "" if it is not there
	return text
}

func (s stored) kernel(loader string) (Kernel, error) {
	k := Kernel{File: s.text("kernel"), Initrd: s.text("ramdisk"), Cmdline: s.text("cmdline")}
	if own := s.text("bootloader"); own != "" {
		var args []string
		if json.Unmarshal(s.build["bootloader_args"], &args) != nil || own != loader || len(args) != 1 {
			return Kernel{}, ErrOwnKernel
		}
		k.Once = args[0]
	}
	if k.File == "" {
		return Kernel{}, ErrOwnKernel
	}
	return k, nil
}

// guest is the kind of guest; an error says why libxl would run no loader for it, or
// would do more than that.
func (s stored) guest() (string, error) {
	var disks []struct {
		Format  string `json:"format"`
		Script  string `json:"script"`
		Backend string `json:"backend_domname"`
		Path    string `json:"pdev_path"`
	}
	if raw, ok := s.all["disks"]; ok {
		if err := json.Unmarshal(raw, &disks); err != nil {
			return "", err
		}
	}
	kind := ""
	for _, is := range []string{"pvh", "pv"} {
		if _, ok := s.build["type."+is]; ok {
			kind = is
		}
	}
	switch {
	case kind == "":
		return "", errors.New("it is an HVM guest: libxl runs no boot loader for such")
	case len(disks) == 0:
		return "", errors.New("it has no disk: libxl runs no boot loader for such")
	case disks[0].Format != "raw" || disks[0].Script != "" || disks[0].Backend != "":
		return "", fmt.Errorf("its first disk, %s, is not one that libxl has at hand (raw, of dom0, without a script): it would attach it to dom0 for each boot", disks[0].Path)
	}
	return kind, nil
}

// CanTry implements Driver.
func (x Xl) CanTry(d Domain) (string, error) {
	_, err := os.Stat(x.Host.userdata(d.Domid, d.UUID, "xl"))
	if err == nil {
		return "", fmt.Errorf("xl config-update has stored another configuration for its next boot: reboot it, or xl config-update %d its present one, and reboot it", d.Domid)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return x.Host.canTry(d)
}

func (h Host) canTry(d Domain) (string, error) {
	path := h.userdata(d.Domid, d.UUID, "libxl-json")
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	s, err := parseStored(raw)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return s.guest()
}

// with returns the file with another kernel; all else is as it was.
func (s stored) with(k Kernel, loader string) ([]byte, error) {
	delete(s.build, "bootloader")
	delete(s.build, "bootloader_args")
	if k.Once != "" {
		args, err := encode([]string{k.Once})
		if err != nil {
			return nil, err
		}
		if s.build["bootloader"], err = encode(loader); err != nil {
			return nil, err
		}
		s.build["bootloader_args"] = args
	}
	for key, text := range map[string]string{"kernel": k.File, "ramdisk": k.Initrd, "cmdline": k.Cmdline} {
		if text == "" {
			delete(s.build, key)
			continue
		}
		raw, err := encode(text)
		if err != nil {
			return nil, err
		}
		s.build[key] = raw
	}
	build, err := encode(s.build)
	if err != nil {
		return nil, err
	}
	s.all["b_info"] = build
	all, err := encode(s.all)
	return append(all, 0), err // libxl keeps the end of the string
}

// encode is json.Marshal without what it does for HTML.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// Kernel implements Driver.
func (x Xl) Kernel(_ context.Context, d Domain) (Kernel, error) {
	raw, err := os.ReadFile(x.Host.userdata(d.Domid, d.UUID, "libxl-json"))
	if err != nil {
		return Kernel{}, err
	}
	s, err := parseStored(raw)
	if err != nil {
		return Kernel{}, err
	}
	return s.kernel(x.Loader)
}

// SetKernel implements Driver. xl has no command for it: `xl config-update` takes a
// whole configuration in xl's language, and for one restart only. What libxl has
// stored is what xl asks it for at each.
func (x Xl) SetKernel(_ context.Context, d Domain, k Kernel) error {
	if err := errors.Join(k.check(), k.tries(x.Loader)); err != nil {
		return err
	}
	unlock, err := x.Host.lock(d)
	if err != nil {
		return err
	}
	defer unlock()
	path := x.Host.userdata(d.Domid, d.UUID, "libxl-json")
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s, err := parseStored(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err := s.kernel(x.Loader); err != nil {
		return err
	}
	if raw, err = s.with(k, x.Loader); err != nil {
		return err
	}
	next := filepath.Join(x.Host.State, fmt.Sprintf("userdata-n.%d.%s.libxl-json", d.Domid, d.UUID)) // as libxl calls it
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		_ = os.Remove(next)
	}
	return err
}

// lock takes libxl's lock of a domain's stored data (libxl__lock_domain_userdata): a
// file that is removed when it is released, so that it has to be looked whether the
// one that was locked is still there.
func (h Host) lock(d Domain) (unlock func(), err error) {
	path := filepath.Join(h.State, fmt.Sprintf("userdata-l.%d.%s.domain-userdata-lock", d.Domid, d.UUID))
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		mine, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if now, err := os.Stat(path); err == nil && os.SameFile(mine, now) {
			return func() {
				_ = os.Remove(path)
				f.Close()
			}, nil
		}
		f.Close() // whoever had it has removed it
	}
}
