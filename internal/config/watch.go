package config

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long nothing has to happen in the directory before it is read:
// an editor does several things to a file.
const settle = 300 * time.Millisecond

// Watch calls changed whenever something may have changed in a directory, which
// need not exist yet, until ctx ends. changed is not called from two goroutines.
func Watch(ctx context.Context, dir string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	dir = filepath.Clean(dir)
	// Its parent, too: the directory itself may be made, or replaced.
	if err := w.Add(filepath.Dir(dir)); err != nil {
		w.Close()
		return fmt.Errorf("watch %s: %w", filepath.Dir(dir), err)
	}
	_ = w.Add(dir) // when it is made
	go func() {
		defer w.Close()
		timer := time.NewTimer(settle)
		timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-w.Events:
				if !ok {
					return
				}
				if e.Name == dir && e.Op.Has(fsnotify.Create) {
					_ = w.Add(dir)
				}
				if e.Name == dir || filepath.Dir(e.Name) == dir {
					timer.Reset(settle)
				}
			case _, ok := <-w.Errors: // events were lost
				if !ok {
					return
				}
				timer.Reset(settle)
			case <-timer.C:
				changed()
			}
		}
	}()
	return nil
}
