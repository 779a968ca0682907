package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/warmreboot/warmreboot/tests/bench/hand"
	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/agent"
	"github.com/warmreboot/warmreboot/tests/lab/build"
	"github.com/warmreboot/warmreboot/tests/lab/demo"
)

// bench is one run of the benchmark.
type bench struct {
	Settings
	machine *lab.Machine
	dom0    *lab.Client
	domU    *lab.Client
	product demo.Product
	report  *Report
	dir     string
	say     func(string)
	stock   func() (string, error) // finds or builds the kernel without the patches
	// untracked is the domU while it is not enabled, or its kernel not patched.
	untracked bool
	warm      bool // see warmUp
	filled    bool // see fill
	made      bool // the files
	neighbour *lab.Client
}

// Where things are in the machines.
const (
	handPath   = "/root/benchhand"
	configPath = "/root/bench.cfg"
	largeRoot  = "/srv/large"
	imageRoot  = build.ImageRoot + "/large"
	besideRoot = build.ImageRoot + "/beside"
	smallRoot  = "/srv/small"
	database   = "/srv/database/000/00"
	sqlitePath = "/srv/sqlite/db"
	writeRoot  = "/srv/write"
	madePath   = "/srv/made" // says that all files are there
	phy        = "xvda"
	image      = "xvdb"
)

// play sets the lab up, unless it was left by an earlier run, and runs the
// groups of workloads. A group that fails does not keep the others from it.
func (b *bench) play(ctx context.Context, handFile string, left bool) error {
	b.dom0, b.domU, b.product = b.machine.Dom0(), b.machine.DomU(), demo.Product{Dom0: b.machine.Dom0()}
	if err := b.dom0.Put(ctx, handFile, handPath, 0o755); err != nil {
		return err
	}
	if err := b.begin(ctx, left); err != nil {
		return err
	}
	b.say("make the files")
	if err := b.makeFiles(ctx, handFile); err != nil {
		return err
	}
	if err := b.throttle(ctx, b.Disk); err != nil {
		return err
	}
	var errs []error
	for _, turn := range b.turns() {
		err := b.repeat(ctx, turn)
		if err == nil {
			continue
		}
		if errors.Is(err, errLate) {
			b.say("the time is over")
			return errors.Join(errs...)
		}
		err = fmt.Errorf("%s: %w", turn.group, err)
		b.say(err.Error())
		errs = append(errs, err)
		if ctx.Err() != nil {
			return errors.Join(errs...)
		}
		if err := b.again(ctx); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	return errors.Join(errs...)
}

// errLate ends a run whose time is over.
var errLate = errors.New("too late to begin another round")

// turn is one repetition of some variants of a group.
type turn struct {
	group      string
	variants   []string
	repetition int
}

// turns are what is done, in order. Warm reboots come first, one after the other,
// so that the many small files have to be read from the disk once; and graceful ones
// first, as two more reads of those would be needed after a panic. Of the other
// reboots one of each comes next, and the rest at the end: so whoever has to break a
// run off has something of everything.
func (s Settings) turns() []turn {
	var all []turn
	add := func(group string, variants []string, first, end int) {
		for i := first; i < end; i++ {
			all = append(all, turn{group, s.variants(variants), i})
		}
	}
	n := s.Repetitions
	add(Recovery, []string{Graceful}, 0, n)
	add(Recovery, []string{Crash}, 0, n)
	add(Recovery, []string{Normal, Prefetch}, 0, 1)
	add(Tracking, variantsOf[Tracking], 0, (n+perBoot-1)/perBoot)
	add(Scale, variantsOf[Scale], 0, n)
	add(Recovery, []string{Normal, Prefetch}, 1, n)
	return slices.DeleteFunc(all, func(t turn) bool { return !slices.Contains(s.groups(), t.group) })
}

// repeat runs the variants of one group once, unless an earlier run has.
func (b *bench) repeat(ctx context.Context, t turn) error {
	group, repetition := t.group, t.repetition
	missing := slices.DeleteFunc(rotated(t.variants, repetition), func(variant string) bool {
		return b.report.has(group, variant, last(group, repetition))
	})
	if len(missing) == 0 {
		return nil
	}
	if group != Tracking && b.untracked {
		if err := b.again(ctx); err != nil {
			return err
		}
	}
	if group == Recovery && !b.warm {
		if err := b.warmUp(ctx); err != nil {
			return err
		}
	}
	for _, variant := range missing {
		if !b.deadline.IsZero() && time.Now().After(b.deadline) {
			return errLate
		}
		start := time.Now()
		before, err := b.machine.ProcessorTime()
		if err != nil {
			return err
		}
		rounds, err := b.measure(ctx, group, variant, repetition)
		if err != nil {
			return fmt.Errorf("%s, repetition %d: %w", variant, repetition+1, err)
		}
		after, err := b.machine.ProcessorTime()
		if err != nil {
			return err
		}
		for _, r := range rounds {
			r.Took, r.Emulator = time.Since(start).Seconds()/float64(len(rounds)), (after-before)/float64(len(rounds))
			b.report.Rounds = append(b.report.Rounds, *r)
			b.say(fmt.Sprintf("%s %s %d, %.0f s, %.0f of a processor: %s", r.Group, r.Variant, r.Repetition+1, r.Took, r.Emulator, r.brief()))
		}
		if err := b.report.write(b.dir); err != nil {
			return err
		}
	}
	return nil
}

// measure makes one repetition of one variant; several, if they share a boot.
func (b *bench) measure(ctx context.Context, group, variant string, repetition int) ([]*Round, error) {
	if group == Tracking {
		return b.track(ctx, variant, repetition)
	}
	r := newRound(group, variant, repetition)
	measure := b.recover
	if group == Scale {
		measure = b.preserve
	}
	return []*Round{r}, measure(ctx, r)
}

// begin makes the domU.
func (b *bench) begin(ctx context.Context, left bool) error {
	if left && b.fit(ctx) {
		return nil
	}
	if left {
		return b.again(ctx)
	}
	if err := b.product.StartAgent(ctx, noScrubbing); err != nil {
		return err
	}
	return b.create(ctx, domain{enable: true, memory: b.Sizes.MemoryMiB})
}

// fit reports whether the domU that was left can be measured as it is.
func (b *bench) fit(ctx context.Context) bool {
	if b.domU.Ping(ctx) != nil {
		return false
	}
	attached, err := b.attached(ctx)
	return err == nil && attached
}

// again makes the domU anew, whatever state a failure has left it in.
func (b *bench) again(ctx context.Context) error {
	b.say("make the domU anew")
	if _, err := b.dom0.Shell(ctx, "xl destroy "+neighbourName+" 2>/dev/null; pidof warmrebootd"); err != nil {
		if err := b.product.StartAgent(ctx, noScrubbing); err != nil {
			return err
		}
	}
	b.warm, b.neighbour = false, nil
	return b.recreate(ctx, domain{enable: true, memory: b.Sizes.MemoryMiB})
}

// domain says how the domU is made.
type domain struct {
	enable bool
	memory int    // MiB
	kernel string // in dom0; "" for the patched one
	words  string // further ones for its command line
}

// create makes the domU, as the lab's configuration has it but for what d and
// the sizes say.
func (b *bench) create(ctx context.Context, d domain) error {
	script := fmt.Sprintf(`sed -e 's/^memory = .*/memory = %d/' -e 's/^vcpus = .*/vcpus = %d/' -e 's|^kernel = .*|kernel = "%s"|' -e 's|^cmdline = "|&%s |' /etc/xen/%s.cfg >%s; xl create -p %[6]s`,
		d.memory, b.Sizes.VCPUs, cmp.Or(d.kernel, "/boot/guest-kernel"), d.words, lab.Domain, configPath)
	if d.enable {
		script += "; warmreboot enable " + lab.Domain
	}
	if _, err := b.dom0.Shell(ctx, "set -e; "+script+"; xl unpause "+lab.Domain); err != nil {
		return err
	}
	b.untracked = !d.enable || d.kernel != ""
	if err := b.await(ctx); err != nil || !b.made {
		return err
	}
	return b.startHand(ctx)
}

// startHand has the benchmark's hand serve in the domU, and its program and what
// it needs read from the disk.
func (b *bench) startHand(ctx context.Context) error {
	if err := b.serve(ctx, b.domU); err != nil {
		return err
	}
	_, err := b.steps(ctx, 0, step(false, "pass", "/etc/nginx", 2, phy))
	return err
}

func (b *bench) serve(ctx context.Context, machine *lab.Client) error {
	_, err := machine.Shell(ctx, handPath+" serve >/dev/null 2>&1 </dev/null &")
	return err
}

// steps has them done by one program in dom0.
func (b *bench) steps(ctx context.Context, domid int, steps ...hand.Step) ([]hand.Outcome, error) {
	text, err := json.Marshal(hand.Plan{Domid: domid, Steps: steps})
	if err != nil {
		return nil, err
	}
	return inHand[[]hand.Outcome](ctx, b.dom0, "steps", string(text))
}

// noScrubbing is how the agent is started: what compares pages in the background
// takes up to a twentieth of a processor, and a step waits for less.
const noScrubbing = "--scrub-rate 0"

// step is one in the domU.
func step(quiet bool, args ...any) hand.Step {
	s := hand.Step{At: lab.DomainAddress, Quiet: quiet}
	for _, arg := range args {
		s.Args = append(s.Args, fmt.Sprint(arg))
	}
	return s
}

// await waits for the domU.
func (b *bench) await(ctx context.Context) error { return b.awaitAddress(ctx, lab.DomainAddress) }

func (b *bench) awaitAddress(ctx context.Context, address string) error {
	_, err := inHand[struct{}](ctx, b.dom0, "await", fmt.Sprintf("%s:%d", address, agent.Port), 120)
	return err
}

// webConfig is for nginx in the domU.
const webConfig = "server { listen 80 default_server; root " + build.WebRoot + "; access_log off; }\n"

// makeFiles replaces the lab's files by the benchmark's.
func (b *bench) makeFiles(ctx context.Context, handFile string) error {
	err := errors.Join(b.domU.Put(ctx, handFile, handPath, 0o755),
		b.domU.PutBytes(ctx, []byte(webConfig), "/etc/nginx/sites-enabled/default"))
	if err != nil {
		return err
	}
	// Files that an earlier run has made are left as they are.
	made, err := json.Marshal(b.Sizes)
	if err != nil {
		return err
	}
	b.made = true
	if _, err := b.domU.Shell(ctx, fmt.Sprintf("[ \"$(cat %s)\" = '%s' ]", madePath, made)); err == nil {
		return b.startHand(ctx)
	}
	if _, err := b.domU.Shell(ctx, "[ -d "+smallRoot+" ] || rm -rf "+build.WebRoot+"; nginx -s reload"); err != nil {
		return err
	}
	for _, f := range []struct {
		root         string
		count, bytes int64
	}{
		{build.WebRoot, b.Sizes.WebFiles, b.Sizes.WebBytes},
		{largeRoot, 1, b.Sizes.FileBytes},
		{imageRoot, 1, b.Sizes.FileBytes},
		{besideRoot, 1, b.Sizes.BesideBytes},
		{filepath.Dir(filepath.Dir(database)), 1, b.Sizes.DatabaseBytes},
		{smallRoot, b.Sizes.SmallFiles, b.Sizes.SmallBytes},
	} {
		if _, err := inHand[struct{}](ctx, b.domU, "make", f.root, f.count, f.bytes); err != nil {
			return err
		}
	}
	if _, err = inHand[struct{}](ctx, b.domU, "database", sqlitePath, b.Sizes.Rows); err != nil {
		return err
	}
	if err := b.domU.PutBytes(ctx, made, madePath); err != nil {
		return err
	}
	return b.startHand(ctx)
}

// throttle limits reads from both disks by dom0's clock. QEMU's own throttle goes
// by the host's, of which the emulated one is a share that depends on the load.
// Writes are not limited: those that are put off are submitted later, by a thread
// of the kernel's, and the agent takes that for somebody else's.
func (b *bench) throttle(ctx context.Context, d Disk) error {
	_, err := b.dom0.Shell(ctx, limit(d))
	return err
}

// unlimited is a disk as fast as the emulator's.
var unlimited = Disk{1 << 20, 1 << 20}

// limit is a script.
func limit(d Disk) string {
	return fmt.Sprintf(`set -e
mkdir -p /run/blkio
[ -e /run/blkio/cgroup.procs ] || mount -t cgroup -o blkio none /run/blkio
for disk in vda vdb; do
	number=$(cat /sys/block/$disk/dev)
	echo "$number %.0f" >/run/blkio/blkio.throttle.read_bps_device
	echo "$number %.0f" >/run/blkio/blkio.throttle.read_iops_device
done`, d.MiBPerSecond*(1<<20), d.RequestsPerSecond)
}

// inHand runs one of the hand's subcommands in a machine.
func inHand[T any](ctx context.Context, machine *lab.Client, args ...any) (T, error) {
	words := []string{handPath}
	for _, arg := range args {
		words = append(words, fmt.Sprint(arg))
	}
	output, err := machine.Run(ctx, words...)
	if err != nil {
		var none T
		return none, err
	}
	return agent.Decode[T](output)
}

// domid is that of the domU now.
func (b *bench) domid(ctx context.Context) (int, error) {
	text, err := b.dom0.Shell(ctx, "xl domid "+lab.Domain)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// sequence is the number of the last reboot that the agent knows.
func (b *bench) sequence(ctx context.Context) (int, error) {
	status, err := b.product.Status(ctx)
	if err != nil || status.Last == nil {
		return 0, err
	}
	return status.Last.Sequence, nil
}

// awaitReboot returns the account of the first reboot after the given one.
func (b *bench) awaitReboot(ctx context.Context, after int) (demo.Reboot, error) {
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(300 * time.Millisecond) {
		now, err := b.sequence(ctx)
		if err != nil {
			return demo.Reboot{}, err
		}
		if now > after {
			break
		}
		if time.Now().After(deadline) {
			return demo.Reboot{}, errors.New("the agent has not seen a reboot")
		}
	}
	status, err := b.product.Status(ctx, "--wait", "--timeout", "10m")
	if err != nil {
		return demo.Reboot{}, err
	}
	return *status.Last, nil
}

// saveLogs keeps what tells a failure's cause.
func (b *bench) saveLogs() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	text, err := b.dom0.Shell(ctx, "tail -n 60 /var/log/warmrebootd.log /var/log/xen/console/guest-"+lab.Domain+".log /var/log/xen/xl-"+lab.Domain+".log")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, "failure.log"), []byte(text), 0o644)
}

// brief is a line for who watches.
func (r *Round) brief() string {
	var line string
	for _, name := range []string{"large_recovered", "image_recovered", "small_recovered", "random_recovered", "sqlite_recovered", "web_recovered", "service_seconds",
		"cold_cpu_seconds", "rewrite_cpu_seconds", "neighbour_share", "pages_restored", "restore_domU_cpu_seconds"} {
		if v, ok := r.Values[name]; ok {
			line += name + " " + strconv.FormatFloat(v, 'f', 3, 64) + "  "
		}
	}
	return line
}
