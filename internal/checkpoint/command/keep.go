package command

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/internal/checkpoint/store"
)

func (e *env) forgetCommand() *cli.Command {
	return &cli.Command{
		Name: "forget", ArgsUsage: "DOMAIN | CHECKPOINT...", Usage: "forget checkpoints, and free what only they had",
		Description: "With --keep-… all of DOMAIN's checkpoints but those; otherwise the given ones.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "keep-last", Usage: "keep the last `N`"},
			&cli.IntFlag{Name: "keep-hourly", Usage: "keep the newest of each of the last `N` hours that have any"},
			&cli.IntFlag{Name: "keep-daily", Usage: "the same with days"},
			&cli.IntFlag{Name: "keep-weekly", Usage: "the same with weeks"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say which"},
		},
		Action: e.forget,
	}
}

func (e *env) forget(c *cli.Context) error {
	p := store.Policy{Last: c.Int("keep-last"), Hourly: c.Int("keep-hourly"), Daily: c.Int("keep-daily"), Weekly: c.Int("keep-weekly")}
	names := c.Args().Slice()
	if len(names) == 0 || p != (store.Policy{}) && len(names) != 1 {
		return usagef("forget takes DOMAIN with --keep-…, or checkpoints")
	}
	domain := names[0]
	if p == (store.Policy{}) {
		var err error
		if domain, _, err = splitName(names[0]); err != nil {
			return err
		}
	}
	dir, err := domainDir(c.String("store"), domain)
	if err != nil {
		return err
	}
	r, err := store.Open(dir)
	if err != nil {
		return err
	}
	gone, err := toForget(r, p, domain, names)
	closeReader(r)
	if err != nil {
		return err
	}
	for _, i := range gone {
		if _, err := fmt.Fprintf(e.stdout, "%s@%d %s\n", i.Domain, i.Epoch, i.Time.Format("2006-01-02 15:04:05")); err != nil {
			return err
		}
	}
	if c.Bool("dry-run") {
		return nil
	}
	w, err := store.OpenWriter(dir, store.Options{})
	if err != nil {
		return err
	}
	var epochs []store.Epoch
	for _, i := range gone {
		epochs = append(epochs, i.Epoch)
	}
	err = w.Forget(epochs)
	var freed store.Collected
	if err == nil {
		freed, err = w.Collect()
	}
	if e := w.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%d forgotten; %d versions of pages freed, the store has %.1f MiB instead of %.1f\n", len(gone), freed.Dropped,
		float64(freed.After)/(1<<20), float64(freed.Before)/(1<<20))
	return err
}

func toForget(r *store.Reader, p store.Policy, domain string, names []string) ([]store.Info, error) {
	var gone []store.Info
	if p == (store.Policy{}) {
		for _, n := range names {
			d, which, err := splitName(n)
			if err != nil {
				return nil, err
			}
			if d != domain {
				return nil, usagef("%s is not of %s", n, domain)
			}
			i, err := pick(r, n, which)
			if err != nil {
				return nil, err
			}
			gone = append(gone, i)
		}
		return gone, nil
	}
	kept, err := p.Keep(r.List(), time.Local)
	if err != nil {
		return nil, usagef("%v", err)
	}
	stays := map[store.Epoch]bool{}
	for _, i := range kept {
		stays[i.Epoch] = true
	}
	for _, i := range r.List() {
		if !stays[i.Epoch] {
			gone = append(gone, i)
		}
	}
	return gone, nil
}

func (e *env) verifyCommand() *cli.Command {
	return &cli.Command{Name: "verify", ArgsUsage: "[DOMAIN]", Usage: "read and check all that is stored", Action: e.verify}
}

func (e *env) verify(c *cli.Context) error {
	if c.NArg() > 1 {
		return usagef("verify takes [DOMAIN]")
	}
	dirs, err := domainDirs(c.String("store"))
	if d := c.Args().First(); d != "" && err == nil {
		var dir string
		dir, err = domainDir(c.String("store"), d)
		dirs = []string{dir}
	}
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		v, err := store.Verify(dir)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(dir), err)
		}
		if _, err := fmt.Fprintf(e.stdout, "%s: %d checkpoints, %d versions of pages in %d segments, %.1f MiB: as they were stored\n", filepath.Base(dir),
			v.Checkpoints, v.Versions, v.Segments, float64(v.Bytes)/(1<<20)); err != nil {
			return err
		}
	}
	return nil
}
