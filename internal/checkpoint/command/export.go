package command

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/checkpoint/store"
	"github.com/warmreboot/warmreboot/internal/checkpoint/stream"
	"github.com/warmreboot/warmreboot/internal/checkpoint/vmcore"
)

func (e *env) exportCommand() *cli.Command {
	return &cli.Command{
		Name: "export", ArgsUsage: "CHECKPOINT", Usage: "write a checkpoint for xl restore, as ELF core, or as plain memory",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "xl", Usage: "`FORMAT`: xl, vmcore or mem"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FILE` to create, with mode 0600; otherwise to standard output"},
		},
		Action: e.export,
	}
}

// writeFormat writes a checkpoint in one of the formats.
func writeFormat(w io.Writer, format string, r *store.Reader, i store.Info) error {
	switch format {
	case "xl":
		return writeXL(w, r, i.Epoch)
	case "vmcore":
		return writeVMCore(w, r, i.Epoch)
	case "mem":
		return writeMem(w, r, i.Epoch)
	}
	return usagef("--format is %q, must be xl, vmcore or mem", format)
}

func (e *env) export(c *cli.Context) error {
	a, err := args(c, 1)
	if err != nil {
		return err
	}
	r, i, err := openOne(c.String("store"), a[0])
	if err != nil {
		return err
	}
	defer closeReader(r)
	if c.String("output") == "" {
		w := bufio.NewWriterSize(e.stdout, 1<<20)
		if err := writeFormat(w, c.String("format"), r, i); err != nil {
			return err
		}
		return w.Flush()
	}
	return createFile(c.String("output"), c.String("format"), r, i)
}

// createFile writes a checkpoint into a new file; if it fails, there is none.
func createFile(path, format string, r *store.Reader, i store.Info) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if format == "mem" {
		err = writeSparse(f, r, i.Epoch)
	} else if err = writeFormat(w, format, r, i); err == nil {
		err = w.Flush()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(path) // what matters is what went wrong before
	}
	return err
}

func writeXL(w io.Writer, r *store.Reader, e store.Epoch) error {
	state, err := decodeState(r, e)
	if err != nil {
		return err
	}
	out := stream.NewWriter(w, state)
	err = r.Pages(e, func(p store.Page) error {
		kind := stream.Data
		if p.Kind == store.Allocated {
			kind = stream.Allocated
		}
		return out.Page(stream.Page{PFN: ident.PFN(p.PFN), Kind: kind, Data: p.Data})
	})
	if err != nil {
		return err
	}
	return out.Close()
}

// layout lays a checkpoint out as a core file. It reads all pages once, as
// VMCOREINFO, which comes first in the file, is somewhere in them.
func layout(r *store.Reader, e store.Epoch) (*vmcore.Layout, *store.Map, error) {
	state, err := decodeState(r, e)
	if err != nil {
		return nil, nil, err
	}
	cpus, err := vmcore.ParseContext(state.Find(stream.RecHVMContext))
	if err != nil {
		return nil, nil, err
	}
	var pfns []uint32
	var info []byte
	err = r.Pages(e, func(p store.Page) error {
		pfns = append(pfns, p.PFN)
		if info == nil && p.Kind == store.Data {
			info = vmcore.Info(p.Data)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	m, err := r.Map(e)
	return vmcore.New(pfns, cpus, info), m, err
}

// reading returns what reads pages of a checkpoint; those without content are 0.
func reading(r *store.Reader, m *store.Map) func(uint32, []byte) error {
	return func(pfn uint32, page []byte) error {
		_, err := r.Read(pfn, m.At(pfn), page)
		return err
	}
}

func writeVMCore(w io.Writer, r *store.Reader, e store.Epoch) error {
	l, m, err := layout(r, e)
	if err != nil {
		return err
	}
	return l.Write(w, reading(r, m))
}

// writeMem writes memory from address 0 on, with zeros where there is none.
func writeMem(w io.Writer, r *store.Reader, e store.Epoch) error {
	zero := make([]byte, store.PageSize)
	next := uint32(0)
	return r.Pages(e, func(p store.Page) error {
		for ; next != p.PFN; next++ {
			if _, err := w.Write(zero); err != nil {
				return err
			}
		}
		next++
		if p.Kind != store.Data {
			p.Data = zero
		}
		_, err := w.Write(p.Data)
		return err
	})
}

// writeSparse is writeMem, with holes in the file.
func writeSparse(f *os.File, r *store.Reader, e store.Epoch) error {
	end := int64(0)
	err := r.Pages(e, func(p store.Page) error {
		off := int64(p.PFN) * store.PageSize
		end = off + store.PageSize
		if p.Kind != store.Data {
			return nil
		}
		_, err := f.WriteAt(p.Data, off)
		return err
	})
	if err != nil {
		return err
	}
	return f.Truncate(end)
}

func (e *env) catCommand() *cli.Command {
	return &cli.Command{
		Name: "cat", ArgsUsage: "CHECKPOINT", Usage: "print raw memory",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "pfn", Required: true, Usage: "the first page"},
			&cli.Uint64Flag{Name: "pages", Value: 1, Usage: "how many"},
		},
		Action: e.cat,
	}
}

func (e *env) cat(c *cli.Context) error {
	a, err := args(c, 1)
	if err != nil {
		return err
	}
	pfn, err := parsePFN(c.String("pfn"))
	if err != nil {
		return err
	}
	r, i, err := openOne(c.String("store"), a[0])
	if err != nil {
		return err
	}
	defer closeReader(r)
	page := make([]byte, store.PageSize)
	for n := range c.Uint64("pages") {
		at := uint64(pfn) + n
		if at > 1<<32-1 {
			return usagef("there are no pages from %#x on", at)
		}
		v, err := r.At(i.Epoch, uint32(at))
		if err != nil {
			return err
		}
		kind := store.Absent
		if v != 0 {
			if kind, err = r.Read(uint32(at), v, page); err != nil {
				return err
			}
		}
		if kind != store.Data {
			return fmt.Errorf("page %#x of %s has no content: %w", at, a[0], errNothing)
		}
		if _, err := e.stdout.Write(page); err != nil {
			return err
		}
	}
	return nil
}
