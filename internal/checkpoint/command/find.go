package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/checkpoint/store"
)

// domainDir returns the store of a domain, by UUID, or by the name that it had at
// its last checkpoint.
func domainDir(root, domain string) (string, error) {
	if u, err := ident.ParseUUID(domain); err == nil {
		dir := filepath.Join(root, u.String())
		if _, err := os.Stat(dir); err != nil {
			return "", fmt.Errorf("no checkpoints of %s in %s: %w", domain, root, store.ErrUnknown)
		}
		return dir, nil
	}
	dirs, err := domainDirs(root)
	if err != nil {
		return "", err
	}
	var found []string
	for _, dir := range dirs {
		name, err := domainName(dir)
		if err != nil {
			return "", err
		}
		if name == domain {
			found = append(found, dir)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no checkpoints of a domain %q in %s: %w", domain, root, store.ErrUnknown)
	case 1:
		return found[0], nil
	}
	return "", usagef("%d domains were called %q; say which by its UUID: %s", len(found), domain, strings.Join(found, ", "))
}

// domainDirs returns the folders of all stores.
func domainDirs(root string) ([]string, error) {
	list, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var dirs []string
	for _, e := range list {
		if _, err := ident.ParseUUID(e.Name()); err == nil && e.IsDir() {
			dirs = append(dirs, filepath.Join(root, e.Name()))
		}
	}
	return dirs, nil
}

func domainName(dir string) (string, error) {
	r, err := store.Open(dir)
	if err != nil {
		return "", err
	}
	defer closeReader(r)
	if l := r.List(); len(l) > 0 {
		return l[len(l)-1].Domain, nil
	}
	return "", nil
}

func closeReader(r *store.Reader) { _ = r.Close() } // it has only read

// splitName splits DOMAIN@WHICH.
func splitName(s string) (domain, which string, err error) {
	i := strings.LastIndexByte(s, '@')
	if i <= 0 || i == len(s)-1 {
		return "", "", usagef("%q is not a checkpoint: it is written DOMAIN@NUMBER or DOMAIN@last", s)
	}
	return s[:i], s[i+1:], nil
}

func pick(r *store.Reader, name, which string) (store.Info, error) {
	if which == "last" {
		if l := r.List(); len(l) > 0 {
			return l[len(l)-1], nil
		}
		return store.Info{}, fmt.Errorf("%s: %w", name, store.ErrUnknown)
	}
	n, err := strconv.ParseUint(which, 10, 32)
	if err != nil {
		return store.Info{}, usagef("%q is not a checkpoint's number", which)
	}
	return r.Find(store.Epoch(n))
}

// openDomain opens the store of a domain.
func openDomain(root, domain string) (*store.Reader, error) {
	dir, err := domainDir(root, domain)
	if err != nil {
		return nil, err
	}
	return store.Open(dir)
}

// openOne opens a domain's store and finds a checkpoint in it.
func openOne(root, name string) (*store.Reader, store.Info, error) {
	domain, which, err := splitName(name)
	if err != nil {
		return nil, store.Info{}, err
	}
	r, err := openDomain(root, domain)
	if err != nil {
		return nil, store.Info{}, err
	}
	i, err := pick(r, name, which)
	if err != nil {
		closeReader(r)
		return nil, store.Info{}, err
	}
	return r, i, nil
}

// openTwo opens a store and finds two checkpoints of the same domain in it, the
// older one first. The second may be written without the domain.
func openTwo(root, a, b string) (r *store.Reader, from, to store.Info, err error) {
	domain, _, err := splitName(a)
	if err != nil {
		return nil, from, to, err
	}
	other, which, err := splitName(b)
	if err != nil {
		other, which = domain, strings.TrimPrefix(b, "@")
	}
	if other != domain {
		return nil, from, to, usagef("%s and %s are not of the same domain", a, b)
	}
	if r, from, err = openOne(root, a); err != nil {
		return nil, from, to, err
	}
	if to, err = pick(r, b, which); err == nil && to.Epoch < from.Epoch {
		err = usagef("%s is older than %s", b, a)
	}
	if err != nil {
		closeReader(r)
		return nil, from, to, err
	}
	return r, from, to, nil
}

// between returns the kept checkpoints from one to another, both included.
func between(r *store.Reader, from, to store.Info) []store.Info {
	var l []store.Info
	for _, i := range r.List() {
		if i.Epoch >= from.Epoch && i.Epoch <= to.Epoch {
			l = append(l, i)
		}
	}
	return l
}

func parsePFN(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		return 0, usagef("%q is not a PFN: it is written in decimal, or as 0x1f", s)
	}
	return uint32(n), nil
}
