package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/agent"
	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// referencePasses is how many warm passes the reference is the median of. In the
// first of them, the second read of the files, the guest's kernel also moves
// their pages to the list of active ones, so that it takes longer.
const referencePasses = 3

func (s *session) firstBoot(ctx context.Context) error {
	if err := s.measure(ctx, "first-boot", "cold", "first-boot", Reboot{}); err != nil {
		return err
	}
	first := s.report.Steps[0]
	s.report.DatasetBytes = first.Bytes
	pages, err := s.domU.Shell(ctx, "find "+build.WebRoot+` -type f -exec stat -c %s {} + | awk '{ n += int(($1 + 4095) / 4096) } END { print n }'`)
	if err != nil {
		return err
	}
	if s.report.DatasetPages, err = strconv.ParseInt(pages, 10, 64); err != nil {
		return err
	}
	var earlier []agent.ReadResult
	for range referencePasses - 1 {
		pass, err := s.read(ctx)
		if err != nil {
			return err
		}
		earlier = append(earlier, pass)
	}
	if err := s.measure(ctx, referenceStep, "warm", "first-boot", Reboot{}); err != nil {
		return err
	}
	s.last().Seconds = median(append(earlier, agent.ReadResult{Seconds: s.last().Seconds}))
	return nil
}

func median(passes []agent.ReadResult) float64 {
	slices.SortFunc(passes, func(a, b agent.ReadResult) int { return cmp.Compare(a.Seconds, b.Seconds) })
	return passes[len(passes)/2].Seconds
}

func (s *session) normalReboot(ctx context.Context) error {
	reboot, err := s.reboot(ctx, "--cold")
	if err != nil {
		return err
	}
	return s.measure(ctx, "normal", "cold", triggerNormal, reboot)
}

func (s *session) graceful(ctx context.Context) error {
	reboot, err := s.reboot(ctx)
	if err != nil {
		return err
	}
	if err := s.measure(ctx, "graceful", "warm", triggerGraceful, reboot); err != nil {
		return err
	}
	return s.measure(ctx, "graceful-second-read", "warm", "none", Reboot{})
}

// reboot runs warmreboot and waits until the domU can be spoken to.
func (s *session) reboot(ctx context.Context, flags ...string) (Reboot, error) {
	reboot, err := s.product.Reboot(ctx, flags...)
	if err != nil {
		return reboot, err
	}
	return reboot, s.domU.Await(ctx)
}

func (s *session) panic(ctx context.Context) error {
	reboot, err := s.crash(ctx)
	if err != nil {
		return err
	}
	return s.measure(ctx, "crash", "warm", triggerCrash, reboot)
}

// crash makes the guest's kernel panic and waits until the domU is back.
func (s *session) crash(ctx context.Context) (Reboot, error) {
	before, err := s.product.sequence(ctx)
	if err != nil {
		return Reboot{}, err
	}
	s.lose(ctx, "sh", "-c", "echo c >/proc/sysrq-trigger")
	reboot, err := s.product.awaitReboot(ctx, before)
	if err != nil {
		return reboot, err
	}
	return reboot, s.domU.Await(ctx)
}

// lose runs a command of which the domU will not return.
func (s *session) lose(ctx context.Context, args ...string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, _ = s.domU.Run(ctx, args...) // the answer never comes
}

func (s *session) force(ctx context.Context) error {
	module, err := s.dom0.Get(ctx, "/root/hang.ko")
	if err != nil {
		return err
	}
	if err := s.domU.PutBytes(ctx, module, "/tmp/hang.ko"); err != nil {
		return err
	}
	s.lose(ctx, "insmod", "/tmp/hang.ko")
	if err := s.domU.Ping(ctx); err == nil {
		return errors.New("the domU should hang, but it answers")
	}
	reboot, err := s.reboot(ctx, "--force")
	if err != nil {
		return err
	}
	return s.measure(ctx, "force", "warm", triggerForce, reboot)
}

const scenarioRoot = "/srv/scenarios"

func (s *session) writes(ctx context.Context) error {
	if _, err := s.domU.Run(ctx, "labagent", "prepare-writes", scenarioRoot); err != nil {
		return err
	}
	if _, err := s.domU.Run(ctx, "labagent", "writes", scenarioRoot); err != nil {
		return err
	}
	reboot, err := s.crash(ctx)
	if err != nil {
		return err
	}
	if err := s.measure(ctx, "writes-warm", "warm", "writes-crash", reboot); err != nil {
		return err
	}
	warm, err := s.domU.Sums(ctx, scenarioRoot)
	if err != nil {
		return err
	}
	if reboot, err = s.reboot(ctx, "--cold"); err != nil {
		return err
	}
	if err := s.measure(ctx, "writes-cold", "cold", "writes-normal", reboot); err != nil {
		return err
	}
	cold, err := s.domU.Sums(ctx, scenarioRoot)
	if err != nil {
		return err
	}
	if differ := warm.Differences(cold); len(differ) != 0 {
		s.last().SHA256OK = false
		s.say(fmt.Sprintf("differ between the warm and the cold boot: %v", differ))
	}
	return nil
}

// last is the step that was measured last.
func (s *session) last() *Step { return &s.report.Steps[len(s.report.Steps)-1] }

// victim is a served file that later steps change, of one mebibyte.
const (
	victim     = "03/file-0003.bin"
	victimSize = 1 << 20
)

// rewrite changes the victim on one of the machines and the truth with it.
func (s *session) rewrite(ctx context.Context, on *lab.Client, root string, seed uint64) error {
	sum, err := contentSum(seed, victimSize)
	if err != nil {
		return err
	}
	if old := s.truth[victim]; old == sum || old == "" {
		return fmt.Errorf("%s would not change", victim)
	}
	s.truth[victim] = sum
	_, err = on.Run(ctx, "labagent", "content", root+"/"+victim, strconv.FormatUint(seed, 10), strconv.Itoa(victimSize))
	return err
}

// olderGeneration makes a boot in which nothing is restored and a file changes;
// what had been kept from before that boot must not come back in the next.
func (s *session) olderGeneration(ctx context.Context) error {
	if err := s.product.StopAgent(ctx, "TERM"); err != nil {
		return err
	}
	if err := s.rebootUnseen(ctx); err != nil {
		return err
	}
	if err := s.rewrite(ctx, s.domU, build.WebRoot, 4242); err != nil {
		return err
	}
	// An agent that comes before the guest's deadline would still approve.
	// The domU itself waits: the clock of a machine that is asked again and again
	// goes slowly.
	if _, err := s.domU.Shell(ctx, "until [ $(cat /sys/hypervisor/warmcache/done) = 1 ]; do sleep 1; done"); err != nil {
		return err
	}
	restored, err := s.domU.Shell(ctx, "cat /sys/hypervisor/warmcache/restored")
	if err != nil {
		return err
	}
	if restored != "0" {
		return fmt.Errorf("%s pages were restored without an agent's approval", restored)
	}
	if err := s.product.StartAgent(ctx); err != nil {
		return err
	}
	if _, err := s.product.Status(ctx, "--wait"); err != nil {
		return err
	}
	reboot, err := s.reboot(ctx)
	if err != nil {
		return err
	}
	return s.measure(ctx, "older-generation", "warm", "older-generation", reboot)
}

// rebootUnseen lets the guest reboot by itself and waits until it is back.
func (s *session) rebootUnseen(ctx context.Context) error {
	before, err := s.dom0.Shell(ctx, "xl domid "+lab.Domain)
	if err != nil {
		return err
	}
	if _, err := s.dom0.Shell(ctx, "xl reboot "+lab.Domain); err != nil {
		return err
	}
	if err := s.product.AwaitNewDomid(ctx, before); err != nil {
		return err
	}
	return s.domU.Await(ctx)
}

// diskChanged changes a file from dom0 while the domU is away.
func (s *session) diskChanged(ctx context.Context) error {
	before, err := s.product.sequence(ctx)
	if err != nil {
		return err
	}
	if _, err := s.dom0.Shell(ctx, "xl shutdown -w "+lab.Domain); err != nil {
		return err
	}
	// xl returns when the guest has ended; its domain is destroyed after that.
	err = poll(ctx, func() error {
		if _, err := s.dom0.Shell(ctx, "xl domid "+lab.Domain); err == nil {
			return errors.New("the domU has ended, but its domain is still there")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := s.dom0.Shell(ctx, "mount -t ext4 /dev/vdb /mnt"); err != nil {
		return err
	}
	err = s.rewrite(ctx, s.dom0, "/mnt"+build.WebRoot, 4343)
	if _, unmountErr := s.dom0.Shell(ctx, "umount /mnt"); err != nil || unmountErr != nil {
		return errors.Join(err, unmountErr)
	}
	if _, err := s.dom0.Shell(ctx, "xl create /etc/xen/"+lab.Domain+".cfg"); err != nil {
		return err
	}
	reboot, err := s.product.awaitReboot(ctx, before)
	if err != nil {
		return err
	}
	if err := s.domU.Await(ctx); err != nil {
		return err
	}
	if err := refusedDisk(reboot, "xvda"); err != nil {
		return err
	}
	return s.measure(ctx, "disk-changed", "cold", "disk-changed", reboot)
}

// refusedDisk makes sure that the summary says why a disk came back cold.
func refusedDisk(reboot Reboot, name string) error {
	for _, vbd := range reboot.VBDs {
		if vbd.Name == name && vbd.Verdict == "refused" && strings.TrimSpace(vbd.Reason) != "" {
			return nil
		}
	}
	return fmt.Errorf("%s was changed from dom0, but the summary does not refuse it: %+v", name, reboot.VBDs)
}
