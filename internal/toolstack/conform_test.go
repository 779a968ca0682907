package toolstack_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/bootonce"
	"github.com/warmreboot/warmreboot/internal/toolstack"
)

// bed is a host, a driver for it, and a configuration of a domain that does not run.
type bed struct {
	toolstack.Driver
	config string
	// domain returns the domain of the configuration, false if it does not run.
	domain func() (toolstack.Domain, bool)
	// cmdline returns what the guest's kernel says it was booted with; an error while
	// it is not up.
	cmdline func() (string, error)
	// patience is how long a boot may take.
	patience time.Duration
}

// up waits until another domain than old is up, and returns it.
func (b bed) up(t *testing.T, old ident.Domid) (toolstack.Domain, string) {
	t.Helper()
	var err error
	for end := time.Now().Add(b.patience); ; time.Sleep(b.patience / 100) {
		if d, ok := b.domain(); ok && d.Domid != old {
			var line string
			if line, err = b.cmdline(); err == nil {
				return d, line
			}
		}
		if time.Now().After(end) {
			t.Fatalf("no other domain than %d is up: %v", old, err)
		}
	}
}

// tries has a kernel booted once: the boot after that is the old one's, whatever it
// was that ended it, and nobody has to do anything for it.
func (b bed) tries(t *testing.T, d toolstack.Domain, old, marked toolstack.Kernel) toolstack.Domain {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if kind, err := b.CanTry(d); err != nil || kind != "pvh" {
		t.Errorf("it can try a kernel of %q: %v", kind, err)
	}
	trial := bootonce.Trial{Dir: filepath.Join(t.TempDir(), "trial")}
	must(trial.Keep(bootonce.Old, bootonce.Image{Kernel: old.File, Initrd: old.Initrd, Cmdline: old.Cmdline}))
	must(trial.Keep(bootonce.New, bootonce.Image{Kernel: marked.File, Initrd: marked.Initrd, Cmdline: marked.Cmdline}))
	once := old
	once.Once = trial.Dir
	must(b.SetKernel(ctx, d, once))
	must(trial.Arm())
	want := map[ident.Domid]bootonce.Which{}
	for _, w := range []bootonce.Which{bootonce.New, bootonce.Old} {
		if got, err := b.Kernel(ctx, d); err != nil || got != once {
			t.Errorf("before the %s kernel: %+v, %v", w, got, err)
		}
		must(b.ForceReboot(ctx, d.Domid))
		now, line := b.up(t, d.Domid)
		if strings.Contains(line, "conformance") != (w == bootonce.New) {
			t.Errorf("the %s kernel was booted with %q", w, line)
		}
		want[now.Domid], d = w, now
		if got, err := trial.Boots(); err != nil || !maps.Equal(got, want) {
			t.Errorf("booted %v, %v; want %v", got, err, want)
		}
	}
	// As on a host that it has moved to.
	must(os.RemoveAll(trial.Dir))
	must(b.ForceReboot(ctx, d.Domid))
	d, line := b.up(t, d.Domid)
	if strings.Contains(line, "conformance") {
		t.Errorf("without the trial it was booted with %q", line)
	}
	if got, err := b.Kernel(ctx, d); err != nil || got != once {
		t.Errorf("without the trial: %+v, %v", got, err)
	}
	return d
}

// conform is what any driver does, on a host of its own or on a fake one.
func conform(t *testing.T, b bed) {
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := b.domain(); ok {
		t.Fatal("it runs already")
	}
	for _, c := range []toolstack.Capability{toolstack.Creates, toolstack.SetsKernel, toolstack.Destroys} {
		must(b.Can(c))
	}

	// Created once, and it is known by whom.
	for _, bad := range []string{"relative.cfg", "--help", filepath.Join(t.TempDir(), "none"), "/"} {
		if err := b.Create(ctx, bad); err == nil {
			t.Errorf("created of %q", bad)
		}
	}
	must(b.Create(ctx, b.config))
	first, line := b.up(t, 0)
	if err := b.Create(ctx, b.config); err == nil {
		t.Error("created twice")
	}
	o, err := b.Owner(first.Domid, first.UUID, first.Name)
	if err != nil || o.Toolstack != b.Name() || o.Process == "" || o.Recreates() != nil || o.Releases() != nil {
		t.Errorf("owner: %+v, %v", o, err)
	}
	if o, err := b.Owner(first.Domid+1000, first.UUID, "nobody"); err != nil || o.Toolstack != "" {
		t.Errorf("owner of another domain: %+v, %v", o, err)
	}

	// It comes back, under its UUID; whether the guest was asked or not, see below.
	must(b.ForceReboot(ctx, first.Domid))
	second, _ := b.up(t, first.Domid)
	if second.UUID != first.UUID || second.Name != first.Name {
		t.Errorf("%+v, then %+v", first, second)
	}
	must(b.ForceReboot(ctx, first.Domid)) // it is gone

	// Another command line from the next boot on, of whatever kind, and back again.
	k, err := b.Kernel(ctx, second)
	must(err)
	if k.File == "" || !strings.Contains(line, strings.TrimSpace(k.Cmdline)) {
		t.Errorf("the kernel is %+v, it was booted with %q", k, line)
	}
	const mark = `conformance="<1> & ${2} 3$$4"`
	marked := k
	marked.Cmdline += " " + mark
	must(b.SetKernel(ctx, second, marked))
	if now, line := b.up(t, 0); now != second || strings.Contains(line, mark) {
		t.Errorf("what runs was changed: %+v, %q", now, line)
	}
	if got, err := b.Kernel(ctx, second); err != nil || got != marked {
		t.Errorf("set to %+v: %+v, %v", marked, got, err)
	}
	must(b.Reboot(ctx, second.Domid))
	third, line := b.up(t, second.Domid)
	if !strings.Contains(line, mark) {
		t.Errorf("booted with %q", line)
	}
	if got, err := b.Kernel(ctx, third); err != nil || got != marked {
		t.Errorf("after the reboot: %+v, %v", got, err)
	}
	for what, bad := range map[string]toolstack.Kernel{
		"is not there":          {File: filepath.Join(t.TempDir(), "none"), Cmdline: k.Cmdline},
		"is a folder":           {File: t.TempDir()},
		"has no name":           {Cmdline: k.Cmdline},
		"is relative":           {File: "vmlinuz"},
		"has an initrd no more": {File: k.File, Initrd: filepath.Join(t.TempDir(), "none")},
		"has two lines":         {File: k.File, Cmdline: "a\nb"},
	} {
		if err := b.SetKernel(ctx, third, bad); err == nil {
			t.Errorf("a kernel that %s was set", what)
		}
	}
	// A domain that is no more, or never was.
	if err := b.SetKernel(ctx, toolstack.Domain{Domid: third.Domid, UUID: ident.UUID{7, 7}}, k); err == nil {
		t.Error("the kernel of a domain that is not there was set")
	}
	tried := b.tries(t, third, k, marked)
	must(b.SetKernel(ctx, tried, k))
	must(b.ForceReboot(ctx, tried.Domid))
	last, line := b.up(t, tried.Domid)
	if got, err := b.Kernel(ctx, last); err != nil || got != k || strings.Contains(line, mark) {
		t.Errorf("set back: %+v, %v, booted with %q", got, err, line)
	}

	// Gone, and not back.
	must(b.Destroy(ctx, toolstack.Domain{Domid: third.Domid, UUID: third.UUID, Name: third.Name})) // it was
	if now, ok := b.domain(); !ok || now != last {
		t.Errorf("another domain than was meant was destroyed: %+v", now)
	}
	must(b.Destroy(ctx, last))
	time.Sleep(b.patience / 20)
	if now, ok := b.domain(); ok {
		t.Errorf("destroyed, and there is %+v", now)
	}
	must(b.Destroy(ctx, last))
	must(b.Recreate(ctx, last, marked, b.config)) // which names another one
	last, line = b.up(t, last.Domid)
	if got, err := b.Kernel(ctx, last); err != nil || got != marked || !strings.Contains(line, mark) {
		t.Errorf("created again: %+v, %v, booted with %q", got, err, line)
	}
	must(b.Destroy(ctx, last))
	time.Sleep(b.patience / 20)
	if _, err := b.Kernel(ctx, last); b.Name() == toolstack.XL && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the kernel of a domain that is gone: %v", err)
	}
}
