// Lab measures what a warm-cache reboot is worth, and what it costs, on the
// lab: it reboots a domU in every way there is, reads the same files before and
// after, and writes report.json and report.html. It asserts nothing. See
// docs/performance.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/build"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	workloads := flag.String("workloads", strings.Join(Names, ","), "which to run, comma-separated")
	short := flag.Bool("short", false, "with little work, to see that all of it runs")
	repetitions := flag.Int("reps", Full.Repetitions, "how often each variant is measured")
	disk := Full.Disk
	flag.Float64Var(&disk.MiBPerSecond, "disk-mib", disk.MiBPerSecond, "MiB per second that the disk gives")
	flag.Float64Var(&disk.RequestsPerSecond, "disk-requests", disk.RequestsPerSecond, "requests per second that it takes")
	dir := flag.String("dir", "build/bench", "where the report goes")
	statFirst := flag.Bool("stat-first", false, "stat the many small files before the first pass over them")
	smallAlways := flag.Bool("small-always", false, "read the many small files after each kind of reboot, not only after graceful warm ones")
	minutes := flag.Float64("minutes", 65, "begin no other round after so many minutes")
	resume := flag.Bool("resume", false, "go on with the report that is there")
	drawOnly := flag.Bool("draw", false, "only draw the report that is there anew")
	keep := flag.Bool("keep", false, "leave the lab running, and take the one that was left, whose files have to be of the same sizes")
	name := flag.String("name", "bench", "of the lab")
	var v lab.Variant
	flag.StringVar(&v.XenFile, "xen", "", "boot this Xen instead of building it from the series")
	flag.StringVar(&v.KernelFile, "kernel", "", "boot this guest kernel instead of building it from the series")
	flag.Parse()
	s := Full
	if *short {
		s = Short
	}
	s.Workloads, s.Repetitions, s.Disk = strings.Split(*workloads, ","), *repetitions, disk
	s.StatFirst, s.SmallAlways = *statFirst, *smallAlways
	s.deadline = time.Now().Add(time.Duration(*minutes * float64(time.Minute)))
	var err error
	if *drawOnly {
		err = draw(*dir)
	} else {
		err = run(ctx, s, v, *name, *dir, *resume, *keep, progress())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures, and leaves in dir what it has measured, however it ends.
func run(ctx context.Context, s Settings, v lab.Variant, name, dir string, resume, keep bool, say func(string)) error {
	if err := s.check(); err != nil {
		return err
	}
	cache, checkout, err := build.Open()
	if err != nil {
		return err
	}
	cache.Progress = say
	v.Unthrottled = true // dom0 does it, by its own clock
	v.Packages = []string{"sqlite3"}
	parts, err := lab.Prepare(ctx, cache, checkout, v)
	if err != nil {
		return err
	}
	hand, err := cache.Program(ctx, parts.Config.Root, checkout, "./tests/bench/cmd/benchhand")
	if err != nil {
		return err
	}
	report := newReport(s)
	state, err := parts.Key([]string{hand})
	if err != nil {
		return err
	}
	report.State = state.String()
	if resume {
		if err := report.resume(dir); err != nil {
			return err
		}
	}
	place := filepath.Join(cache.Dir, "labs", name)
	// A kernel that need not be decompressed boots in fewer instructions; there are
	// many boots.
	if parts.Config.Kernel, err = plain(ctx, parts, filepath.Join(place, "vmlinux")); err != nil {
		return err
	}
	machine, err := lab.Open(place)
	left := keep && err == nil
	if !left {
		say("boot dom0")
		if machine, err = parts.Start(ctx, place); err != nil {
			return err
		}
	}
	b := &bench{Settings: s, machine: machine, report: report, dir: dir, say: say}
	b.stock = func() (string, error) {
		v.StockKernel, v.KernelFile = true, ""
		other, err := lab.Prepare(ctx, cache, checkout, v)
		if err != nil {
			return "", err
		}
		return plain(ctx, other, filepath.Join(place, "vmlinux-stock"))
	}
	err = b.play(ctx, hand, left)
	if err != nil {
		err = errors.Join(err, b.saveLogs())
	}
	err = errors.Join(err, report.write(dir))
	if keep {
		return err
	}
	return errors.Join(err, machine.Stop())
}

// plain writes the parts' kernel to a file, not compressed.
func plain(ctx context.Context, parts lab.Parts, file string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	return file, build.PlainKernel(ctx, parts.Config.Root, parts.Config.Kernel, file)
}

// progress tells a person at a terminal, or a log, what is going on.
func progress() func(string) {
	start := time.Now()
	return func(what string) {
		fmt.Fprintf(os.Stderr, "[%4.0f s] %s\n", time.Since(start).Seconds(), what)
	}
}
