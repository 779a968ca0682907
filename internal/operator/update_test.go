package operator

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/agent"
	"github.com/warmreboot/warmreboot/internal/bootonce"
	"github.com/warmreboot/warmreboot/internal/config"
	"github.com/warmreboot/warmreboot/internal/health"
	"github.com/warmreboot/warmreboot/internal/operation"
	"github.com/warmreboot/warmreboot/internal/toolstack"
)

// way is what the new kernel does.
type way string

const (
	good        way = "good"
	panics      way = "panics"          // as it boots
	hangs       way = "hangs"           // and does not come up
	unwell      way = "unwell"          // is up, and fails the check
	later       way = "panics later"    // on probation
	deaf        way = "deaf"            // unwell, and does not react
	notCreated  way = "not created"     // the toolstack cannot build a domain with it
	notAskable  way = "cannot be asked" // the old kernel does not go down
	removed     way = "files removed"   // good, and both kernels' files are gone meanwhile
	unwellFirst way = "unwell before"
)

// updating is a host whose toolstack, with its loader, does what it is told.
type updating struct {
	*host
	web     *api.DomainStatus
	way     way
	kernel  toolstack.Kernel // that the configuration of the running domain has
	runs    string           // which kernel the domain has: what is in the file
	boots   []string
	ends    toolstack.Ends
	cannot  error // CanTry
	sick    error // what the health check says
	console string
	update  *api.UpdateRequest
	ended   []api.UpdateOutcome
	armed   func() // the toolstack has been told
	old     toolstack.Kernel
	made    bool              // it was created by us
	untold  error             // nobody says which kernel it has that was created by us
	byHand  *toolstack.Kernel // somebody creates the domain with, before it is created by us
	clones  *clones
	guests  nodes
}

// nodes are xenstore's.
type nodes func(path string) (string, error)

func (n nodes) Read(_ context.Context, path string) (string, error) { return n(path) }

// kernelFile is one that libxl knows: a bzImage that is not packed by gzip.
func kernelFile(name string) []byte {
	raw := make([]byte, 512*3)
	raw[0x1f1] = 1
	binary.LittleEndian.PutUint16(raw[0x1fe:], 0xaa55)
	copy(raw[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(raw[0x206:], 0x20f)
	binary.LittleEndian.PutUint32(raw[0x24c:], 16)
	return append(raw, fmt.Sprintf("%-16s", name)...)
}

func newUpdating(t *testing.T, w way) *updating {
	u := &updating{host: newHost(t), way: w, runs: "old", ends: toolstack.Ends{Crash: "restart", Reboot: "restart", Watchdog: "destroy"}}
	u.web = u.domains["web"]
	u.ticks = 10 * time.Millisecond
	if w == notCreated { // which is waited for longer
		u.ticks = time.Second
	}
	dir := t.TempDir()
	file := func(name string, raw []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	u.console = dir
	u.old = toolstack.Kernel{File: file("vmlinuz-old", kernelFile("old")), Initrd: file("initrd-old", []byte("i")), Cmdline: "root=/dev/xvda"}
	u.kernel = u.old
	file("guest-web.log", []byte("of the boot before\n"))
	u.update = &api.UpdateRequest{Kernel: file("vmlinuz-new", kernelFile("new")), Initrd: file("initrd-new", []byte("j")), DeadlineSeconds: 0.2, ProbationSeconds: 0.05,
		Health: &api.HealthCheck{Command: []string{"/usr/bin/check", "{domain}"}, TimeoutSeconds: 60}}
	u.booted = u.boot
	if w == unwellFirst {
		u.sick = errors.New("503")
	}
	return u
}

func (u *updating) say(text string) {
	f, err := os.OpenFile(filepath.Join(u.console, "guest-web.log"), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		u.t.Error(err)
	}
}

// boot is what libxl does with a new domain. h.mu is held.
func (u *updating) boot(d *api.DomainStatus) bool {
	file := u.kernel.File
	d.State, d.Phase = "running", "running"
	if u.kernel.Once != "" {
		dir := filepath.Join(u.t.TempDir(), fmt.Sprintf("bootloader.%d.d", d.Domid))
		out := filepath.Join(dir, "out")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			u.t.Error(err)
		}
		var said bytes.Buffer
		if bootonce.Main([]string{"--output=" + out, "--output-format=simple0", "--output-directory=" + dir, u.kernel.Once, "/dev/vdb"}, &said) != 0 {
			u.t.Error(said.String())
		}
		raw, err := os.ReadFile(out)
		if err != nil {
			u.t.Error(err)
		}
		file, _, _ = strings.Cut(strings.TrimPrefix(string(raw), "kernel "), "\x00")
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		u.t.Error(err)
		return true
	}
	was := u.runs
	u.runs = strings.TrimSpace(string(raw[len(raw)-16:]))
	u.boots = append(u.boots, u.runs)
	u.say(fmt.Sprintf("[0.0] Linux version 6 (%s)\r\n", u.runs))
	u.sick = nil
	if u.runs != "new" {
		return true
	}
	switch u.way {
	case panics:
		u.say("Kernel panic - not syncing: because\r\n")
		return false
	case notCreated:
		u.boots, u.runs = u.boots[:len(u.boots)-1], was
		d.Domid, d.State, d.Current = 0, "down", &api.Summary{Trigger: api.Graceful}
	case hangs:
		d.Current = &api.Summary{Domain: d.Domain, UUID: d.UUID, DomidAfter: d.Domid}
	case unwell, deaf:
		u.sick = errors.New("503")
	case removed:
		for _, path := range []string{u.old.File, u.update.Kernel} {
			_ = os.Remove(path)
		}
	}
	return true
}

// The toolstack.

func (*updating) Name() string                              { return toolstack.XL }
func (*updating) Can(toolstack.Capability) error            { return nil }
func (*updating) Create(context.Context, string) error      { return nil }
func (u *updating) CanTry(toolstack.Domain) (string, error) { return "pvh", u.cannot }
func (u *updating) Owner(ident.Domid, ident.UUID, string) (toolstack.Owner, error) {
	return toolstack.Owner{Toolstack: toolstack.XL, OnReboot: "restart"}, nil
}
func (*updating) Destroy(context.Context, toolstack.Domain) error { return nil }
func (u *updating) Reboot(context.Context, ident.Domid) error {
	return errors.New("it is asked by the agent")
}

func (u *updating) Recreate(_ context.Context, _ toolstack.Domain, k toolstack.Kernel, file string) error {
	if file == "" {
		return errors.New("xl create it")
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.web.Domid != 0 {
		return errors.New("it is there")
	}
	u.kernel, u.made = k, true
	if u.byHand != nil {
		u.kernel = *u.byHand
	}
	u.create(u.web)
	if u.byHand != nil {
		return errors.New("it is there")
	}
	return nil
}

func (u *updating) ForceReboot(_ context.Context, domid ident.Domid) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.web.Domid == domid {
		u.create(u.web)
	}
	return nil
}

func (u *updating) Kernel(_ context.Context, d toolstack.Domain) (toolstack.Kernel, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if d.Domid != u.web.Domid || d.Domid == 0 {
		return toolstack.Kernel{}, os.ErrNotExist
	}
	if u.made && u.untold != nil {
		return toolstack.Kernel{}, u.untold
	}
	return u.kernel, nil
}

func (u *updating) SetKernel(_ context.Context, d toolstack.Domain, k toolstack.Kernel) error {
	u.effect()
	defer u.effect()
	u.mu.Lock()
	defer u.mu.Unlock()
	if d.Domid != u.web.Domid || d.Domid == 0 {
		return os.ErrNotExist
	}
	if _, err := os.Stat(k.File); err != nil {
		return err
	}
	u.kernel = k
	if u.armed != nil {
		u.armed()
	}
	return nil
}

// start starts a daemon that does updates, too.
func (u *updating) start() *Operator {
	u.t.Helper()
	o := u.unserved()
	u.engine.Resume()
	return o
}

// unserved is one that has not taken up anything yet.
func (u *updating) unserved() *Operator {
	u.t.Helper()
	o := u.unresumed()
	o.ServeUpdates(Updates{Owner: u.Owner, Ends: func(ident.Domid, ident.UUID) (toolstack.Ends, error) { return u.ends, nil },
		Drivers: map[string]toolstack.Driver{toolstack.XL: u}, Dir: filepath.Join(u.dir, "updates"), Console: u.console, Configs: u.console, Poll: time.Millisecond,
		Clones: u.clones.served(),
		Nodes:  u.guests,
		Well: func(ctx context.Context, h *config.Health, s health.Subject) error {
			if h.Xenstore != "" {
				return health.Await(ctx, h, s)
			}
			if slices.Contains(s.Env, "WARMREBOOT_TRIAL=1") {
				return u.clones.well(s.Expand(h.Args[1]))
			}
			if s.Expand(h.Args[1]) != "web" || !slices.Contains(s.Env, "WARMREBOOT_DOMAIN=web") {
				return fmt.Errorf("%q in %q", h.Args, s.Env)
			}
			u.mu.Lock()
			defer u.mu.Unlock()
			return u.sick
		},
		Ended: func(_ ident.UUID, outcome api.UpdateOutcome) { u.ended = append(u.ended, outcome) }})
	return o
}

func (u *updating) request() api.OperationRequest {
	return api.OperationRequest{Kind: api.KindUpdate, Domain: "web", Mode: api.Graceful, Update: u.update, Key: "k", Owner: "ann"}
}

// deafness has requests fail where nobody reacts.
func (u *updating) deafness() {
	u.refuses = func(mode api.Trigger) error {
		if u.way == notAskable || u.way == deaf && u.runs == "new" {
			return api.Errorf(api.TimedOut, "the guest does not react").Try(api.TryForce)
		}
		return nil
	}
}

// panicLater has the new kernel go down once it is on probation.
func (u *updating) panicLater() {
	u.looked = func() {
		for _, op := range u.engine.List() {
			if n := len(op.Steps); u.way == later && u.runs == "new" && n > 0 && op.Steps[n-1].Name == "probation" && !op.Steps[n-1].Done {
				u.say("Kernel panic - not syncing: late\r\n")
				u.create(u.web)
			}
		}
	}
}

// TestUpdate: each way in which a new kernel behaves ends in the right one, with the
// toolstack's configuration without a loader, nothing left behind, and the truth told.
func TestUpdate(t *testing.T) {
	for w, c := range map[way]struct {
		outcome api.UpdateOutcome
		code    api.Code
		boots   string
		why     string
		console string // the last line
	}{
		good:        {api.Updated, "", "new", "", ""},
		removed:     {api.Updated, "", "new", "", ""},
		panics:      {api.UpdateBack, api.FellBack, "new old", "", "Kernel panic - not syncing: because"},
		later:       {api.UpdateBack, api.FellBack, "new old", "on probation", "Kernel panic - not syncing: late"},
		hangs:       {api.UpdateBack, api.FellBack, "new old", "not up after 200ms", "[0.0] Linux version 6 (new)"},
		unwell:      {api.UpdateBack, api.FellBack, "new old", "not well", "[0.0] Linux version 6 (new)"},
		deaf:        {api.UpdateBack, api.FellBack, "new old", "not well", "[0.0] Linux version 6 (new)"},
		notCreated:  {api.UpdateBack, api.FellBack, "old", "could not be loaded", "[0.0] Linux version 6 (new)"},
		notAskable:  {api.NotTried, api.TimedOut, "", "does not react", ""},
		unwellFirst: {api.NotTried, api.UpdateRefused, "", "not well before", ""},
	} {
		t.Run(string(w), func(t *testing.T) {
			t.Parallel()
			u := newUpdating(t, w)
			u.deafness()
			u.panicLater()
			if w == notCreated {
				u.update.DeadlineSeconds = 120 // in which it is seen that it is gone
				if err := os.WriteFile(filepath.Join(u.console, "web.cfg"), []byte("name = 'web'\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			o := u.start()
			op, err := api.AwaitOperation(context.Background(), o, u.request())
			if op.Update == nil {
				t.Fatalf("%+v, %v", op, err)
			}
			if op.Update.Outcome != c.outcome || code(err) != c.code || strings.Join(u.boots, " ") != c.boots || !strings.Contains(op.Update.Why, c.why) || !slices.Equal(u.ended, []api.UpdateOutcome{c.outcome}) {
				t.Errorf("%+v, %v, booted %q, told %v", op.Update, err, u.boots, u.ended)
			}
			u.right(t, op)
			last := ""
			if n := len(op.Update.Console); n > 0 {
				last = op.Update.Console[n-1]
			}
			if last != c.console {
				t.Errorf("the console ends with %q, want %q", last, c.console)
			}
			if c.outcome == api.Updated || c.outcome == api.UpdateBack {
				if all := u.history(); w != hangs && w != notCreated && (len(all) == 0 || all[len(all)-1].Operation != op.ID || !strings.Contains(all[0].Followed, "update to ")) {
					t.Errorf("the history: %+v", all)
				}
			}
		})
	}
}

// TestUpdateLeft: a domain that somebody has saved, moved, switched off or taken away
// during its trial is nobody's to create, even if its configuration is known: it may
// run elsewhere, on the same disks.
func TestUpdateLeft(t *testing.T) {
	for what, c := range map[string]struct {
		is   api.DomainStatus
		says string
	}{
		"saved":         {api.DomainStatus{State: "gone", Phase: "gone"}, "saved"},
		"switched off":  {api.DomainStatus{State: "down", Phase: "off"}, "switched off"},
		"destroyed":     {api.DomainStatus{State: "down", Phase: "down", Current: &api.Summary{Trigger: api.Unknown, DomidBefore: 1000}}, "taken away"},
		"not managed":   {api.DomainStatus{State: "down"}, "taken away"},
		"not looked at": {api.DomainStatus{State: "down", Phase: "down", Unwitnessed: true, Current: &api.Summary{Trigger: api.Graceful, DomidBefore: 1000}}, "moved to another host"},
	} {
		u := newUpdating(t, good)
		u.ticks = time.Second
		u.update.DeadlineSeconds, u.update.ProbationSeconds = 600, 3600
		if err := os.WriteFile(filepath.Join(u.console, "web.cfg"), []byte("name = 'web'\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		u.looked = func() {
			if u.runs == "new" {
				u.web.Domid, u.web.State, u.web.Phase, u.web.Current, u.web.Unwitnessed = 0, c.is.State, c.is.Phase, c.is.Current, c.is.Unwitnessed
			}
		}
		op, err := api.AwaitOperation(t.Context(), u.start(), u.request())
		if op.Update == nil || op.Update.Outcome != api.UpdateLost || code(err) != api.Failed || !strings.Contains(op.Update.Why, c.says) || strings.Join(u.boots, " ") != "new" || u.web.Domid != 0 {
			t.Errorf("%s: %+v, %v, booted %q", what, op.Update, err, u.boots)
		}
	}
	// Seen by nobody to go down by a reboot or a crash, it is nobody's to create, either.
	for trigger, ours := range map[api.Trigger]bool{api.Graceful: true, api.Crash: true, api.Unknown: false} {
		s := api.DomainStatus{State: "down", Phase: "down", Current: &api.Summary{Trigger: trigger, DomidBefore: 7}}
		if why := left(s); (why == "") != ours {
			t.Errorf("%s: %q", trigger, why)
		}
	}
}

// TestUpdateTwice: a domain is in one update at a time, whoever insists; and if somebody
// removes the copies, it still ends without the loader.
func TestUpdateTwice(t *testing.T) {
	u := newUpdating(t, good)
	u.ticks, u.update.ProbationSeconds = 0, 1e6
	o := u.start()
	first, err := o.Begin(t.Context(), u.request())
	if err != nil {
		t.Fatal(err)
	}
	for op := range o.Follow(t.Context(), first.ID) {
		if slices.Contains(names(op), "probation") {
			break
		}
	}
	r := u.request()
	r.Key, r.Override = "l", true
	if _, err := o.Plan(t.Context(), r); code(err) != api.Locked {
		t.Errorf("planned: %v", err)
	}
	if op, err := api.AwaitOperation(t.Context(), o, r); code(err) != api.Locked || !strings.Contains(err.Error(), first.ID) || op.Update.Outcome != api.NotTried {
		t.Errorf("%+v, %v", op, err)
	}
	dirs, err := filepath.Glob(filepath.Join(u.dir, "updates", "*"))
	if err != nil || len(dirs) != 1 || u.kernel.Once != dirs[0] {
		t.Fatalf("%q, %v, is to boot %+v", dirs, err, u.kernel)
	}
	for _, which := range []bootonce.Which{bootonce.Old, bootonce.New} {
		if err := os.RemoveAll(filepath.Join(dirs[0], string(which))); err != nil {
			t.Fatal(err)
		}
	}
	u.pass(1e6 * time.Second)
	op, err := api.AwaitOperation(t.Context(), o, u.request())
	if err != nil {
		t.Errorf("%+v, %v", op, err)
	}
	u.right(t, op)
}

// TestUpdateNoRoom: an update that cannot be journalled any more, before the domain was
// asked to reboot, leaves no new kernel behind that somebody's reboot would boot.
func TestUpdateNoRoom(t *testing.T) {
	u := newUpdating(t, good)
	o := u.start()
	u.armed = func() { u.full = true }
	op, err := api.AwaitOperation(t.Context(), o, u.request())
	if code(err) != api.Failed || !strings.Contains(err.Error(), "make room") || len(u.asked) > 0 {
		t.Errorf("%+v, %v, asked %q", op, err, u.asked)
	}
	if err := u.ForceReboot(t.Context(), u.web.Domid); err != nil || u.runs != "old" {
		t.Errorf("its next boot is %s, and nobody waits for it: %v", u.runs, err)
	}
}

// TestUpdateNotCreated: a domain that its toolstack could not create is created again with
// its old kernel, by a copy if the file is not what it was. If somebody else was quicker,
// with another one, or nobody says which it has, it is not said to have its old one.
func TestUpdateNotCreated(t *testing.T) {
	prepare := func() *updating {
		u := newUpdating(t, notCreated)
		u.update.DeadlineSeconds = 120
		if err := os.WriteFile(filepath.Join(u.console, "web.cfg"), []byte("name = 'web'\nkernel = '/of/long/ago'\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return u
	}
	u := prepare()
	u.armed = func() { _ = os.WriteFile(u.old.File, kernelFile("another"), 0o600) }
	op, err := api.AwaitOperation(t.Context(), u.start(), u.request())
	if op.Update == nil || op.Update.Outcome != api.UpdateBack || code(err) != api.FellBack || u.runs != "old" || !strings.HasPrefix(u.kernel.File, op.Update.Copies) || op.Update.Copies == "" {
		t.Errorf("%+v, %v; it runs %s, and boots %+v", op.Update, err, u.runs, u.kernel)
	}

	u = prepare()
	other := u.old
	other.Cmdline = "of long ago"
	u.byHand = &other
	op, err = api.AwaitOperation(t.Context(), u.start(), u.request())
	if op.Update == nil || op.Update.Outcome != api.UpdateLost || code(err) != api.Failed || !strings.Contains(op.Update.Why, "could not be loaded") || !strings.Contains(op.Update.Why, "of long ago") {
		t.Errorf("%+v, %v", op.Update, err)
	}
	if left, _ := filepath.Glob(filepath.Join(u.dir, "updates", "*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}

	u = prepare()
	u.untold = errors.New("xl does not answer")
	op, err = api.AwaitOperation(t.Context(), u.start(), u.request())
	if op.Update == nil || op.Update.Outcome != api.UpdateLost || code(err) != api.Failed || !strings.Contains(op.Update.Why, "not known: xl does not answer") {
		t.Errorf("%+v, %v", op.Update, err)
	}
}

// TestUpdateScheduled: as a part of a schedule's run an update is what it is by itself,
// whoever is killed; a domain that has the kernel is none of it, and an operator updates
// no domain that is in such a run.
func TestUpdateScheduled(t *testing.T) {
	type spec struct {
		Schedule struct{ Update config.Update } `json:"schedule"`
	}
	var u *updating
	wanted := func() ScheduledUpdate {
		return ScheduledUpdate{Asker: agent.Asker{By: api.BySchedule, Schedule: "noon"}, Domain: u.web.UUID, Mode: api.Graceful,
			Update: config.Update{Kernel: u.update.Kernel, Initrd: u.update.Initrd, Deadline: 200 * time.Millisecond, Probation: seconds(u.update.ProbationSeconds)},
			Health: &config.Health{Args: u.update.Health.Command, Timeout: time.Minute, Interval: time.Second}, Expand: func(s string) string { return s }}
	}
	type result struct {
		Ready  bool
		Update api.Update
	}
	start := func() (*Operator, func() (operation.Operation, error)) {
		o := u.start()
		u.engine.Register(api.KindSchedule, func(ctx context.Context, run *operation.Run) (any, error) {
			if err := operation.Admit(ctx, run, operation.Admission{TTL: time.Hour}); err != nil {
				return nil, err
			}
			ready, err := operation.Do(ctx, run, "kernel", operation.Again, func(ctx context.Context) (bool, error) { return o.Ready(ctx, run, wanted()) })
			if err != nil || !ready {
				return result{Ready: ready}, err
			}
			_, up, err := o.Update(ctx, run, wanted())
			return result{ready, up}, err
		})
		return o, func() (operation.Operation, error) {
			var s spec
			s.Schedule.Update = wanted().Update
			return u.engine.Start(operation.Request{Kind: api.KindSchedule, By: api.BySchedule, Schedule: "noon", Key: "k", Owner: "noon", Domain: "web", UUID: u.web.UUID, Spec: s})
		}
	}
	end := func(begin func() (operation.Operation, error)) (result, *api.Error) {
		t.Helper()
		op, err := begin()
		if err != nil {
			t.Fatal(err)
		}
		u.engine.Wait()
		op, _, _ = u.engine.Get(op.ID)
		var r result
		if err := json.Unmarshal(op.Result, &r); err != nil || !op.Done {
			t.Fatalf("%+v, %v", op, err)
		}
		return r, op.Error
	}
	for _, w := range []way{good, panics} {
		u = newUpdating(t, w)
		u.deafness()
		_, begin := start()
		want, code := api.Updated, api.Code("")
		if w == panics {
			want, code = api.UpdateBack, api.FellBack
		}
		r, err := end(begin)
		if !r.Ready || r.Update.Outcome != want || code == "" != (err == nil) || err != nil && err.Code != code || len(u.askedBy) != 1 || u.askedBy[0].Schedule != "noon" {
			t.Errorf("%s: %+v, %v, asked by %+v", w, r, err, u.askedBy)
		}
		u.right(t, api.Operation{Update: &r.Update})
	}

	u = newUpdating(t, good)
	u.kernel = toolstack.Kernel{File: u.update.Kernel, Initrd: u.update.Initrd, Cmdline: u.old.Cmdline}
	_, begin := start()
	if r, err := end(begin); r.Ready || err != nil || len(u.asked) > 0 {
		t.Errorf("one that has it: %+v, %v", r, err)
	}
	u = newUpdating(t, good)
	u.ends.Crash = "destroy"
	_, begin = start()
	if _, err := end(begin); err == nil || err.Code != api.UpdateRefused || len(u.asked) > 0 {
		t.Errorf("one that would not come back: %v", err)
	}

	u = newUpdating(t, good)
	u.ticks, u.update.ProbationSeconds = 0, 1e6
	o, begin := start()
	op, err := begin()
	if err != nil {
		t.Fatal(err)
	}
	for op, err := range u.engine.Follow(t.Context(), op.ID) {
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(names(shown(op)), "probation") {
			break
		}
	}
	r := u.request()
	r.Override = true
	if _, err := o.Plan(t.Context(), r); code(err) != api.Locked || !strings.Contains(err.Error(), op.ID) {
		t.Errorf("an operator's at the same time: %v", err)
	}
	u.pass(1e6 * time.Second)
	u.engine.Wait()
}

// TestUpdateBootComplete: a guest that has to say in xenstore that it has booted has to
// say so with the new kernel, whatever the domain before had said.
func TestUpdateBootComplete(t *testing.T) {
	for _, w := range []way{good, unwell} {
		u := newUpdating(t, w)
		u.update.Health = &api.HealthCheck{Xenstore: "data/boot-complete", TimeoutSeconds: 0.05}
		first := u.web.Domid
		u.guests = func(path string) (string, error) {
			u.mu.Lock()
			defer u.mu.Unlock()
			if path != fmt.Sprintf("/local/domain/%d/data/boot-complete", u.web.Domid) || u.web.Domid != first && u.runs == "new" && w == unwell {
				return "", fs.ErrNotExist
			}
			return "1", nil
		}
		op, err := api.AwaitOperation(t.Context(), u.start(), u.request())
		want := map[way]api.UpdateOutcome{good: api.Updated, unwell: api.UpdateBack}[w]
		if op.Update == nil || op.Update.Outcome != want || (w == unwell) != strings.Contains(op.Update.Why, "has not written 1 to data/boot-complete") {
			t.Errorf("%s: %+v, %v", w, op.Update, err)
		}
		u.right(t, op)
	}
	for said, err := range map[string]error{"0": nil, "": fs.ErrNotExist} { // before the update
		u := newUpdating(t, good)
		u.update.Health = &api.HealthCheck{Xenstore: "data/boot-complete", TimeoutSeconds: 0.05}
		u.guests = func(string) (string, error) { return said, err }
		op, err := api.AwaitOperation(t.Context(), u.start(), u.request())
		if code(err) != api.UpdateRefused || len(u.asked) > 0 {
			t.Errorf("%q: %+v, %v", said, op.Update, err)
		}
	}
}

// TestUpdateWriteConfig: the operator's configuration names the new kernel once that is
// the domain's, if he asked for it, and is left alone else; what cannot be done is said
// before anything is, if it can be known by then.
func TestUpdateWriteConfig(t *testing.T) {
	for what, c := range map[string]struct {
		way     way
		change  func(u *updating, path string) // once the toolstack has been told
		outcome api.UpdateOutcome
		code    api.Code
		says    string
		written bool
	}{
		"good":              {good, nil, api.Updated, "", "", true},
		"fell back":         {panics, nil, api.UpdateBack, api.FellBack, "", false},
		"changed meanwhile": {good, func(u *updating, path string) { u.config(path, "/boot/third") }, api.Updated, api.Failed, "/boot/third", false},
		"files are gone":    {removed, nil, api.Updated, api.Failed, "not what the domain boots", false},
	} {
		u := newUpdating(t, c.way)
		path := filepath.Join(u.console, "web.cfg")
		u.config(path, u.old.File)
		u.update.WriteConfig = true
		if c.change != nil {
			u.armed = func() { c.change(u, path) }
		}
		o := u.start()
		if p, err := o.Plan(t.Context(), u.request()); err != nil || p.Update.Config != path {
			t.Errorf("%s: planned %+v, %v", what, p.Update, err)
		}
		op, err := api.AwaitOperation(t.Context(), o, u.request())
		if code(err) != c.code || op.Update == nil || op.Update.Outcome != c.outcome || op.Update.ConfigWritten != c.written || !strings.Contains(op.Update.ConfigError, c.says) || c.says != "" && !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %+v, %v", what, op.Update, err)
		}
		raw, err := os.ReadFile(path)
		if err != nil || strings.Contains(string(raw), u.update.Kernel) != c.written || strings.Contains(string(raw), u.update.Initrd) != c.written || !strings.Contains(string(raw), "# kept") {
			t.Errorf("%s: %v, %s", what, err, raw)
		}
		u.armed = nil
		u.right(t, op)
	}
	for text, says := range map[string]string{"": "say which", "name = 'web'\nkernel = '/boot/third'\n": "/boot/third"} {
		u := newUpdating(t, good)
		u.update.WriteConfig = true
		if err := os.WriteFile(filepath.Join(u.console, "web.cfg"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if op, err := api.AwaitOperation(t.Context(), u.start(), u.request()); code(err) != api.UpdateRefused || !strings.Contains(err.Error(), says) || len(u.asked) > 0 || u.kernel != u.old {
			t.Errorf("%q: %+v, %v", text, op.Update, err)
		}
	}
}

// config writes the operator's configuration.
func (u *updating) config(path, kernel string) {
	text := fmt.Sprintf("name = 'web' # kept\nkernel = %q\nramdisk = %q\ncmdline = %q\n", kernel, u.old.Initrd, u.old.Cmdline)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		u.t.Error(err)
	}
}

// right asserts that the domain has the kernel that is said, now and at its next boots.
func (u *updating) right(t *testing.T, op api.Operation) {
	t.Helper()
	runs := "old"
	if op.Update.Outcome == api.Updated {
		runs = "new"
	}
	if u.runs != runs || u.kernel.Once != "" {
		t.Errorf("%s: it runs %s, and is to boot %+v", op.Update.Outcome, u.runs, u.kernel)
	}
	for range 2 {
		if err := u.ForceReboot(t.Context(), u.web.Domid); err != nil || u.runs != runs {
			t.Errorf("%s: its next boot is %s", op.Update.Outcome, u.runs)
		}
		u.web.Current = nil
		u.way = good
	}
	left, _ := filepath.Glob(filepath.Join(u.dir, "updates", "*"))
	if _, err := os.Stat(u.update.Kernel); err != nil {
		if len(left) != 1 || !strings.HasPrefix(u.kernel.File, left[0]) || op.Update.Copies != left[0] {
			t.Errorf("the domain boots %+v, left is %q, told %q", u.kernel, left, op.Update.Copies)
		}
	} else if len(left) > 0 || op.Update.Copies != "" || u.kernel.File != u.old.File && u.kernel.File != u.update.Kernel {
		t.Errorf("left: %q, %q; it boots %+v", left, op.Update.Copies, u.kernel)
	}
	if len(u.kept.Locks(u.moment())) != 0 {
		t.Error("it is still locked")
	}
}

// TestUpdateRefused: what is seen to be wrong beforehand is said, and nothing is done.
func TestUpdateRefused(t *testing.T) {
	text := func(u *updating) string {
		path := filepath.Join(u.console, "text")
		if err := os.WriteFile(path, bytes.Repeat([]byte("text "), 500), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for what, c := range map[string]struct {
		change func(*updating)
		code   api.Code
		says   string
	}{
		"no kernel":          {func(u *updating) { u.update.Kernel = "" }, api.BadRequest, "no kernel"},
		"a relative kernel":  {func(u *updating) { u.update.Kernel = "vmlinuz" }, api.BadRequest, "absolute"},
		"no time":            {func(u *updating) { u.update.DeadlineSeconds = 0 }, api.BadRequest, "deadline"},
		"two checks":         {func(u *updating) { u.update.Health.TCP = "a:1" }, api.BadRequest, "one of"},
		"a path elsewhere":   {func(u *updating) { u.update.Health = &api.HealthCheck{Xenstore: "../0/x", TimeoutSeconds: 1} }, api.BadRequest, "below"},
		"no file":            {func(u *updating) { u.update.Kernel += "x" }, api.UpdateRefused, "no such file"},
		"no initrd file":     {func(u *updating) { u.update.Initrd += "x" }, api.UpdateRefused, "no such file"},
		"text":               {func(u *updating) { u.update.Kernel = text(u) }, api.UpdateRefused, "no x86 kernel"},
		"no word of initrd":  {func(u *updating) { u.update.Initrd = "" }, api.UpdateRefused, `or "none"`},
		"the old one":        {func(u *updating) { u.update.Kernel, u.update.Initrd = u.old.File, u.old.Initrd }, api.UpdateRefused, "already"},
		"no way back":        {func(u *updating) { _ = os.Remove(u.old.File) }, api.UpdateRefused, "fall back"},
		"crash is the end":   {func(u *updating) { u.ends.Crash = "preserve" }, api.UpdateRefused, "on_crash"},
		"another's config":   {func(u *updating) { u.update.Config = text(u) }, api.UpdateRefused, "not its configuration"},
		"no config file":     {func(u *updating) { u.update.Config = "/nowhere/web.cfg" }, api.UpdateRefused, "no such file"},
		"no loader":          {func(u *updating) { u.cannot = errors.New("it is an HVM guest") }, api.UpdateRefused, "HVM"},
		"not there":          {func(u *updating) { delete(u.domains, "web") }, api.NotFound, "no domain"},
		"a folder is a file": {func(u *updating) { _ = os.WriteFile(filepath.Join(u.dir, "updates"), nil, 0o600) }, api.UpdateRefused, "state directory"},
	} {
		u := newUpdating(t, good)
		c.change(u)
		o := u.start()
		r := u.request()
		planned := what != "a folder is a file"
		if _, err := o.Plan(t.Context(), r); planned && (code(err) != c.code || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s, planned: %v", what, err)
		}
		op, err := api.AwaitOperation(t.Context(), o, r)
		if code(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
		if len(u.asked) > 0 || len(u.boots) > 0 || u.kernel != u.old || op.Update != nil && op.Update.Outcome != api.NotTried {
			t.Errorf("%s: %q, %q, %+v, %+v", what, u.asked, u.boots, u.kernel, op.Update)
		}
	}
	u := newUpdating(t, good)
	line := "quiet"
	u.update.Cmdline, u.update.Initrd = &line, api.NoInitrd
	p, err := u.start().Plan(t.Context(), u.request())
	if err != nil || p.Update == nil || p.Update.New != (api.BootFiles{Kernel: u.update.Kernel, Cmdline: "quiet"}) || p.Update.Old.Kernel != u.old.File || u.kernel != u.old {
		t.Errorf("%+v, %v", p.Update, err)
	}
}

// killed has the update done until its daemon is killed after some effect, if it is.
func (u *updating) killed(at int) bool {
	ctx, kill := context.WithCancel(context.Background())
	u.ctx, u.kill, u.dieAt, u.coarse = ctx, kill, at, true
	done := make(chan struct{})
	go func() {
		defer close(done)
		o := u.start()
		op, err := o.Begin(ctx, u.request())
		if err != nil {
			u.t.Error(err)
			return
		}
		for range o.Follow(ctx, op.ID) {
		}
	}()
	<-done
	u.engine.Wait()
	kill()
	u.mu.Lock()
	defer u.mu.Unlock()
	died := u.dead
	u.dead, u.dieAt, u.ctx = false, 0, context.Background()
	return died
}

// TestUpdateKilled: whatever the daemon was doing, the next one ends the update: the
// new kernel is tried once at most, the domain ends with the right one, and its next
// boots are of that.
func TestUpdateKilled(t *testing.T) {
	for _, w := range []way{good, panics, later, hangs, unwell} {
		t.Run(string(w), func(t *testing.T) {
			t.Parallel()
			for at := 1; ; at++ {
				u := newUpdating(t, w)
				u.deafness()
				u.panicLater()
				config := filepath.Join(u.console, "web.cfg")
				u.config(config, u.old.File)
				u.update.WriteConfig = true
				died := u.killed(at)
				o := u.start()
				op, err := api.AwaitOperation(context.Background(), o, u.request())
				u.engine.Wait()
				if op.Update == nil {
					t.Fatalf("killed after effect %d: %+v, %v", at, op, err)
				}
				want := []api.UpdateOutcome{api.Updated, api.NotTried}
				if w != good {
					want[0] = api.UpdateBack
				}
				news := 0
				for _, b := range u.boots {
					if b == "new" {
						news++
					}
				}
				if !slices.Contains(want, op.Update.Outcome) || news > 1 || (news == 0) != (op.Update.Outcome == api.NotTried) {
					t.Errorf("killed after effect %d: %+v, %v, booted %q", at, op.Update, err, u.boots)
				}
				u.right(t, op)
				raw, err := os.ReadFile(config)
				if err != nil || strings.Contains(string(raw), u.update.Kernel) != (op.Update.Outcome == api.Updated) || op.Update.ConfigWritten != (op.Update.Outcome == api.Updated) {
					t.Errorf("its configuration: %v, %+v\n%s", err, op.Update, raw)
				}
				u.kept.Close()
				if t.Failed() {
					t.Fatalf("killed after effect %d", at)
				}
				if !died {
					if at < 40 || op.Update.Outcome != want[0] {
						t.Errorf("without being killed, after %d effects: %+v", at, op.Update)
					}
					return
				}
			}
		})
	}
}

// TestNewConsole: what is shown is the new kernel's, whatever comes before and after.
func TestNewConsole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	long := strings.Repeat("line\n", 100)
	for text, want := range map[string]string{
		"":                                  "",
		"going down\nLinux version 1\na\nb": "Linux version 1|a|b",
		"x\n[0] Linux version 1\r\na\r\n[0] Linux version 2\nc\n": "[0] Linux version 1|a",
		"no kernel\n":              "no kernel",
		"Linux version 1\nb\xff\n": "Linux version 1|b?",
	} {
		if err := os.WriteFile(path, []byte("before\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(newConsole(path, 7), "|"); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if err := os.WriteFile(path, []byte(long), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := newConsole(path, 1<<20); len(got) != consoleLines { // it was rotated
		t.Errorf("%d lines", len(got))
	}
	if got := newConsole(path+"x", 0); got != nil {
		t.Errorf("%q", got)
	}
}

// TestUpdateByItself: a domain that has rebooted into the new kernel by itself, while
// there was no daemon, is not asked to reboot again, which would be the end of it.
func TestUpdateByItself(t *testing.T) {
	for at := 1; ; at++ {
		u := newUpdating(t, good)
		if !u.killed(at) || len(u.asked) > 0 {
			t.Fatal("it was never killed between")
		}
		all := u.engine.List()
		if len(all) == 0 || len(all[0].Steps) == 0 {
			continue
		}
		if last := all[0].Steps[len(all[0].Steps)-1]; last.Name != "arm" || !last.Done {
			u.kept.Close()
			continue
		}
		if err := u.ForceReboot(t.Context(), u.web.Domid); err != nil {
			t.Fatal(err)
		}
		op, err := api.AwaitOperation(context.Background(), u.start(), u.request())
		if err != nil || op.Update == nil || op.Update.Outcome != api.Updated || len(u.asked) > 0 {
			t.Errorf("%+v, %v, asked %q", op.Update, err, u.asked)
		}
		u.right(t, op)
		return
	}
}

// TestUpdateHostBooted: an update that was being prepared when the host was booted is not
// tried: what its domain boots is what the host has started it with since.
func TestUpdateHostBooted(t *testing.T) {
	met := 0
	for at := 1; ; at++ {
		u := newUpdating(t, good)
		if !u.killed(at) || len(u.asked) > 0 {
			break
		}
		u.host.boot = "another boot"
		o := u.unserved()
		all := u.engine.List() // as it was journalled
		if len(all) == 0 || len(all[0].Steps) == 0 {
			continue
		}
		if last := all[0].Steps[len(all[0].Steps)-1]; last.Name == "keep" && last.Done || last.Name == "arm" && !last.Done {
			met++
			want := u.old
			if u.kernel.Once == "" {
				want.Cmdline = "of the configuration since"
				u.kernel = want
			}
			u.engine.Resume()
			op, err := api.AwaitOperation(context.Background(), o, u.request())
			if code(err) != api.UpdateRefused || !strings.Contains(err.Error(), "booted meanwhile") || op.Update == nil || op.Update.Outcome != api.NotTried || len(u.asked) > 0 || u.kernel != want {
				t.Errorf("killed after effect %d: %+v, %v, asked %q; it is to boot %+v", at, op.Update, err, u.asked, u.kernel)
			}
			u.right(t, op)
		}
		u.kept.Close()
	}
	if met < 3 {
		t.Errorf("it was killed between only %d times", met)
	}
}

// TestUpdateScheduledLate: a schedule's update whose daemon was stopped before the reboot
// goes on to it only within the time that its whole run may take, and if nothing is in its
// way then, such as its windows; else it is as if nothing had been.
func TestUpdateScheduledLate(t *testing.T) {
	for what, c := range map[string]struct {
		refuses error
		passes  time.Duration
		outcome api.UpdateOutcome
		says    string
	}{
		"in time":         {nil, time.Hour, api.Updated, ""}, // the hooks took some of it
		"too late":        {nil, 3 * time.Hour, api.NotTried, "its time is over"},
		"window has shut": {api.Errorf(api.Locked, "outside its windows"), time.Minute, api.NotTried, "now outside its windows"},
	} {
		u := newUpdating(t, good)
		wanted := ScheduledUpdate{Asker: agent.Asker{By: api.BySchedule, Schedule: "noon"}, Domain: u.web.UUID, Mode: api.Graceful, Longest: 2 * time.Hour,
			Update: config.Update{Kernel: u.update.Kernel, Initrd: u.update.Initrd, Deadline: 200 * time.Millisecond}, Expand: func(s string) string { return s }}
		start := func(refuses error) operation.Operation {
			o := u.unserved()
			u.engine.Ask(operation.BlockerFunc(func(context.Context, operation.Target) error { return refuses }))
			u.engine.Register(api.KindSchedule, func(ctx context.Context, run *operation.Run) (any, error) {
				if err := operation.Admit(ctx, run, operation.Admission{TTL: time.Hour}); err != nil {
					return nil, err
				}
				_, up, err := o.Update(ctx, run, wanted)
				return up, err
			})
			u.engine.Resume()
			op, err := u.engine.Start(operation.Request{Kind: api.KindSchedule, By: api.BySchedule, Schedule: "noon", Key: "k", Owner: "noon", Domain: "web", UUID: u.web.UUID})
			if err != nil {
				t.Fatal(err)
			}
			u.engine.Wait()
			op, _, _ = u.engine.Get(op.ID)
			return op
		}
		ctx, stop := context.WithCancel(context.Background())
		u.ctx, u.armed = ctx, stop
		if op := start(nil); op.Done || u.kernel.Once == "" {
			t.Fatalf("%s: %+v", what, op)
		}
		u.ctx, u.armed = context.Background(), nil
		u.pass(c.passes)
		op := start(c.refuses)
		var up api.Update
		if err := json.Unmarshal(op.Result, &up); err != nil || !op.Done || up.Outcome != c.outcome || !strings.Contains(up.Why, c.says) || (c.outcome == api.Updated) != (len(u.asked) == 1) {
			t.Errorf("%s: %+v, %v, asked %q", what, up, op.Error, u.asked)
		}
		u.right(t, api.Operation{Update: &up})
	}
}

// TestUpdateCancelled: an update that the guest has taken no note of yet is cancelled,
// and the toolstack boots the old kernel as if nothing had been.
func TestUpdateCancelled(t *testing.T) {
	u := newUpdating(t, good)
	u.let = make(chan struct{})
	u.update.DeadlineSeconds = 60
	o := u.start()
	op, err := o.Begin(t.Context(), u.request())
	if err != nil {
		t.Fatal(err)
	}
	for u.times("graceful web") == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := o.Cancel(t.Context(), op.ID, "bob"); err != nil {
		t.Fatal(err)
	}
	op, err = api.AwaitOperation(t.Context(), o, u.request())
	if code(err) != api.Cancelled || op.State != api.OperationCancelled || op.Update == nil || op.Update.Outcome != api.NotTried || len(u.boots) > 0 {
		t.Fatalf("%+v, %v, booted %q", op, err, u.boots)
	}
	close(u.let)
	u.right(t, op)
}
