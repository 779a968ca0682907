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
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/agent"
	"github.com/warmreboot/warmreboot/internal/apiserver"
	"github.com/warmreboot/warmreboot/internal/bootonce"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/internal/logonce"
	"github.com/warmreboot/warmreboot/internal/operator"
	"github.com/warmreboot/warmreboot/internal/scheduler"
	"github.com/warmreboot/warmreboot/internal/scrub"
	"github.com/warmreboot/warmreboot/internal/sdnotify"
	"github.com/warmreboot/warmreboot/internal/settings"
	"github.com/warmreboot/warmreboot/internal/state"
	"github.com/warmreboot/warmreboot/internal/toolstack"
	"github.com/warmreboot/warmreboot/internal/version"
	"github.com/warmreboot/warmreboot/xenctl"
	"github.com/warmreboot/warmreboot/xenstore"
)

// Main runs the daemon with the program's arguments and returns its exit code. It is
// also the loader that libxl runs where a kernel is on trial: that has to be there
// whatever else is, and to be where profiles of AppArmor's let libvirtd run it.
func Main(args []string, stderr io.Writer) int {
	if bootonce.Asked(args) {
		return bootonce.Main(args, stderr)
	}
	var o settings.Daemon
	f := o.Flags()
	f.SetOutput(stderr)
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
	if o.Version {
		fmt.Fprintf(stderr, "warmrebootd %s\n", version.String())
		return 0
	}
	if !(o.ScrubRate >= 0 && o.ScrubRate <= 1<<20) || !(o.ScrubShare > 0 && o.ScrubShare <= 100) {
		fmt.Fprintf(stderr, "warmrebootd: --scrub-rate %v must be 0 or more, and --scrub-share %v above 0 and at most 100\n", o.ScrubRate, o.ScrubShare)
		return 2
	}
	if o.Listen != "" {
		if _, _, err := webAddress(o.Listen); err != nil {
			fmt.Fprintf(stderr, "warmrebootd: %v\n", err)
			return 2
		}
	}
	level := slog.LevelInfo
	if o.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(logonce.New(logHandler(stderr, os.Getenv("JOURNAL_STREAM"), level)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, log); err != nil {
		log.Error("warmrebootd ends", "err", err, "next", "warmreboot doctor")
		return 1
	}
	return 0
}

// run starts what the daemon consists of, part by part, waits for ctx or for a part
// to fail, and stops all in the reverse order: nobody is asked any more when those
// who answer stop, and the history is closed when nobody enters anything.
func run(ctx context.Context, o settings.Daemon, log *slog.Logger) (err error) {
	manager, err := sdnotify.FromEnvironment()
	if err != nil {
		return err
	}
	s := newSupervisor(log)
	defer func() {
		s.stop()
		log.Info("stopped", "err", err)
	}()
	journal, err := agent.OpenJournal(o.StateDir)
	if err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(o.StateDir, "lock"))
	if err != nil {
		return err
	}
	s.started("lock", unlock)
	xen, err := xenctl.Open()
	if err != nil {
		return err
	}
	s.started("xen", func() { xen.Close() })
	store, err := xenstore.Open()
	if err != nil {
		return err
	}
	s.started("xenstore", func() { store.Close() })
	life, err := openLifecycle(store, xen)
	if err != nil {
		return err
	}
	history, err := state.Open(filepath.Join(o.StateDir, state.FileName), state.Limits{})
	if history == nil {
		return err
	}
	s.started("history", func() { history.Close() })
	if err != nil {
		log.Error("a file of the state directory was damaged", "op", "state", "err", err, "next", "what was set aside is beside it, as .corrupt; what was locked and stopped is in warmreboot plan")
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	feature, probeErr := xen.ProbeWarmcache()
	log.Info("started", "version", version.String(), "xen_warmcache", feature, "err", probeErr, "socket", o.Socket, "state_dir", o.StateDir)

	record := &recorder{History: history}
	a := agent.New(agent.Options{Xen: hypervisor.Real{Handle: xen}, Store: store, Lifecycle: life,
		Disks: agent.HostDisks{System: disk.Host}, Owners: toolstack.Here, Journal: journal, History: record, Log: log,
		Boot: strings.TrimSpace(string(boot))})
	operations, stopOperations, err := openOperations(filepath.Join(o.StateDir, "operations"), history, strings.TrimSpace(string(boot)), log)
	if err != nil {
		return err
	}
	rebooter := operator.Rebooter{Agent: a, State: history, History: record, Moment: operations.moment}
	asked := operator.New(rebooter, operations.Engine, log)
	schedules := scheduler.New(scheduler.Options{Agent: a, State: history, History: record, Forgot: record.forgot, Store: store, Dir: o.ConfigDir, DryRun: o.DryRun, Log: log,
		Boot: strings.TrimSpace(string(boot)), Sys: "/sys", Console: consoles, Operations: operations.Engine, Rebooter: rebooter, Updater: asked})
	loader, err := os.Executable()
	if err != nil {
		return err
	}
	xl := toolstack.Xl{Lifecycle: life, Host: toolstack.Here, Run: toolstack.Command, Beside: toolstack.Detached(), Loader: loader}
	asked.ServeUpdates(operator.Updates{Owner: toolstack.Here.Owner, Ends: toolstack.Here.Ends,
		Drivers: map[string]toolstack.Driver{
			toolstack.XL:      xl,
			toolstack.Libvirt: toolstack.LibvirtDriver{Lifecycle: life, Host: toolstack.Here, Run: toolstack.Command, Loader: loader}},
		Dir: filepath.Join(o.StateDir, "updates"), Nodes: store, Console: consoles, Configs: "/etc/xen",
		Clones: &operator.Clones{Toolstack: xl, Disks: disk.Cloner{System: disk.Host, Store: store}, Dir: filepath.Join(o.StateDir, "trials"), Logs: toolstack.Here.Log},
		Ended:  func(uuid ident.UUID, outcome api.UpdateOutcome) { record.updated(uuid, outcome) }})
	host := hostOf(xen.ProbeWarmcache)
	scrubber := &scrub.Scrubber{Source: a.Scrubbed(), Memory: hypervisor.Real{Handle: xen}, Loaded: scrub.Load("/proc"), Log: log,
		Limits: scrub.Limits{Rate: o.ScrubRate * (1 << 20), Share: o.ScrubShare / 100}}
	all, pages := show(a, history, record, schedules, scrubber, o, host, xen.ProbeWarmcache, log)

	// Without events there is nobody to vouch in time: then the service manager starts
	// over.
	watching, stopEvents := context.WithCancel(context.Background())
	s.started("events", stopEvents)
	if err := forward(watching, store, a); err != nil {
		return err
	}
	s.run("connection to xenstored", func(ctx context.Context) error {
		select {
		case <-store.Done():
			return errors.New("it has ended")
		case <-ctx.Done():
			return nil
		}
	})
	if err := a.Start(); err != nil {
		return err
	}
	s.started("agent", a.Stop)
	s.run("samples", func(ctx context.Context) error { all.Run(ctx); return nil })
	s.run("scrubber", func(ctx context.Context) error { scrubber.Run(ctx); <-ctx.Done(); return nil }) // it may be switched off
	listener, err := listen(o.Socket)
	if err != nil {
		return err
	}
	config, stopConfig := context.WithCancel(context.Background())
	s.started("configuration", stopConfig)
	if err := schedules.Start(config); err != nil {
		listener.Close()
		return err
	}
	// With the configuration, which they ask; and before anything else is begun.
	s.started("operations", stopOperations)
	operations.Resume()
	s.run("trials", func(ctx context.Context) error { sweep(ctx, asked); return nil })
	s.run("schedules", func(ctx context.Context) error { schedules.Run(ctx); return nil })
	if o.Listen != "" {
		s.run("pages", func(ctx context.Context) error { serveWeb(ctx, o.Listen, pages); <-ctx.Done(); return nil })
	}
	s.run("api", func(ctx context.Context) error {
		return serve(ctx, listener, apiserver.Handler(a, apiserver.ServeOperations(asked), apiserver.ServeSchedules(schedules),
			apiserver.ServeSamples(all), apiserver.ServeHost(host), apiserver.ServeDebug()))
	})
	tell := func(messages ...string) {
		if err := manager.Send(messages...); err != nil {
			log.Warn("the service manager cannot be told", "op", "notify", "err", err)
		}
	}
	s.run("watchdog", func(ctx context.Context) error {
		manager.Watch(ctx, func() error { return errors.Join(a.Alive(manager.Interval/2), schedules.Alive(manager.Interval/2)) },
			func(err error) {
				log.Error("no sign of life for the service manager", "op", "alive", "err", err, "next", "it restarts warmrebootd, which goes on where it was")
			})
		<-ctx.Done()
		return nil
	})
	tell(sdnotify.Ready, sdnotify.Status(fmt.Sprintf("Xen's warm cache: %v", feature)))
	defer tell(sdnotify.Stopping)
	select {
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// sweep throws away what trials have left, at once and every minute.
func sweep(ctx context.Context, o *operator.Operator) {
	every := time.NewTicker(time.Minute)
	defer every.Stop()
	for {
		o.SweepClones(ctx)
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

// consoles is where xenconsoled writes down what guests say, if it is told to.
const consoles = "/var/log/xen/console"

// Backends of disks, below which a node has the domid of the guest next: a keeper is
// woken when something about its own domain's disks changes, and each of them when a
// domain comes or goes, as Xen does not say which.
const backends = "/local/domain/0/backend/"

var events = []string{"@introduceDomain", "@releaseDomain", backends + "vbd", backends + "qdisk"}

// whose returns the domain whose backend a node belongs to.
func whose(path string) (ident.Domid, bool) {
	rest, ok := strings.CutPrefix(path, backends)
	_, rest, _ = strings.Cut(rest, "/")
	id, _, _ := strings.Cut(rest, "/")
	domid, err := strconv.ParseUint(id, 10, 16)
	return ident.Domid(domid), ok && err == nil
}

// waker is an agent.
type waker interface {
	Wake()                    // every keeper
	WakeOf(all []ident.Domid) // those of these domains
}

// wakeBy wakes whom it may concern that the nodes have changed.
func wakeBy(w waker, paths []string, many bool) {
	var domids []ident.Domid
	for _, p := range paths {
		domid, ok := whose(p)
		many = many || !ok
		domids = append(domids, domid)
	}
	if many {
		w.Wake()
	} else {
		w.WakeOf(domids)
	}
}

// forward wakes keepers whenever one of the events happens, until ctx ends.
func forward(ctx context.Context, store *xenstore.Client, agent waker) error {
	for _, path := range events {
		w, err := store.Watch(ctx, path)
		if err != nil {
			return err
		}
		go func() {
			for {
				select {
				case <-w.C:
					paths, many := w.Changed()
					wakeBy(agent, paths, many)
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

// listen makes the socket, which only root can open, and its folder.
func listen(socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, err
	}
	if err := removeDead(socket); err != nil {
		return nil, err
	}
	// The mode is the socket's before it has a name: Linux gives the name that of
	// the socket's inode, less the umask. Nobody else can open it meanwhile, and
	// files that others make meanwhile are not touched, as by another umask.
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if controlErr := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); controlErr != nil {
			return controlErr
		}
		return err
	}}
	return private.Listen(context.Background(), "unix", socket)
}

// removeDead removes a socket at which nobody listens any more, and nothing else.
func removeDead(socket string) error {
	st, err := os.Lstat(socket)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s is there, and is no socket (%v): it is left alone; name another place", socket, st.Mode())
	}
	conn, err := net.Dial("unix", socket)
	if err == nil {
		conn.Close()
		return fmt.Errorf("somebody listens at %s already: name another place", socket)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("whether somebody listens at %s cannot be told: %w", socket, err)
	}
	return os.Remove(socket)
}

// serve answers at the listener until ctx ends, and returns when no handler runs any
// more: what they ask may be stopped then. Their requests end with ctx.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	g := &gate{h: h, idle: make(chan struct{})}
	s := &http.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		wait, cancel := context.WithTimeout(context.Background(), stopWait)
		defer cancel()
		if s.Shutdown(wait) != nil {
			s.Close() // which waits for nobody
		}
	})
	err := s.Serve(l)
	if stop() { // it has ended by itself
		s.Close()
	} else {
		<-closed
	}
	g.close()
	if !errors.Is(err, http.ErrServerClosed) {
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
