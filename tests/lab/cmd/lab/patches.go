package main

import (
	"context"
	"fmt"

	"github.com/warmreboot/warmreboot/tests/lab/build"
)

// patches proves both series, or helps to edit them.
func (c *command) patches(ctx context.Context, args []string) error {
	if len(args) != 1 || args[0] != "check" && args[0] != "refresh" {
		return errUsage("patches: say check or refresh")
	}
	for _, part := range []struct {
		read   func() (build.Series, error)
		option string
	}{
		{c.checkout.Hypervisor, "CONFIG_WARMCACHE"}, {c.checkout.GuestKernel, "CONFIG_XEN_WARMCACHE"},
	} {
		series, err := part.read()
		if err != nil {
			return err
		}
		if args[0] == "check" {
			err = c.prove(ctx, series, part.option)
		} else {
			err = c.refresh(ctx, series)
		}
		if err != nil {
			return err
		}
	}
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
	fmt.Fprintf(c.stdout, "%s: %d patches proved\n", series.Upstream.Name, len(series.Patches))
	return nil
}

func (c *command) refresh(ctx context.Context, series build.Series) error {
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
