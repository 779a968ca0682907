package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/text"
	"github.com/warmreboot/warmreboot/internal/validate"
)

// checkResult is what check found. Pages that Xen forgot while it ran are in
// none of checked, mismatches and unreadable.
type checkResult struct {
	Domain     string         `json:"domain"`
	Domid      ident.Domid    `json:"domid"`
	Pages      uint64         `json:"pages"`
	Checked    uint64         `json:"checked"`
	Mismatches uint64         `json:"mismatches"`
	Unreadable uint64         `json:"unreadable"`
	Gone       uint64         `json:"gone"`
	Examples   []checkExample `json:"examples"`
	Error      string         `json:"error,omitempty"` // of the first unreadable page
}

type checkExample struct {
	PFN    ident.PFN       `json:"pfn"`
	VBD    ident.VBD       `json:"vbd"`
	Sector cachemap.Sector `json:"sector"`
}

func (e *env) checkCommand() *cli.Command {
	return &cli.Command{
		Name: "check", ArgsUsage: "DOMAIN", Usage: "compare every reusable page of a running domain with the disk",
		Description: "Reads memory and disks, changes nothing, and needs no agent.",
		Action: func(c *cli.Context) error {
			p, err := parse(c, 1, 1)
			if err != nil {
				return err
			}
			l, err := e.local()
			if err != nil {
				return fmt.Errorf("domain %s: %w; run it as root in dom0, or see warmreboot doctor", p.args[0], err)
			}
			defer l.close()
			r, err := e.check(c.Context, l, p.args[0])
			if err != nil {
				return err
			}
			if p.json {
				if err := e.printJSON(r); err != nil {
					return err
				}
			} else {
				r := text.Printable(r)
				fmt.Fprintf(e.stdout, "domain %s: %d reusable pages, %d compared with the disk, %d differ, %d unreadable, %d forgotten meanwhile\n",
					r.Domain, r.Pages, r.Checked, r.Mismatches, r.Unreadable, r.Gone)
				for _, x := range r.Examples {
					fmt.Fprintf(e.stdout, "  PFN %#x differs from %s sector %d\n", uint64(x.PFN), x.VBD.Name(), x.Sector)
				}
				if r.Error != "" {
					fmt.Fprintf(e.stdout, "  first unreadable: %s\n", r.Error)
				}
			}
			if r.Mismatches > 0 {
				return api.Errorf(api.MismatchFound, "domain %s: %d pages differ from the disk: disable its warm cache, and report this", r.Domain, r.Mismatches)
			}
			return nil
		},
	}
}

// checkChunk is the number of pages that are collected and sorted at a time.
const checkChunk = 1 << 18

func (e *env) check(ctx context.Context, l local, domain string) (checkResult, error) {
	s, info, err := l.find(ctx, domain)
	if err != nil {
		return checkResult{}, err
	}
	if err := l.usable(s, info); err != nil {
		return checkResult{}, err
	}
	r := checkResult{Domain: s.Domain, Domid: info.Domid, Examples: []checkExample{}}
	v, closeView, err := validate.MapView(l.xen, info.Domid, false)
	if err != nil {
		return r, err
	}
	stats := v.ByVBD()
	closeView()
	for _, st := range stats {
		r.Pages += st.Pages
	}
	show := e.counter(r.Pages)
	defer show(-1)
	for _, st := range stats {
		if err := checkVBD(ctx, l, st.VBD, &r, show); err != nil {
			if ctx.Err() != nil {
				return r, ctx.Err()
			}
			r.Unreadable += st.Pages
			if r.Error == "" {
				r.Error = fmt.Sprintf("%s: %v", st.VBD.Name(), err)
			}
		}
	}
	return r, nil
}

func checkVBD(ctx context.Context, l local, vbd ident.VBD, r *checkResult, show func(int)) error {
	be, err := disk.FindBackend(ctx, l.store, r.Domid, vbd)
	if err != nil {
		return err
	}
	b, err := l.disks.Resolve(be)
	if err != nil {
		return err
	}
	d, err := l.disks.Open(b)
	if err != nil {
		return err
	}
	defer d.Close()
	base := int(r.Checked + r.Gone + r.Unreadable)
	c := validate.ContentCheck{Memory: l.xen, Domid: r.Domid, Disk: d}
	for from, more := ident.PFN(0), true; more; {
		v, closeView, err := validate.MapView(l.xen, r.Domid, false)
		if err != nil {
			return err
		}
		var list []validate.Page
		list, from, more = validate.Collect(v, vbd, from, checkChunk)
		closeView()
		c.Progress = func(done int) { show(base + done) }
		out, err := c.Run(ctx, list)
		base += len(list)
		r.Checked += out.Checked()
		r.Mismatches += out.Mismatches
		r.Unreadable += out.Unreadable
		r.Gone += out.Gone
		for _, p := range out.Examples {
			if len(r.Examples) < validate.MaxExamples {
				r.Examples = append(r.Examples, checkExample{p.PFN, p.Entry.VBD, p.Entry.Sector})
			}
		}
		if out.FirstError != nil && r.Error == "" {
			r.Error = out.FirstError.Error()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// counter shows "n of total" on a terminal once that takes long; -1 ends it.
func (e *env) counter(total uint64) func(int) {
	start, last := time.Now(), time.Time{}
	return func(n int) {
		if !e.terminal || time.Since(start) < e.pace.after {
			return
		}
		if n < 0 {
			fmt.Fprint(e.rawErr, "\r\033[K")
		} else if time.Since(last) >= e.pace.every {
			last = time.Now()
			fmt.Fprintf(e.rawErr, "\r\033[K%d of %d pages", n, total)
		}
	}
}
