package operator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/toolstack"
)

// cloneWay is what the new kernel does in a clone.
type cloneWay string

const (
	cloneGood    cloneWay = "good"
	clonePanics  cloneWay = "panics"
	clonePanics2 cloneWay = "panics later"
	cloneHangs   cloneWay = "hangs"
	cloneUnread  cloneWay = "waits for a root file system"
	cloneSilent  cloneWay = "does not say that it has booted"
	cloneUnwell  cloneWay = "is not well"
	cloneFull    cloneWay = "takes too much room"
	cloneNone    cloneWay = "cannot be created"
	cloneBlind   cloneWay = "cannot be looked at"
)

// clones are the toolstack and the disks of an updating host.
type clones struct {
	*updating
	way       cloneWay
	dir, logs string // of the image, of xl
	says      bool   // the domain says when it has booted
	looks     int
	refuses   error // of Remove
	sources   error
}

func (u *updating) clone(t *testing.T, way cloneWay) *clones {
	c := &clones{updating: u, way: way, dir: t.TempDir(), logs: t.TempDir()}
	if err := os.WriteFile(filepath.Join(c.dir, "web.img"), []byte("the disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.clones = c
	u.update.Trial = &api.TrialRequest{SpaceBytes: 64 << 20}
	return c
}

func (c *clones) served() *Clones {
	if c == nil {
		return nil
	}
	return &Clones{Toolstack: c, Disks: cloneFiles{c}, Dir: filepath.Join(c.updating.dir, "trials"), Logs: c.logs}
}

func (c *clones) well(name string) error {
	if name != "web-trial" {
		return fmt.Errorf("%q was asked", name)
	}
	if c.way == cloneUnwell {
		return errors.New("503")
	}
	return nil
}

func (c *clones) CloneConfig(of toolstack.Domain, k toolstack.Clone) ([]byte, error) {
	if of.Domid != c.web.Domid || len(k.Disks) != 1 || k.Disks[0].Name != "xvda" {
		return nil, fmt.Errorf("a clone of %+v with %+v", of, k.Disks)
	}
	return fmt.Appendf(nil, "%s\n%s\n%s\n%s\n", k.Name, k.UUID, k.Kernel.File, k.Disks[0].Path), nil
}

func (c *clones) Create(_ context.Context, file string) error {
	c.effect()
	defer c.effect()
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	line := strings.Split(string(raw), "\n")
	if on, err := os.ReadFile(line[3]); err != nil || string(on) != "the disk" {
		return fmt.Errorf("its disk has %q: %w", on, err)
	}
	if k, err := os.ReadFile(line[2]); err != nil || !strings.Contains(string(k), "new") {
		return fmt.Errorf("its kernel is %q: %w", line[2], err)
	}
	if c.way == cloneNone {
		return errors.New("not enough memory")
	}
	uuid, err := ident.ParseUUID(line[1])
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.domains[line[0]] != nil {
		return errors.New("there is one of that name")
	}
	c.domains[line[0]] = &api.DomainStatus{Domain: line[0], UUID: uuid, Domid: c.nextID, State: "running"}
	c.nextID++
	for path, text := range map[string]string{"guest-web-trial.log": "Linux version 6 (new)\nKernel panic - not syncing: in a clone\n", "../" + filepath.Base(c.logs) + "/xl-web-trial.log": "waits"} {
		dir := c.console
		if strings.HasPrefix(path, "..") {
			dir, path = c.logs, filepath.Base(path)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (c *clones) Remove(ctx context.Context, domid ident.Domid) error {
	return c.removed(domid)
}

func (c *clones) removed(domid ident.Domid) error {
	c.effect()
	defer c.effect()
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, d := range c.domains {
		if d.Domid == domid && d.UUID.Trial() && c.refuses == nil {
			delete(c.domains, name)
		} else if d.Domid == domid && !d.UUID.Trial() {
			c.t.Errorf("domain %s is to go", name)
		}
	}
	return c.refuses
}

// cloneFiles are the disks' side of clones: Remove is of files there.
type cloneFiles struct{ *clones }

func (f cloneFiles) Remove(path string) error {
	f.effect()
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

func (f cloneFiles) Sources(context.Context, ident.Domid) ([]disk.Source, error) {
	return []disk.Source{{VBD: 51712, Path: filepath.Join(f.dir, "web.img")}}, f.sources
}

func (f cloneFiles) Clone(s disk.Source, to string) error {
	f.effect()
	defer f.effect()
	raw, err := os.ReadFile(s.Path)
	if err != nil {
		return err
	}
	if _, err := os.Stat(to); err == nil {
		return os.ErrExist
	}
	return os.WriteFile(to, raw, 0o600)
}

func (f cloneFiles) RoomOf(path string) (own, free int64, err error) {
	if _, err := os.Stat(path); err == nil && f.way == cloneFull {
		own = 100 << 20
	}
	return own, 1 << 30, nil
}

func (f cloneFiles) BootComplete(_ context.Context, domid ident.Domid) (bool, error) {
	return f.says && (domid == f.web.Domid || f.way != cloneSilent), nil
}

func (f cloneFiles) Traffic(context.Context, ident.Domid) (disk.Traffic, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	d := f.domains["web-trial"]
	switch {
	case f.way == cloneBlind:
		return disk.Traffic{}, errors.New("no such file")
	case f.way == cloneHangs:
		return disk.Traffic{Apart: []string{"xvda"}}, nil
	case f.way == cloneUnread:
		return disk.Traffic{Read: 100 << 10}, nil
	case d != nil && (f.way == clonePanics || f.way == clonePanics2 && f.looks > 3):
		d.State = "shutdown"
		return disk.Traffic{}, errors.New("it goes down")
	}
	return disk.Traffic{Read: 20 << 20, Written: 1 << 20}, nil
}

// nothingLeft asserts that nothing is left of any clone.
func (c *clones) nothingLeft(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, d := range c.domains {
		if d.UUID.Trial() {
			t.Errorf("domain %s is left", name)
		}
	}
	for _, dir := range []string{c.dir, c.logs, filepath.Join(c.updating.dir, "trials")} {
		all, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		for _, e := range all {
			if e.Name() != "web.img" {
				t.Errorf("%s/%s is left", dir, e.Name())
			}
		}
	}
	if _, err := os.Stat(filepath.Join(c.console, "guest-web-trial.log")); err == nil {
		t.Error("its console is left")
	}
}

// TestTrial: whatever a kernel does in a clone, the domain is only touched if that was
// well, the reason is told, and nothing is left.
func TestTrial(t *testing.T) {
	for w, c := range map[cloneWay]struct {
		code api.Code
		why  string
	}{
		cloneGood:    {"", ""},
		clonePanics:  {api.TrialAgainst, "before it was up"},
		clonePanics2: {api.TrialAgainst, "when it had been up"},
		cloneHangs:   {api.TrialAgainst, "has not connected xvda"},
		cloneUnread:  {api.TrialAgainst, "100 KiB"},
		cloneSilent:  {api.TrialAgainst, "boot is complete"},
		cloneUnwell:  {api.TrialAgainst, "not well: 503"},
		cloneFull:    {api.UpdateRefused, "100 MiB of room"},
		cloneNone:    {api.UpdateRefused, "not enough memory"},
		cloneBlind:   {api.UpdateRefused, "no such file"},
	} {
		for _, only := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, only %v", w, only), func(t *testing.T) {
				t.Parallel()
				u := newUpdating(t, good)
				k := u.clone(t, w)
				k.says = w == cloneSilent
				u.update.Trial.Only = only
				op, err := api.AwaitOperation(t.Context(), u.start(), u.request())
				if op.Update == nil || op.Update.Trial == nil {
					t.Fatalf("%+v, %v", op, err)
				}
				outcome, boots := api.NotTried, ""
				switch {
				case c.code == "" && only:
					outcome = api.TrialPassed
				case c.code == "":
					outcome, boots = api.Updated, "new"
				case c.code == api.TrialAgainst:
					outcome = api.TrialFailed
				}
				tr := *op.Update.Trial
				if code(err) != c.code || op.Update.Outcome != outcome || strings.Join(u.boots, " ") != boots || !strings.Contains(tr.Why, c.why) || tr.Passed != (c.code == "") || tr.Against != (c.code == api.TrialAgainst) {
					t.Errorf("%+v, %+v, %v, booted %q", op.Update, tr, err, u.boots)
				}
				if tr.Against && (len(tr.Console) == 0 || !strings.Contains(tr.Console[len(tr.Console)-1], "in a clone")) {
					t.Errorf("its console ends with %q", tr.Console)
				}
				if w == cloneGood && (tr.ReadBytes != 20<<20 || tr.WrittenBytes != 1<<20) {
					t.Errorf("its cost: %+v", tr)
				}
				k.nothingLeft(t)
				u.right(t, op)
			})
		}
	}
}

// TestTrialKilled: whatever the daemon was doing, the next one ends the trial, and
// nothing is left.
func TestTrialKilled(t *testing.T) {
	for _, w := range []cloneWay{cloneGood, clonePanics} {
		t.Run(string(w), func(t *testing.T) {
			t.Parallel()
			for at := 1; ; at++ {
				u := newUpdating(t, good)
				k := u.clone(t, w)
				u.update.Trial.Only = true
				died := u.killed(at)
				o := u.start()
				op, err := api.AwaitOperation(t.Context(), o, u.request())
				u.engine.Wait()
				want := api.TrialPassed
				if w == clonePanics {
					want = api.TrialFailed
				}
				if op.Update == nil || op.Update.Outcome != want || len(u.boots) > 0 {
					t.Errorf("killed after effect %d: %+v, %v", at, op.Update, err)
				}
				k.nothingLeft(t)
				u.kept.Close()
				if t.Failed() {
					t.Fatalf("killed after effect %d", at)
				}
				if !died {
					if at < 25 {
						t.Errorf("there were %d effects", at)
					}
					return
				}
			}
		})
	}
}

// TestTrialKept: a clone that is to be kept stays as long as its domain, and no longer;
// what belongs to nobody goes, and what an operation sees to is left alone.
func TestTrialKept(t *testing.T) {
	u := newUpdating(t, good)
	k := u.clone(t, clonePanics)
	u.update.Trial.Keep = true
	o := u.start()
	op, err := api.AwaitOperation(t.Context(), o, u.request())
	if code(err) != api.TrialAgainst || !op.Update.Trial.Kept {
		t.Fatalf("%+v, %v", op.Update, err)
	}
	o.SweepClones(t.Context())
	if all, _ := os.ReadDir(k.dir); len(all) != 2 || u.domains["web-trial"] == nil {
		t.Errorf("it was to be kept: %v", all)
	}
	// Another one has no name, and is told why.
	r := u.request()
	r.Key = "l"
	if _, err := api.AwaitOperation(t.Context(), o, r); code(err) != api.UpdateRefused || !strings.Contains(err.Error(), "xl destroy it") {
		t.Errorf("%v", err)
	}
	delete(u.domains, "web-trial")
	o.SweepClones(t.Context())
	k.nothingLeft(t)

	// Of a state directory that was lost.
	u.domains["web-trial"] = &api.DomainStatus{Domain: "web-trial", UUID: ident.TrialUUID("lost"), Domid: 90, State: "running"}
	o.SweepClones(t.Context())
	k.nothingLeft(t)

	// One that an operation sees to.
	u.update.Trial.Keep, k.way, k.looks = false, cloneHangs, 0
	u.update.DeadlineSeconds = 1e6
	r = u.request()
	r.Key = "m"
	begun, err := o.Begin(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	awaitLook(t, k)
	o.SweepClones(t.Context())
	if s, err := u.Status(t.Context(), "web-trial", false); err != nil || s.Domid == 0 {
		t.Errorf("a trial that goes on was swept away: %v", err)
	}
	// It is cancelled, and nothing is left.
	if _, err := o.Cancel(t.Context(), begun.ID, "ann"); err != nil {
		t.Fatal(err)
	}
	op, err = api.AwaitOperation(t.Context(), o, r)
	if op.State != api.OperationCancelled || code(err) != api.Cancelled || len(u.boots) > 0 {
		t.Errorf("%+v, %v", op, err)
	}
	k.nothingLeft(t)
	u.right(t, op)
}

func awaitLook(t *testing.T, k *clones) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		k.mu.Lock()
		looks := k.looks
		k.mu.Unlock()
		if looks > 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("nobody looks at the clone")
		}
	}
}

// TestTrialStopped: a daemon that stops leaves no clone behind for the time until the
// next one, which begins anew; after the host was booted it does not.
func TestTrialStopped(t *testing.T) {
	for _, boot := range []string{"boot", "the next"} {
		u := newUpdating(t, good)
		k := u.clone(t, cloneHangs)
		u.update.DeadlineSeconds = 1e6
		ctx, stop := context.WithCancel(t.Context())
		u.ctx = ctx
		if _, err := u.start().Begin(ctx, u.request()); err != nil {
			t.Fatal(err)
		}
		awaitLook(t, k)
		stop()
		u.engine.Wait()
		k.nothingLeft(t)
		u.ctx, u.host.boot, k.way = t.Context(), boot, cloneGood
		op, err := api.AwaitOperation(t.Context(), u.start(), u.request())
		if same := boot == "boot"; same != (err == nil) || !same && !strings.Contains(err.Error(), "host was booted") {
			t.Errorf("%s: %+v, %v", boot, op.Update, err)
		}
		k.nothingLeft(t)
	}
}

// TestTrialLeft: what cannot be thrown away at once is told, the update does not go on,
// and it is thrown away later.
func TestTrialLeft(t *testing.T) {
	u := newUpdating(t, good)
	k := u.clone(t, cloneGood)
	k.refuses = errors.New("libxl is busy")
	o := u.start()
	op, err := api.AwaitOperation(t.Context(), o, u.request())
	if code(err) != api.UpdateRefused || !strings.Contains(err.Error(), "libxl is busy") || len(u.boots) > 0 || op.Update.Trial.Passed {
		t.Errorf("%+v, %v", op.Update, err)
	}
	k.refuses = nil
	o.SweepClones(t.Context())
	k.nothingLeft(t)
}

// TestTrialRefused: what is seen beforehand is said, also by --dry-run.
func TestTrialRefused(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*clones)
		code   api.Code
		says   string
	}{
		"no room":      {func(k *clones) { k.update.Trial.SpaceBytes = 600 << 20 }, api.UpdateRefused, "1024 MiB are free"},
		"no space":     {func(k *clones) { k.update.Trial.SpaceBytes = 0 }, api.BadRequest, "space"},
		"two bridges":  {func(k *clones) { k.update.Trial.Bridge = "a,b" }, api.BadRequest, "bridge"},
		"a device":     {func(k *clones) { k.sources = errors.New("xvda is a device") }, api.UpdateRefused, "xvda is a device"},
		"a clone":      {func(k *clones) { k.web.UUID = ident.TrialUUID("x") }, api.UpdateRefused, "clone itself"},
		"such a name":  {func(k *clones) { k.domains["web-trial"] = &api.DomainStatus{Domain: "web-trial", Domid: 50} }, api.UpdateRefused, "web-trial already"},
		"no toolstack": {func(k *clones) { k.updating.clones = nil }, api.UpdateRefused, "makes no clones"},
	} {
		u := newUpdating(t, good)
		k := u.clone(t, cloneGood)
		c.change(k)
		o := u.start()
		if _, err := o.Plan(t.Context(), u.request()); code(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s, planned: %v", what, err)
		}
		if _, err := api.AwaitOperation(t.Context(), o, u.request()); code(err) != c.code || !strings.Contains(err.Error(), c.says) || len(u.boots) > 0 {
			t.Errorf("%s: %v", what, err)
		}
	}
	u := newUpdating(t, good)
	u.clone(t, cloneGood)
	u.update.Health = &api.HealthCheck{HTTP: "http://web/ok", TimeoutSeconds: 1}
	p, err := u.start().Plan(t.Context(), u.request())
	if err != nil || p.Update.Trial == nil || p.Update.Trial.Domain != "web-trial" || !strings.Contains(p.Update.Trial.NotChecked, "http://web/ok") {
		t.Errorf("%+v, %v", p.Update, err)
	}
}
