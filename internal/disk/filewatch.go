package disk

import (
	"fmt"
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// FileWatch notices what is done to an image file while no guest uses it. The
// file's times tell most of it as well; the watch also catches what restores
// them, and says what it was.
type FileWatch struct {
	w    *fsnotify.Watcher
	path string

	mu     sync.Mutex
	breach string
}

// WatchFile starts watching. It is the caller's to make sure that the last
// guest's writes have ended.
func WatchFile(path string) (*FileWatch, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", path, err)
	}
	// The directory, not the file: a file that is renamed over it is seen.
	if err := w.Add(filepath.Dir(path)); err != nil {
		w.Close()
		return nil, fmt.Errorf("watch %s: %w", path, err)
	}
	f := &FileWatch{w: w, path: filepath.Clean(path)}
	go f.run()
	return f, nil
}

func (f *FileWatch) run() {
	for {
		select {
		case e, ok := <-f.w.Events:
			if !ok {
				return
			}
			if filepath.Clean(e.Name) == f.path && e.Op&^fsnotify.Chmod != 0 {
				f.note(fmt.Sprintf("%s was touched while the guest was down (%s)", f.path, e.Op))
			}
		case err, ok := <-f.w.Errors:
			if !ok {
				return
			}
			f.note(fmt.Sprintf("%s: events were lost: %v", f.path, err))
		}
	}
}

func (f *FileWatch) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.breach == "" {
		f.breach = what
	}
}

// Breach returns what was done to the file, "" if nothing.
func (f *FileWatch) Breach() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.breach
}

// Close ends the watch.
func (f *FileWatch) Close() error { return f.w.Close() }
