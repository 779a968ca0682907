// Package storetest is xenstore for tests: a map. As xenstore's client, it does
// nothing for a context that has ended.
package storetest

import (
	"context"
	"io/fs"
	"maps"
	"strings"
	"sync"
)

// Store is a xenstore. The zero value is empty.
type Store struct {
	mu     sync.Mutex
	nodes  map[string]string
	writes int
	fail   func(path string) error
	late   func(path string)
}

// New returns a store with these nodes.
func New(nodes map[string]string) *Store { return &Store{nodes: maps.Clone(nodes)} }

// Fail has each call of the program under test ask f first, which may fail it.
func (s *Store) Fail(f func(path string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// Late has f told of each call of the program under test for a context that has ended.
func (s *Store) Late(f func(path string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = f
}

func (s *Store) fails(ctx context.Context, path string) error {
	err := ctx.Err()
	switch {
	case err != nil && s.late != nil:
		s.late(path)
	case err == nil && s.fail != nil:
		err = s.fail(path)
	}
	return err
}

// Set is what others than the program under test write.
func (s *Store) Set(path, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nodes == nil {
		s.nodes = map[string]string{}
	}
	s.nodes[path] = value
}

// Remove removes a node and all below it.
func (s *Store) Remove(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.nodes, func(p, _ string) bool { return p == path || strings.HasPrefix(p, path+"/") })
}

// Writes is how often the program under test has written.
func (s *Store) Writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

// Read implements disk.Store.
func (s *Store) Read(ctx context.Context, path string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fails(ctx, path); err != nil {
		return "", err
	}
	v, ok := s.nodes[path]
	if !ok {
		return "", fs.ErrNotExist
	}
	return v, nil
}

// Directory implements disk.Store.
func (s *Store) Directory(ctx context.Context, path string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fails(ctx, path); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for p := range s.nodes {
		if rest, ok := strings.CutPrefix(p, path+"/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			names[name] = true
		}
	}
	if len(names) == 0 {
		return nil, fs.ErrNotExist
	}
	var all []string
	for n := range names {
		all = append(all, n)
	}
	return all, nil
}

// Swap is xenstore's.
func (s *Store) Swap(ctx context.Context, path, old, value string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fails(ctx, path); err != nil {
		return false, err
	}
	if s.nodes[path] != old {
		return false, nil
	}
	s.nodes[path] = value
	s.writes++
	return true, nil
}

// Write writes a node, as the program under test does.
func (s *Store) Write(ctx context.Context, path, value string) error {
	s.mu.Lock()
	err := s.fails(ctx, path)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.Set(path, value)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	return nil
}
