package hand

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/tests/faults/guest"
	"github.com/warmreboot/warmreboot/xenstore"
)

// domU is the only domain beside dom0, also after it has rebooted. What it
// prints is read from the file that xenconsoled keeps of all domains with its
// name.
type domU struct {
	store   *xenstore.Client
	log     *os.File
	changes *os.File // inotify of log
	text    string   // printed so far
	seen    int      // how much of it await has passed
}

// openDomU listens to a domU from now on, or, if whole, from when it was created.
func openDomU(name string, whole bool) (*domU, error) {
	log, err := os.Open(fmt.Sprintf(console, name))
	if err != nil {
		return nil, err
	}
	if !whole {
		if _, err := log.Seek(0, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	changes, err := watch(log.Name())
	if err != nil {
		return nil, err
	}
	store, err := xenstore.Open()
	return &domU{store: store, log: log, changes: changes}, err
}

// watch returns a file that can be read when another one is written to.
func watch(path string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func (d *domU) close() {
	d.store.Close()
	d.log.Close()
	d.changes.Close()
}

// await returns the rest of the next line that has a text in it, which has to
// be printed within a time.
func (d *domU) await(what string, most time.Duration) (rest string, ok bool) {
	if err := d.changes.SetReadDeadline(time.Now().Add(most)); err != nil {
		return "", false
	}
	for {
		news, err := io.ReadAll(d.log)
		if err != nil {
			return "", false
		}
		d.text += string(news)
		if _, after, found := strings.Cut(d.text[d.seen:], what); found {
			if line, _, whole := strings.Cut(after, "\n"); whole {
				d.seen = len(d.text) - len(after) + len(line)
				return strings.TrimSpace(line), true
			}
		}
		if _, err := d.changes.Read(make([]byte, 4096)); err != nil {
			return "", false
		}
	}
}

// awaitJSON decodes what follows a text.
func (d *domU) awaitJSON(what string, most time.Duration, value any) error {
	line, ok := d.await(what, most)
	if !ok {
		return fmt.Errorf("the guest did not print %q in %v", what, most)
	}
	return json.Unmarshal([]byte(line), value)
}

// domid returns the domU's.
func (d *domU) domid(ctx context.Context) (ident.Domid, error) {
	names, err := d.store.Directory(ctx, "/local/domain")
	if err != nil {
		return 0, err
	}
	last := uint64(0)
	for _, name := range names {
		if id, err := strconv.ParseUint(name, 10, 16); err == nil {
			last = max(last, id)
		}
	}
	if last == 0 {
		return 0, errors.New("there is no domU")
	}
	return ident.Domid(last), nil
}

// tell types a line on the domU's console.
func (d *domU) tell(ctx context.Context, command string, order guest.Order) error {
	domid, err := d.domid(ctx)
	if err != nil {
		return err
	}
	path, err := d.store.Read(ctx, fmt.Sprintf("/local/domain/%d/console/tty", domid))
	if err != nil {
		return err
	}
	text, err := json.Marshal(order)
	if err != nil {
		return err
	}
	tty, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(tty, "%s %s\n", command, text)
	return errors.Join(err, tty.Close())
}
