package command

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/checkpoint/store"
	"github.com/warmreboot/warmreboot/internal/checkpoint/stream"
)

func (e *env) importCommand() *cli.Command {
	return &cli.Command{
		Name: "import", ArgsUsage: "FILE|-", Usage: "take in what xl save, or xl save -c, has written",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "label", Usage: "what to call it"},
			&cli.StringFlag{Name: "time", Usage: "when it was taken, as 2026-11-30T12:00:00Z; otherwise the file's time, or now"},
			&cli.Int64Flag{Name: "max-mib", Usage: "refuse if the domain's store would become larger; 0: no limit"},
		},
		Action: e.importFile,
	}
}

func (e *env) importFile(c *cli.Context) error {
	a, err := args(c, 1)
	if err != nil {
		return err
	}
	if c.Int64("max-mib") < 0 {
		return usagef("--max-mib must not be negative")
	}
	info := store.Info{Label: c.String("label"), Time: time.Now()}
	in := e.stdin
	if a[0] != "-" {
		f, err := os.Open(a[0])
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // it was only read
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if st.Mode().IsRegular() {
			info.Time = st.ModTime()
		}
		in = f
	}
	if s := c.String("time"); s != "" {
		if info.Time, err = time.Parse(time.RFC3339, s); err != nil {
			return usagef("--time: %v", err)
		}
	}
	got, uuid, err := importStream(c.String("store"), in, info, store.Options{MaxBytes: c.Int64("max-mib") << 20})
	if err != nil {
		return fmt.Errorf("import %s: %w", a[0], err)
	}
	_, err = fmt.Fprintf(e.stdout, "%s@%d: %d pages, %d changed, %.1f MiB stored, %.1f KiB of it not pages (%s)\n",
		got.Domain, got.Epoch, got.Pages, got.Changed, float64(got.Bytes)/(1<<20), float64(got.Meta)/(1<<10), uuid)
	return err
}

// importStream stores a saved domain as its next checkpoint, or nothing.
func importStream(root string, in io.Reader, info store.Info, o store.Options) (got store.Info, uuid ident.UUID, err error) {
	var w *store.Writer
	var k *store.Checkpoint
	defer func() {
		if w != nil {
			err = errors.Join(err, w.Close()) // gives up what is not committed
		}
	}()
	begin := func(s *stream.State) error {
		name, id, err := s.Domain()
		if err != nil {
			return err
		}
		uuid = id
		info.Domain = name
		if w, err = store.OpenWriter(filepath.Join(root, id.String()), o); err != nil {
			return err
		}
		k, err = w.Begin(info, true)
		return err
	}
	kinds := map[stream.Kind]store.Kind{stream.Data: store.Data, stream.Allocated: store.Allocated, stream.Absent: store.Absent}
	state, err := stream.Read(in, begin, func(p stream.Page) error { return k.Page(uint32(p.PFN), kinds[p.Kind], p.Data) })
	if err != nil {
		return got, uuid, err
	}
	raw, err := encodeState(state)
	if err != nil {
		return got, uuid, err
	}
	got, err = k.Commit(raw)
	return got, uuid, err
}

// encodeState writes all but memory in the form that `xl restore` reads, too: a
// saved domain without pages.
func encodeState(s *stream.State) ([]byte, error) {
	var b bytes.Buffer
	err := stream.NewWriter(&b, s).Close()
	return b.Bytes(), err
}

func decodeState(r *store.Reader, e store.Epoch) (*stream.State, error) {
	raw, err := r.State(e)
	if err != nil {
		return nil, err
	}
	return stream.Read(bytes.NewReader(raw), nil, func(stream.Page) error { return errors.New("a page in the state") })
}

func (e *env) listCommand() *cli.Command {
	return &cli.Command{Name: "list", ArgsUsage: "[DOMAIN]", Usage: "list checkpoints", Action: e.list}
}

func (e *env) list(c *cli.Context) error {
	if c.NArg() > 1 {
		return usagef("list takes [DOMAIN]")
	}
	var dirs []string
	var err error
	if d := c.Args().First(); d != "" {
		dir, err := domainDir(c.String("store"), d)
		if err != nil {
			return err
		}
		dirs = []string{dir}
	} else if dirs, err = domainDirs(c.String("store")); err != nil {
		return err
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CHECKPOINT\tTAKEN\tPAGES\tCHANGED\tSTORED\tUUID\tLABEL")
	for _, dir := range dirs {
		r, err := store.Open(dir)
		if err != nil {
			return err
		}
		for _, i := range r.List() {
			fmt.Fprintf(w, "%s@%d\t%s\t%d\t%d\t%.1f MiB\t%s\t%s\n", i.Domain, i.Epoch, i.Time.Format("2006-01-02 15:04:05"), i.Pages, i.Changed,
				float64(i.Bytes)/(1<<20), filepath.Base(dir), i.Label)
		}
		closeReader(r)
	}
	return w.Flush()
}
