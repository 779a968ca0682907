// Package daemon runs the agent as a process: options, single instance,
// socket, xenstore's events, graceful stop.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/warmreboot/warmreboot/internal/agent"
	"github.com/warmreboot/warmreboot/internal/api"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/xenctl"
	"github.com/warmreboot/warmreboot/xenctl/xenstore"
)

// Where the daemon is and keeps its state, unless told otherwise.
const (
	DefaultSocket   = "/run/warmreboot.sock"
	DefaultStateDir = "/var/lib/warmreboot"
)

type options struct {
	socket, stateDir string
	debug            bool
}

// Main runs the daemon with the program's arguments and returns its exit code.
func Main(args []string, stderr io.Writer) int {
	var o options
	f := flag.NewFlagSet("warmrebootd", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.socket, "socket", DefaultSocket, "UNIX `socket` to listen on")
	f.StringVar(&o.stateDir, "state-dir", DefaultStateDir, "`directory` of the journal")
	f.BoolVar(&o.debug, "debug", false, "log more")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if f.NArg() > 0 {
		fmt.Fprintf(stderr, "warmrebootd: unexpected argument %q\n", f.Arg(0))
		return 2
	}
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, log); err != nil {
		log.Error("warmrebootd", "err", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, o options, log *slog.Logger) error {
	journal, err := agent.OpenJournal(o.stateDir)
	if err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(o.stateDir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	xen, err := xenctl.Open()
	if err != nil {
		return err
	}
	defer xen.Close()
	store, err := xenstore.Open()
	if err != nil {
		return err
	}
	defer store.Close()
	life, err := openLifecycle(store, xen)
	if err != nil {
		return err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	feature, probeErr := xen.ProbeWarmcache()
	log.Info("started", "xen_warmcache", feature, "err", probeErr, "socket", o.socket, "state_dir", o.stateDir)

	a := agent.New(agent.Options{Xen: hypervisor.Real{Handle: xen}, Store: store, Lifecycle: life,
		Disks: agent.HostDisks{System: disk.Host}, Journal: journal, Log: log,
		Boot: strings.TrimSpace(string(boot))})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := forward(ctx, store, a.Wake); err != nil {
		return err
	}
	if err := a.Start(); err != nil {
		return err
	}
	defer a.Stop()
	served := make(chan error, 1)
	go func() { served <- serve(ctx, o.socket, api.Handler(a)) }()
	select {
	case err = <-served:
	case <-store.Done():
		// Without events there is nobody to vouch in time: let the service
		// manager start over.
		err = errors.New("the connection to xenstored has ended")
		cancel()
		<-served
	}
	log.Info("stopped", "err", err)
	return err
}

// events are the nodes whose changes the agent looks into: domains that come
// and go, and their disks.
var events = []string{"@introduceDomain", "@releaseDomain",
	"/local/domain/0/backend/vbd", "/local/domain/0/backend/qdisk"}

// forward calls wake whenever one of the events happens, until ctx ends.
func forward(ctx context.Context, store *xenstore.Client, wake func()) error {
	for _, path := range events {
		w, err := store.Watch(ctx, path)
		if err != nil {
			return err
		}
		go func() {
			for {
				select {
				case <-w.C:
					wake()
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	return nil
}

// stopWait is how long requests under way may take when the daemon stops.
const stopWait = 2 * time.Second

// serve listens on the socket, which only root can open, until ctx ends.
func serve(ctx context.Context, socket string, h http.Handler) error {
	// The lock is ours: a socket that is there is a dead one's.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", socket)
	syscall.Umask(old)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	stopped := context.AfterFunc(ctx, func() {
		wait, cancel := context.WithTimeout(context.Background(), stopWait)
		defer cancel()
		if s.Shutdown(wait) != nil {
			s.Close()
		}
	})
	defer stopped()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// lock makes sure that there is one daemon only.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another warmrebootd is running (%s is locked): %w", path, err)
	}
	return func() { f.Close() }, nil
}
