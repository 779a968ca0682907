// Package demo is the main job on real input: one domU, rebooted in every way
// there is, its files read and compared after each.
package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/agent"
	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// ErrMissed says that the demo ran to its end, but a bound does not hold.
var ErrMissed = errors.New("the demo missed a bound")

// session is one run of the demo.
type session struct {
	machine *lab.Machine
	dom0    *lab.Client
	domU    *lab.Client
	product Product
	truth   agent.Sums // what the served files have to be
	report  Report
	results string // folder
	say     func(string)
}

// Run boots the parts, plays the steps, prints the table and writes
// report.json, and what the machines logged, into results.
func Run(ctx context.Context, parts lab.Parts, dir, results string, out io.Writer, say func(string)) error {
	if say == nil {
		say = func(string) {}
	}
	if parts.Hang == "" {
		return errors.New("there is no module to hang the domU with; give -hang with -kernel")
	}
	say("boot dom0")
	machine, err := parts.Start(ctx, dir)
	if err != nil {
		return err
	}
	s := &session{machine: machine, dom0: machine.Dom0(), domU: machine.DomU(), product: Product{Dom0: machine.Dom0()},
		truth: maps.Clone(parts.Config.Guest.Sums), results: results, say: say}
	err = s.play(ctx)
	s.report.Missed = s.report.missed()
	err = errors.Join(err, s.report.print(out), s.report.write(results), s.saveLogs(results), machine.Stop())
	if err != nil {
		return err
	}
	for _, line := range s.report.Missed {
		fmt.Fprintln(out, "MISSED", line)
	}
	if len(s.report.Missed) != 0 {
		return fmt.Errorf("%w: %s", ErrMissed, strings.Join(s.report.Missed, "; "))
	}
	return nil
}

func (s *session) play(ctx context.Context) error {
	for _, step := range []struct {
		name string
		play func(context.Context) error
	}{
		{"create the domU", s.create},
		{"first boot", s.firstBoot},
		{"normal reboot", s.normalReboot},
		{"graceful warm reboot", s.graceful},
		{"panic", s.panic},
		{"hang, forced warm reboot", s.force},
		{"writes before a panic", s.writes},
		{"an older generation", s.olderGeneration},
		{"the disk changed behind the guest", s.diskChanged},
	} {
		s.say(step.name)
		ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
		err := step.play(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// create makes the domU in the way that tracks it from its first boot.
func (s *session) create(ctx context.Context) error {
	if err := s.product.StartAgent(ctx); err != nil {
		return err
	}
	for _, line := range []string{
		"xl create -p /etc/xen/" + lab.Domain + ".cfg", "warmreboot enable " + lab.Domain, "xl unpause " + lab.Domain,
	} {
		if _, err := s.dom0.Shell(ctx, line); err != nil {
			return err
		}
	}
	return s.domU.Await(ctx)
}

// measure reads all served files once, compares them with the truth, checks
// the invariant and files the result as a step.
func (s *session) measure(ctx context.Context, name, kind, trigger string, reboot Reboot) error {
	if err := s.settle(ctx); err != nil {
		return err
	}
	read, err := s.read(ctx)
	if err != nil {
		return err
	}
	step := Step{Name: name, Kind: kind, Trigger: trigger, Bytes: read.Bytes, Seconds: read.Seconds,
		VBDReadBytes: read.Disks["xvda"].Bytes, Refused: map[string]int64{}}
	step.take(reboot)
	if err := s.verify(ctx, &step); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.report.Steps = append(s.report.Steps, step)
	s.say(fmt.Sprintf("  %s: %.3f s, %.1f MiB from disk, %d pages restored, sums equal: %t, mismatches: %d", step.Name, step.Seconds,
		mebibytes(step.VBDReadBytes), step.PagesRestored, step.SHA256OK, step.Mismatches))
	// A run that is broken off leaves what it has measured.
	return s.report.write(s.results)
}

// settle waits until neither machine is busy with what a boot leaves behind:
// they share the emulator's one processor with what is measured.
func (s *session) settle(ctx context.Context) error {
	return poll(ctx, func() error {
		return atOnce(
			func() error { return quiet(ctx, s.dom0) },
			func() error { return quiet(ctx, s.domU) },
		)
	})
}

func quiet(ctx context.Context, machine *lab.Client) error {
	busy, err := machine.Busy(ctx)
	if err == nil && busy > mostBusy {
		err = fmt.Errorf("%.0f %% of a processor are busy", 100*busy)
	}
	return err
}

// atOnce does several things at the same time and returns all their errors.
func atOnce(things ...func() error) error {
	errs := make([]error, len(things))
	var group sync.WaitGroup
	for i, do := range things {
		group.Add(1)
		go func() {
			defer group.Done()
			errs[i] = do()
		}()
	}
	group.Wait()
	return errors.Join(errs...)
}

// mostBusy is the share of a processor that a quiet machine may use. The
// agent in dom0 uses about 0.2 of an emulated one.
const mostBusy = 0.4

func (s *session) read(ctx context.Context) (agent.ReadResult, error) {
	return lab.JSON[agent.ReadResult](ctx, s.domU, "labagent", "read", build.WebRoot, "xvda")
}

// verify compares the files in the domU and the pages in dom0: the one takes
// the processor's time, the other the disk's.
func (s *session) verify(ctx context.Context, step *Step) error {
	var sums agent.Sums
	err := atOnce(
		func() (err error) { sums, err = s.domU.Sums(ctx, build.WebRoot); return },
		func() (err error) { step.Mismatches, err = s.product.Check(ctx); return },
	)
	differ := s.truth.Differences(sums)
	step.SHA256OK = err == nil && len(differ) == 0
	if !step.SHA256OK {
		s.say(fmt.Sprintf("differ: %v", differ))
	}
	return err
}

// contentSum is the truth about a file that `labagent content` has written.
func contentSum(seed uint64, size int64) (string, error) {
	hash := sha256.New()
	_, err := io.CopyN(hash, agent.Content(seed), size)
	return hex.EncodeToString(hash.Sum(nil)), err
}

// saveLogs keeps what tells a failure's cause.
func (s *session) saveLogs(results string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var errs []error
	for _, path := range []string{"/var/log/warmrebootd.log", "/var/log/xen/console/guest-" + lab.Domain + ".log",
		"/var/log/xen/xl-" + lab.Domain + ".log"} {
		content, err := s.dom0.Get(ctx, path)
		if err == nil {
			err = os.WriteFile(filepath.Join(results, filepath.Base(path)), content, 0o644)
		}
		errs = append(errs, err)
	}
	console, err := os.ReadFile(s.machine.ConsoleLog())
	if err == nil {
		err = os.WriteFile(filepath.Join(results, "console.log"), console, 0o644)
	}
	return errors.Join(append(errs, err)...)
}
