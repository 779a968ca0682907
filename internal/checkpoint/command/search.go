package command

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/internal/checkpoint/store"
)

func (e *env) diffCommand() *cli.Command {
	return &cli.Command{
		Name: "diff", ArgsUsage: "CHECKPOINT CHECKPOINT", Usage: "say which pages differ",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "count", Usage: "only how many"}},
		Action: e.diff,
	}
}

// differing returns the pages that differ, by their bytes, not by their versions.
func differing(r *store.Reader, a, b store.Epoch) ([]uint32, error) {
	ma, err := r.Map(a)
	if err != nil {
		return nil, err
	}
	mb, err := r.Map(b)
	if err != nil {
		return nil, err
	}
	var pa, pb [store.PageSize]byte
	var list []uint32
	err = mb.Each(func(pfn uint32, vb store.Epoch) error {
		va := ma.At(pfn)
		if va == vb {
			return nil
		}
		ka := store.Absent
		if va != 0 {
			if ka, err = r.Read(pfn, va, pa[:]); err != nil {
				return err
			}
		}
		kb, err := r.Read(pfn, vb, pb[:])
		if err != nil {
			return err
		}
		if ka != kb || kb == store.Data && pa != pb {
			list = append(list, pfn)
		}
		return nil
	})
	return list, err
}

func (e *env) diff(c *cli.Context) error {
	a, err := args(c, 2)
	if err != nil {
		return err
	}
	r, from, to, err := openTwo(c.String("store"), a[0], a[1])
	if err != nil {
		return err
	}
	defer closeReader(r)
	list, err := differing(r, from.Epoch, to.Epoch)
	if err != nil {
		return err
	}
	if c.Bool("count") {
		_, err := fmt.Fprintln(e.stdout, len(list))
		return err
	}
	for len(list) > 0 { // as runs, [first, behind the last)
		n := 1
		for n < len(list) && list[n] == list[0]+uint32(n) {
			n++
		}
		if _, err := fmt.Fprintf(e.stdout, "%#x-%#x %d\n", list[0], uint64(list[0])+uint64(n), n); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

func (e *env) logCommand() *cli.Command {
	return &cli.Command{
		Name: "log", ArgsUsage: "DOMAIN", Usage: "say when a page changed",
		Flags:  []cli.Flag{&cli.StringFlag{Name: "pfn", Required: true, Usage: "the page"}},
		Action: e.log,
	}
}

// seen is a version of a page, and the first kept checkpoint that has it.
type seen struct {
	version store.Epoch
	info    store.Info
}

// history returns the versions of a page that the kept checkpoints have, in their
// order. Absent pages have none before the first, and are versions afterwards.
func history(r *store.Reader, pfn uint32, in []store.Info) ([]seen, error) {
	if len(in) == 0 {
		return nil, nil
	}
	versions, err := r.Versions(pfn)
	if err != nil {
		return nil, err
	}
	var list []seen
	for k, v := range versions {
		i := sort.Search(len(in), func(i int) bool { return in[i].Epoch >= v })
		if i == len(in) || k+1 < len(versions) && versions[k+1] <= in[i].Epoch {
			continue // later than all, or followed by another before the next one that is kept
		}
		list = append(list, seen{v, in[i]})
	}
	return list, nil
}

func (e *env) log(c *cli.Context) error {
	a, err := args(c, 1)
	if err != nil {
		return err
	}
	pfn, err := parsePFN(c.String("pfn"))
	if err != nil {
		return err
	}
	r, err := openDomain(c.String("store"), a[0])
	if err != nil {
		return err
	}
	defer closeReader(r)
	list, err := history(r, pfn, r.List())
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("page %#x: %w", pfn, errNothing)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CHECKPOINT\tTAKEN\tBYTES CHANGED\tWHAT")
	var before, now [store.PageSize]byte
	for _, s := range list {
		clear(now[:])
		kind, err := r.Read(pfn, s.version, now[:])
		if err != nil {
			return err
		}
		changed := 0
		for i := range now {
			if now[i] != before[i] {
				changed++
			}
		}
		before = now
		fmt.Fprintf(w, "%s@%d\t%s\t%d\t%s\n", s.info.Domain, s.info.Epoch, s.info.Time.Format("2006-01-02 15:04:05"), changed,
			[]string{"data", "allocated, without content", "absent"}[kind])
	}
	return w.Flush()
}

func (e *env) grepCommand() *cli.Command {
	return &cli.Command{
		Name: "grep", ArgsUsage: "DOMAIN PATTERN", Usage: "find bytes in all versions of all pages, each read once",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "first", Usage: "stop at the first checkpoint that has them"},
			&cli.BoolFlag{Name: "hex", Usage: "the pattern is written in hexadecimal digits"},
		},
		Action: e.grep,
	}
}

func (e *env) grep(c *cli.Context) error {
	a, err := args(c, 2)
	if err != nil {
		return err
	}
	pattern := []byte(a[1])
	if c.Bool("hex") {
		if pattern, err = hex.DecodeString(a[1]); err != nil {
			return usagef("the pattern: %v", err)
		}
	}
	if len(pattern) == 0 || len(pattern) > store.PageSize {
		return usagef("the pattern has to have 1 to %d bytes", store.PageSize)
	}
	r, err := openDomain(c.String("store"), a[0])
	if err != nil {
		return err
	}
	defer closeReader(r)
	found := false
	page := make([]byte, store.PageSize)
	var before *store.Map
	for _, i := range r.List() {
		if err := c.Context.Err(); err != nil {
			return err
		}
		m, err := r.Map(i.Epoch)
		if err != nil {
			return err
		}
		err = m.Each(func(pfn uint32, v store.Epoch) error {
			if before != nil && before.At(pfn) == v {
				return nil
			}
			kind, err := r.Read(pfn, v, page)
			if err != nil || kind != store.Data {
				return err
			}
			if at := bytes.Index(page, pattern); at >= 0 {
				found = true
				_, err = fmt.Fprintf(e.stdout, "%s@%d %s pfn %#x offset %d\n", i.Domain, i.Epoch, i.Time.Format("2006-01-02T15:04:05Z07:00"), pfn, at)
			}
			return err
		})
		if err != nil {
			return err
		}
		if found && c.Bool("first") {
			return nil
		}
		before = m
	}
	if !found {
		return fmt.Errorf("%q in %s: %w", a[1], a[0], errNothing)
	}
	return nil
}

func (e *env) bisectCommand() *cli.Command {
	return &cli.Command{
		Name: "bisect", ArgsUsage: "GOOD BAD -- COMMAND [ARG...]", Usage: "find the first checkpoint for which a command fails",
		Description: "COMMAND is run with the path of a file as last argument. Its exit code is as for\n" +
			"`git bisect run`: 0 good, 125 can't say, 1 to 127 bad, anything else ends the search.\n" +
			"WARMCHECKPOINT in its environment names the checkpoint.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "vmcore", Usage: "of the file: vmcore, mem or xl"},
			&cli.StringFlag{Name: "pfn", Usage: "the file is this page only; each version of it is looked at once at most"},
			&cli.StringFlag{Name: "scratch", Usage: "`DIRECTORY` for the files; the system's for temporary files if not given"},
		},
		Action: e.bisect,
	}
}

// verdict of a probe.
type verdict int

const (
	good verdict = iota
	bad
	skip
)

// firstBad returns the index of the first bad one of n, of which 0 is good and
// n-1 bad, and the greatest index that is known to be good. Between them are those
// that can't be said.
func firstBad(n int, probe func(int) (verdict, error)) (lastGood, first int, err error) {
	known := map[int]verdict{0: good, n - 1: bad}
	lo, hi := 0, n-1
	for {
		// The nearest to the middle that is not known to be unsayable.
		next := -1
		for d := 0; d <= hi-lo && next < 0; d++ {
			for _, k := range []int{(lo+hi)/2 - d, (lo+hi)/2 + d} {
				if _, tried := known[k]; !tried && k > lo && k < hi {
					next = k
					break
				}
			}
		}
		if next < 0 {
			return lo, hi, nil
		}
		v, err := probe(next)
		if err != nil {
			return 0, 0, err
		}
		known[next] = v
		switch v {
		case good:
			lo = next
		case bad:
			hi = next
		}
	}
}

func (e *env) bisect(c *cli.Context) error {
	all := c.Args().Slice()
	if i := slices.Index(all, "--"); i == 2 { // the library leaves it in if it comes behind arguments
		all = slices.Delete(all, i, i+1)
	}
	if len(all) < 3 {
		return usagef("bisect takes %s", c.Command.ArgsUsage)
	}
	r, from, to, err := openTwo(c.String("store"), all[0], all[1])
	if err != nil {
		return err
	}
	defer closeReader(r)
	format := c.String("format")
	if format != "vmcore" && format != "mem" && format != "xl" {
		return usagef("--format is %q, must be vmcore, mem or xl", format)
	}
	list := between(r, from, to)
	var pfn uint32
	onePage := c.String("pfn") != ""
	if onePage {
		if pfn, err = parsePFN(c.String("pfn")); err != nil {
			return err
		}
		if list, err = pageChanges(r, pfn, list); err != nil {
			return err
		}
	}
	if len(list) < 2 {
		return fmt.Errorf("nothing changed from %s to %s: %w", all[0], all[1], errNothing)
	}
	dir, err := os.MkdirTemp(c.String("scratch"), "warmcheckpoint-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // its files are removed one by one, with their errors
	probes := 0
	lastGood, first, err := firstBad(len(list), func(i int) (verdict, error) {
		probes++
		path := filepath.Join(dir, strconv.Itoa(int(list[i].Epoch)))
		var err error
		if onePage {
			err = writePage(path, r, pfn, list[i].Epoch)
		} else {
			err = createFile(path, format, r, list[i])
		}
		if err != nil {
			return skip, err
		}
		v, err := e.probe(c, list[i], append(all[2:len(all):len(all)], path))
		return v, errors.Join(err, os.Remove(path))
	})
	if err != nil {
		return err
	}
	if lastGood+1 != first {
		_, err = fmt.Fprintf(e.stdout, "the first bad one is among %s@%d to @%d; for %d the command couldn't say\n",
			to.Domain, list[lastGood+1].Epoch, list[first].Epoch, first-lastGood-1)
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%s@%d is the first bad one (%s), %d looked at\n", list[first].Domain, list[first].Epoch,
		list[first].Time.Format("2006-01-02 15:04:05"), probes)
	return err
}

// pageChanges leaves of checkpoints the first, and those in which a page has
// another version than in the one before. The last one stays the bad one if it
// has the version of the last change.
func pageChanges(r *store.Reader, pfn uint32, list []store.Info) ([]store.Info, error) {
	h, err := history(r, pfn, list)
	if err != nil {
		return nil, err
	}
	out := list[:1:1]
	for _, s := range h {
		if s.info.Epoch != list[0].Epoch {
			out = append(out, s.info)
		}
	}
	return out, nil
}

func writePage(path string, r *store.Reader, pfn uint32, e store.Epoch) error {
	page := make([]byte, store.PageSize)
	v, err := r.At(e, pfn)
	if err != nil {
		return err
	}
	if v != 0 {
		if _, err := r.Read(pfn, v, page); err != nil {
			return err
		}
	}
	return os.WriteFile(path, page, 0o600)
}

func (e *env) probe(c *cli.Context, i store.Info, command []string) (verdict, error) {
	cmd := exec.CommandContext(c.Context, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("WARMCHECKPOINT=%s@%d", i.Domain, i.Epoch))
	cmd.Stdout, cmd.Stderr = e.stderr, e.stderr
	err := cmd.Run()
	if c.Context.Err() != nil {
		return skip, c.Context.Err()
	}
	if err == nil {
		return good, nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return skip, err
	}
	switch code := exit.ExitCode(); {
	case code == 125:
		return skip, nil
	case code >= 1 && code <= 127:
		return bad, nil
	default:
		return skip, fmt.Errorf("%s: %w", command[0], err)
	}
}
