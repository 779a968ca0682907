package main

import (
	"context"
	"fmt"

	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// patches proves both series, or helps to edit them.
func (c *command) patches(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errUsage("patches: say check, refresh or current")
	}
	var do func(context.Context, build.Series, string) error
	switch args[0] {
	case "check":
		do = c.prove
	case "refresh":
		do = c.refresh
	case "current":
		do = c.current
	default:
		return errUsage("patches: say check, refresh or current")
	}
	for _, part := range []struct {
		read   func(context.Context, *build.Cache) (build.Series, error)
		option string
	}{
		{c.checkout.Hypervisor, "CONFIG_WARMCACHE"}, {c.checkout.GuestKernel, "CONFIG_XEN_WARMCACHE"},
		{c.checkout.NewerGuestKernel, "CONFIG_XEN_WARMCACHE"},
	} {
		series, err := part.read(ctx, c.cache)
		if err != nil {
			return err
		}
		if err := do(ctx, series, part.option); err != nil {
			return err
		}
	}
	return nil
}

// current fails if the archive has a newer base than UPSTREAM names.
func (c *command) current(ctx context.Context, series build.Series, _ string) error {
	newest, err := c.cache.Newest(ctx, series)
	if err != nil {
		return err
	}
	preferred := series.Bases[0]
	if newest != preferred.Version {
		return fmt.Errorf("%s: the archive has %s, UPSTREAM names %s: read what it mends, and move the base, "+
			"as docs/patches.md says", preferred.Name, newest, preferred.Version)
	}
	fmt.Fprintf(c.stdout, "%s: %s is the newest in the archive\n", preferred.Name, newest)
	return nil
}

func (c *command) prove(ctx context.Context, series build.Series, option string) error {
	tools, err := c.cache.Tools(ctx)
	if err != nil {
		return err
	}
	if err := c.cache.Prove(ctx, tools, series, option); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s: %d patches proved on %s\n", series.Upstream.Name, len(series.Patches), series.Upstream.Version)
	// The proof holds whatever the archive has; so this is said, and no failure.
	if err := c.current(ctx, series, option); err != nil {
		fmt.Fprintln(c.stderr, "warning:", err)
	}
	return nil
}

func (c *command) refresh(ctx context.Context, series build.Series, _ string) error {
	tree, exported, err := c.cache.Refresh(ctx, series)
	if err != nil {
		return err
	}
	if exported {
		fmt.Fprintf(c.stdout, "%s: exported the commits of %s; remove that folder to start again from the series\n", series.Upstream.Name, tree)
	} else {
		fmt.Fprintf(c.stdout, "%s: edit the commits in %s (the base is tagged base), then run this again\n", series.Upstream.Name, tree)
	}
	return nil
}
