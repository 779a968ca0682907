package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/bootonce"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/store"
	"github.com/warmreboot/warmreboot/internal/toolstack"
	"github.com/warmreboot/warmreboot/internal/update"
)

// Clones are what trials on clones need: an update's kernel is booted in a copy of the
// domain first, which is then thrown away.
//
// What belongs to a clone is written down before any of it is made, so that it is found
// by whoever is there when the one who made it is killed, or the host is booted.
type Clones struct {
	Toolstack CloneMaker
	Disks     CloneDisks
	// Dir is a folder of their own, Logs where xl's logs are.
	Dir, Logs string
}

// CloneMaker makes and ends clones: xl does, whoever has created the domain.
type CloneMaker interface {
	CloneConfig(of toolstack.Domain, c toolstack.Clone) ([]byte, error)
	Create(ctx context.Context, file string) error
	Remove(ctx context.Context, domid ident.Domid) error
}

// CloneDisks are a disk.Cloner's.
type CloneDisks interface {
	Sources(ctx context.Context, domid ident.Domid) ([]disk.Source, error)
	Clone(s disk.Source, to string) error
	Traffic(ctx context.Context, domid ident.Domid) (disk.Traffic, error)
	RoomOf(path string) (own, free int64, err error)
	BootComplete(ctx context.Context, domid ident.Domid) (bool, error)
	Remove(path string) error
}

// cloneRecord is what there is, or may be, of a clone.
type cloneRecord struct {
	Operation string     `json:"operation"`
	Name      string     `json:"name"`
	UUID      ident.UUID `json:"uuid"`
	Files     []string   `json:"files"`
	// Kept: it stays as long as its domain does.
	Kept bool `json:"kept,omitempty"`
}

var cloneKind = store.Kind{Name: "clone", Version: 1, Limit: 1 << 20}

const cloneSuffix = ".clone"

func (c *Clones) dir() store.Dir { return store.Dir{Path: c.Dir} }

func (c *Clones) write(r cloneRecord) error {
	raw, err := json.Marshal(r)
	if err == nil {
		err = c.dir().Make()
	}
	if err == nil {
		err = c.dir().Write(r.UUID.String()+cloneSuffix, cloneKind, raw)
	}
	return err
}

func (c *Clones) read(name string) (r cloneRecord, err error) {
	_, raw, err := c.dir().Read(name, cloneKind)
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	return r, err
}

// cloneName is what a domain's clone is called.
func cloneName(d toolstack.Domain) string { return d.Name + "-trial" }

// ofClone reports whether a health check is made of clones, too: one that needs no
// network of the domain's.
func ofClone(h *api.HealthCheck) bool { return len(h.Command) > 0 || h.Xenstore != "" }

// notChecked is what of a health check is not made of a clone.
func notChecked(h *api.HealthCheck) string {
	if h == nil || ofClone(h) {
		return ""
	}
	return "the health check by " + h.HTTP + h.TCP + " is not made of a clone: where that leads, the domain itself would answer"
}

var bridgeName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,15}$`)

// leastSpace is the least that a trial may be given: a boot writes some.
const leastSpace = 16 << 20

func checkTrial(r api.TrialRequest) error {
	switch {
	case r.Bridge != "" && !bridgeName.MatchString(r.Bridge):
		return api.Errorf(api.BadRequest, "the bridge is %q, must be a network interface's name", r.Bridge)
	case r.SpaceBytes < leastSpace || r.SpaceBytes > 1<<50:
		return api.Errorf(api.BadRequest, "the space of a trial is %d bytes, must be %d or more", r.SpaceBytes, leastSpace)
	}
	return nil
}

func noSuch(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == api.NotFound
}

// canClone says why a domain cannot be cloned, or nil. It changes nothing.
func (o *Operator) canClone(ctx context.Context, d toolstack.Domain, r api.TrialRequest) error {
	c := o.updates.Clones
	if c == nil {
		return errors.New("this host makes no clones")
	}
	if d.UUID.Trial() {
		return errors.New("it is a clone itself")
	}
	name := cloneName(d)
	if s, err := o.Agent.Status(ctx, name, false); err == nil {
		return fmt.Errorf("there is a domain %s already (domid %d): if it is of a trial that was kept, xl destroy it", name, s.Domid)
	} else if !noSuch(err) {
		return err
	}
	_, _, err := c.plan(ctx, d, toolstack.Clone{Name: name}, "", r)
	return err
}

// plan returns what a clone's disks are made of, and its configuration, with disks that
// are called by the word; an error if there is no room.
func (c *Clones) plan(ctx context.Context, d toolstack.Domain, clone toolstack.Clone, word string, r api.TrialRequest) ([]disk.Source, []byte, error) {
	sources, err := c.Disks.Sources(ctx, d.Domid)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range sources {
		path := fileOf(s, word)
		if !s.Shared {
			_, free, err := c.Disks.RoomOf(path)
			if err != nil {
				return nil, nil, err
			}
			if free/2 < r.SpaceBytes {
				return nil, nil, fmt.Errorf("%d MiB are free beside %s, must be %d: twice of what the trial may take, as the domain's own writes take room there, too", free>>20, s.Path, 2*r.SpaceBytes>>20)
			}
		}
		clone.Disks = append(clone.Disks, toolstack.CloneDisk{Path: path, Name: s.VBD.Name(), ReadOnly: s.ReadOnly})
	}
	config, err := c.Toolstack.CloneConfig(d, clone)
	return sources, config, err
}

// fileOf is what a clone has for a disk: a file beside it, as blocks are shared within a
// file system only.
func fileOf(s disk.Source, word string) string {
	if s.Shared {
		return s.Path
	}
	return filepath.Join(filepath.Dir(s.Path), ".warmreboot-trial-"+word+"-"+s.VBD.Name())
}

// only reports whether the update ends with the trial.
func (t *trial) only() bool { return t.r.Update.Trial != nil && t.r.Update.Trial.Only }

// unarmed is how an update has ended that has not come to the domain itself.
func (t *trial) unarmed(err error) (outcome api.UpdateOutcome, why string) {
	var e *api.Error
	switch {
	case err == nil:
		return api.TrialPassed, ""
	case errors.As(err, &e) && e.Code == api.TrialAgainst:
		return api.TrialFailed, t.cloned.Why
	}
	return api.NotTried, err.Error()
}

// onClone tries the new kernel on a clone, if that was asked for. Then it is looked once
// more whether the domain can be updated: time has passed.
//
// It is one step, which is done anew, from the beginning, by the next daemon: when it has
// ended, nothing is left of the clone.
func (t *trial) onClone(ctx context.Context) error {
	if t.r.Update.Trial == nil {
		return nil
	}
	if err := t.run.Cancelled(); err != nil {
		return err
	}
	tried, err := operation.Do(ctx, t.run, "trial", operation.Again, t.try)
	if err != nil {
		return err
	}
	t.cloned = &tried
	if err := t.run.Cancelled(); err != nil {
		return err
	}
	name := t.d.Domain.Name
	switch {
	case tried.Against:
		return api.Errorf(api.TrialAgainst, "domain %s was not updated, and goes on as it was: %s", name, tried.Why)
	case !tried.Passed:
		return refused(name, errors.New(tried.Why))
	case t.only():
		return nil
	}
	t.d, err = operation.Do(ctx, t.run, "ready still", operation.Again, func(ctx context.Context) (ready, error) {
		op, r, u := t.run.Operation(), t.r, *t.r.Update
		u.Trial, r.Update = nil, &u
		d, _, err := t.prepare(ctx, op.UUID.String(), op.ID, r)
		return d, err
	})
	return err
}

// clearWait is how long it may take to throw a clone away, within what the service manager
// waits for a daemon that stops.
const clearWait = 20 * time.Second

// try makes a clone, sees how it does, and throws it away.
func (t *trial) try(ctx context.Context) (api.Trial, error) {
	c, op, r := t.updates.Clones, t.run.Operation(), *t.r.Update.Trial
	rec := cloneRecord{Operation: op.ID, Name: cloneName(t.d.Domain), UUID: ident.TrialUUID(op.ID)}
	out := api.Trial{Domain: rec.Name, UUID: rec.UUID, NotChecked: notChecked(t.r.Update.Health)}
	if c == nil {
		out.Why = "this host makes no clones"
		return out, nil
	}
	wanted, end := t.run.Unless(ctx)
	defer end()
	begun := int64(0)
	if st, err := os.Stat(t.updates.console(rec.Name)); err == nil {
		begun = st.Size()
	}
	last := update.CloneRecord{Phase: update.Stopped}
	if err := t.makeClone(wanted, &rec, &out); err != nil {
		last.Why = "no clone could be made: " + err.Error()
	} else {
		last = t.watchClone(wanted, rec, &out)
		out.Kept = r.Keep && wanted.Err() == nil
	}
	out.Passed, out.Against, out.Why = last.Phase == update.Passed, last.Phase == update.Against, last.Why
	if !out.Passed {
		out.Console = newConsole(t.updates.console(rec.Name), begun)
	}
	// Also if the daemon stops, or somebody does not want it any more.
	clearing, done := context.WithTimeout(context.WithoutCancel(ctx), clearWait)
	defer done()
	if out.Kept {
		rec.Kept = true
		if err := c.write(rec); err != nil {
			out.Kept = false
			t.Log.Error("a clone cannot be kept", "op", "update", "domain", t.d.Domain.Name, "uuid", t.d.Domain.UUID, "err", err, "next", "make room in the state directory")
		}
	}
	if !out.Kept {
		if err := t.clear(clearing, rec.UUID); err != nil {
			out.Passed = false
			out.Why = strings.TrimPrefix(fmt.Sprintf("%s; something is left of the clone, and is thrown away as soon as that can be done: %v", out.Why, err), "; ")
		}
	}
	return out, ctx.Err()
}

// makeClone makes the clone, and lets it run.
func (t *trial) makeClone(ctx context.Context, rec *cloneRecord, out *api.Trial) error {
	c, op, r := t.updates.Clones, t.run.Operation(), *t.r.Update.Trial
	if t.Moment().Boot != op.Boot {
		return errors.New("the host was booted meanwhile: ask for the update again")
	}
	// What an earlier daemon has left.
	if err := t.clear(ctx, rec.UUID); err != nil {
		return err
	}
	// The very kernel that the domain would boot.
	own, err := t.files.Image(bootonce.New)
	if err != nil {
		return err
	}
	clone := toolstack.Clone{Name: rec.Name, UUID: rec.UUID, Bridge: r.Bridge,
		Kernel: toolstack.Kernel{File: own.Kernel, Initrd: own.Initrd, Cmdline: own.Cmdline}}
	sources, config, err := c.plan(ctx, t.d.Domain, clone, op.ID, r)
	if err != nil {
		return err
	}
	file := filepath.Join(c.Dir, rec.UUID.String()+".cfg")
	rec.Files = []string{file}
	for _, s := range sources {
		if !s.Shared {
			rec.Files = append(rec.Files, fileOf(s, op.ID))
		}
	}
	for _, log := range []string{t.updates.console(rec.Name), filepath.Join(c.Logs, "xl-"+rec.Name+".log")} {
		if _, err := os.Stat(log); errors.Is(err, fs.ErrNotExist) && log != "" && !strings.ContainsRune(rec.Name, '/') {
			rec.Files = append(rec.Files, log) // else it is of somebody else, too
		}
	}
	if err := c.write(*rec); err != nil {
		return err
	}
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}
	for _, s := range sources {
		if s.Shared {
			continue
		}
		begun := time.Now()
		if err := c.Disks.Clone(s, fileOf(s, op.ID)); err != nil {
			return err
		}
		out.CloneSeconds = max(out.CloneSeconds, time.Since(begun).Seconds())
	}
	return c.Toolstack.Create(ctx, file)
}

// watchClone looks at the clone until it is known what the new kernel is like.
func (t *trial) watchClone(ctx context.Context, clone cloneRecord, out *api.Trial) update.CloneRecord {
	tick := time.NewTicker(t.updates.Poll)
	defer tick.Stop()
	rec := update.CloneRecord{Phase: update.Trying, Since: t.Moment().Up}
	terms := t.terms
	h := t.r.Update.Health
	terms.Checked = h != nil && ofClone(h)
	// A guest that says when it has booted is to say it of the new kernel, too.
	says, err := t.updates.Clones.Disks.BootComplete(ctx, t.d.Domain.Domid)
	if err != nil {
		return update.CloneRecord{Phase: update.Stopped, Why: err.Error()}
	}
	var said *update.Health
	for {
		o := t.lookAtClone(ctx, clone, says, out)
		if ctx.Err() != nil {
			return update.CloneRecord{Phase: update.Stopped, Why: context.Cause(ctx).Error()}
		}
		o.Health, said = said, nil
		was := rec.Phase
		var do update.Action
		rec, do = update.NextClone(rec, terms, o, t.Moment().Up)
		switch {
		case rec.Phase == update.Passed, rec.Phase == update.Against, rec.Phase == update.Stopped:
			return rec
		case do == update.Check:
			h := t.askOf(ctx, toolstack.Domain{UUID: clone.UUID, Name: clone.Name}, seconds(h.TimeoutSeconds), "WARMREBOOT_TRIAL=1")
			said = &h
			continue
		case rec.Phase != was:
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// leastRead is how much a guest has to have read of its disks to be taken to be up: a
// kernel that finds no root file system, and waits for one, reads far less; one that has
// begun to run programs reads more.
const leastRead = 1 << 20

// lookAtClone is what is seen of the clone now.
func (t *trial) lookAtClone(ctx context.Context, clone cloneRecord, says bool, out *api.Trial) update.CloneView {
	c, r := t.updates.Clones, *t.r.Update.Trial
	stopped := func(err error) update.CloneView {
		return update.CloneView{Full: fmt.Sprintf("the clone cannot be looked at: %v", err)}
	}
	domid := func() (ident.Domid, error) { // 0: it has gone down
		s, err := t.Agent.Status(ctx, clone.UUID.String(), false)
		switch {
		case noSuch(err), err == nil && s.State != "running" && s.State != "paused":
			return 0, nil
		case err != nil:
			return 0, err
		}
		return s.Domid, nil
	}
	id, err := domid()
	switch {
	case err != nil:
		return stopped(err)
	case id == 0:
		return update.CloneView{Gone: true}
	}
	var complete bool
	traffic, err := c.Disks.Traffic(ctx, id)
	if err == nil && says {
		complete, err = c.Disks.BootComplete(ctx, id)
	}
	if err != nil {
		if id, bad := domid(); bad == nil && id == 0 { // it goes down just now
			return update.CloneView{Gone: true}
		}
		return stopped(err)
	}
	out.ReadBytes, out.WrittenBytes = max(out.ReadBytes, traffic.Read), max(out.WrittenBytes, traffic.Written)
	var v update.CloneView
	switch {
	case len(traffic.Apart) > 0:
		v.Missing = "it has not connected " + strings.Join(traffic.Apart, ", ")
	case traffic.Read < leastRead:
		v.Missing = fmt.Sprintf("it has read %d KiB of its disks, far less than a guest does that runs programs", traffic.Read>>10)
	case says && !complete:
		v.Missing = "it has not said in xenstore that its boot is complete, as the domain itself has"
	}
	var own int64
	for _, path := range clone.Files {
		if !strings.HasPrefix(filepath.Base(path), ".warmreboot-trial-") {
			continue
		}
		n, free, err := c.Disks.RoomOf(path)
		if err != nil {
			return stopped(err)
		}
		own += n
		if free < r.SpaceBytes {
			v.Full = fmt.Sprintf("%d MiB are left beside the clone's disks, and the domain's own writes take room there: the trial is given up", free>>20)
		}
	}
	if out.SpaceBytes = max(out.SpaceBytes, own); own > r.SpaceBytes {
		v.Full = fmt.Sprintf("the trial takes %d MiB of room, more than it may: it is given up", own>>20)
	}
	return v
}

// clear throws a clone away, with all that was written down of it. That nothing is there
// is no error.
func (o *Operator) clear(ctx context.Context, uuid ident.UUID) error {
	c := o.updates.Clones
	if err := o.removeDomain(ctx, uuid); err != nil {
		return err
	}
	name := uuid.String() + cloneSuffix
	rec, err := c.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, path := range rec.Files {
		if err := c.Disks.Remove(path); err != nil {
			return err
		}
	}
	return c.dir().Remove(name)
}

// removeDomain ends a clone, and returns when it is gone.
func (o *Operator) removeDomain(ctx context.Context, uuid ident.UUID) error {
	for asked := ident.Domid(0); ; {
		s, err := o.Agent.Status(ctx, uuid.String(), false)
		switch {
		case noSuch(err), err == nil && s.Domid == 0:
			return nil
		case err != nil:
			return err
		case s.Domid != asked:
			asked = s.Domid
			if err := o.updates.Clones.Toolstack.Remove(ctx, asked); err != nil {
				return err
			}
			continue
		}
		select {
		case <-time.After(o.updates.Poll):
		case <-ctx.Done():
			return fmt.Errorf("domain %d (%s) does not go away: %w", asked, uuid, ctx.Err())
		}
	}
}

// SweepClones throws away what is left of clones that no operation has to do with any
// more, and of those that were kept and that somebody has destroyed. It is called when a
// daemon starts, after the engine has resumed, and now and then.
func (o *Operator) SweepClones(ctx context.Context) {
	c := o.updates.Clones
	if c == nil {
		return
	}
	failed := func(what string, err error) {
		if ctx.Err() == nil {
			o.Log.Error("what a trial has left cannot be thrown away", "op", "trials", "err", fmt.Errorf("%s: %w", what, err), "next", "it is tried again every minute")
		}
	}
	// Domains first: what belongs to one was written down before.
	domains, err := o.Agent.List(ctx)
	if err != nil {
		failed("domains", err)
		return
	}
	there := map[ident.UUID]bool{}
	for _, d := range domains {
		if d.Domid != 0 {
			there[d.UUID] = true
		}
	}
	mine := map[ident.UUID]bool{} // of those who see to it
	for _, op := range o.Engine.List() {
		if op.Kind == api.KindUpdate && !op.Done {
			mine[ident.TrialUUID(op.ID)] = true
		}
	}
	names, err := c.dir().Names(cloneSuffix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		failed(c.Dir, err)
		return
	}
	for _, name := range names {
		rec, err := c.read(name)
		if errors.Is(err, store.ErrDamaged) {
			to, aside := c.dir().SetAside(name)
			failed(name, errors.Join(fmt.Errorf("%w; it is kept as %s: look for files .warmreboot-trial-* beside the disks", err, to), aside))
			continue
		}
		if err != nil {
			failed(name, err)
			mine[uuidOf(name)] = true
			continue
		}
		if rec.Kept && there[rec.UUID] {
			mine[rec.UUID] = true
		}
		if !mine[rec.UUID] {
			if err := o.clear(ctx, rec.UUID); err != nil {
				failed(rec.Name, err)
			} else {
				o.Log.Info("what a trial had left is thrown away", "op", "trials", "domain", rec.Name, "uuid", rec.UUID)
			}
		}
	}
	for _, d := range domains {
		if d.Domid != 0 && d.UUID.Trial() && !mine[d.UUID] {
			if err := o.removeDomain(ctx, d.UUID); err != nil {
				failed(d.Domain, err)
			}
		}
	}
}

func uuidOf(name string) ident.UUID {
	u, _ := ident.ParseUUID(strings.TrimSuffix(name, cloneSuffix))
	return u
}
