// Package config reads the schedules that an operator has written down, and
// says precisely, by file and line, what is wrong with them. A directory is
// taken as a whole or not at all.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/schedule"
)

// DefaultDir is where the daemon looks for *.toml.
const DefaultDir = "/etc/warmreboot"

// Config is what all files of a directory say.
type Config struct {
	Limits schedule.Limits
	// Limited: how many at once was written down. What counts if it was not is meant for
	// schedules alone.
	Limited   bool
	Groups    []schedule.Group
	Schedules []*Schedule
	Files     []string
}

// Rules returns the schedules' rules.
func (c *Config) Rules() []*schedule.Rule {
	var rules []*schedule.Rule
	for _, s := range c.Schedules {
		rules = append(rules, &s.Rule)
	}
	return rules
}

// Names returns the schedules' names.
func (c *Config) Names() []string {
	var names []string
	for _, s := range c.Schedules {
		names = append(names, s.Name)
	}
	return names
}

// Schedule returns the schedule with a name, nil if there is none.
func (c *Config) Schedule(name string) *Schedule {
	for _, s := range c.Schedules {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Schedule is when domains are rebooted, and what is done about it.
type Schedule struct {
	schedule.Rule
	// Sources are where the figures of Rule.Triggers come from.
	Sources []Source
	// Mode is graceful, force or cold.
	Mode api.Trigger
	// ColdToo: a domain that would not come back warm is rebooted all the same.
	ColdToo bool
	// Timeout is how long a reboot may take, hooks and health check aside.
	Timeout time.Duration

	Before, After []Hook
	Health        *Health
	// Update is the kernel that the domains are rebooted into, unless they have it.
	Update *Update
	Alert  *Command
	// Where it is written.
	File string
	Line int
}

// Longest is how long a run may take at most: the time to live of its lock.
func (s *Schedule) Longest() time.Duration {
	total := s.Timeout + time.Minute
	for _, h := range slices.Concat(s.Before, s.After) {
		total += h.Timeout
	}
	if s.Health != nil {
		total += s.Health.Timeout
		if slices.Contains(s.Health.OnFailure, ColdReboot) {
			total += 2*s.Timeout + s.Health.Timeout // a guest that does not react is asked first
		}
	}
	if u := s.Update; u != nil {
		var health time.Duration
		if s.Health != nil {
			health = s.Health.Timeout
		}
		total += u.Longest(health)
	}
	if s.Alert != nil {
		total += 4 * s.Alert.Timeout
	}
	return total
}

// Update is another kernel, see api.UpdateRequest. In the names of its files {domain} and
// {uuid} stand for the domain's.
type Update struct {
	Kernel, Initrd      string
	Cmdline             *string
	Deadline, Probation time.Duration
	WriteConfig         bool
}

// Longest is how long an update may take, with a health check that may take so long; 0:
// there is none.
func (u Update) Longest(health time.Duration) time.Duration {
	return 4*u.Deadline + u.Probation + 5*time.Minute + 3*health
}

// Command is a program in dom0, run as root and without a shell. In its
// arguments, as in URLs and addresses, {domain} and {uuid} stand for the domain's.
type Command struct {
	Args    []string
	Timeout time.Duration
}

// Hook is run before or after a reboot.
type Hook struct {
	Command
	// GoOn: its failure is noted, and changes nothing else.
	GoOn bool
	// Always: it is run after a failure, too.
	Always bool
}

// Action is what follows a health check that failed.
type Action string

// Actions.
const (
	Alert      Action = "alert"
	ColdReboot Action = "cold_reboot" // once, then the check is made again
	Stop       Action = "stop"        // the schedule, until an operator resumes it
)

// Health is how to see that a domain is well again: one of HTTP, TCP, Xenstore and
// Args. It is tried every Interval until it succeeds or Timeout is over.
type Health struct {
	HTTP     string
	Status   []int // that are well; none: 200 to 299
	TCP      string
	Xenstore string // the guest has written 1 to a path below the domain's
	Args     []string

	Timeout, Interval time.Duration
	OnFailure         []Action
}

// String says what is asked.
func (h Health) String() string {
	if h.Xenstore != "" {
		return "xenstore " + h.Xenstore
	}
	return h.HTTP + h.TCP + strings.Join(h.Args, " ")
}

// Source is where a figure comes from: one of its first five fields.
type Source struct {
	URL      string         // milliseconds until the whole answer is there
	Args     []string       // the number that a command prints
	Xenstore string         // the number at a path below the domain's
	SwapVBD  ident.VBD      // sectors per second, of the guest's swap disk
	Console  *regexp.Regexp // lines of the guest's console since its boot

	Every, Timeout time.Duration
}

// String says what is read.
func (s Source) String() string {
	switch {
	case s.URL != "":
		return "response time of " + s.URL + " in ms"
	case len(s.Args) > 0:
		return "number of " + strings.Join(s.Args, " ")
	case s.Xenstore != "":
		return "xenstore " + s.Xenstore
	case s.SwapVBD != 0:
		return "sectors per second of " + s.SwapVBD.Name()
	}
	return "lines on the console like " + s.Console.String()
}

// Problem is something wrong in a file. Line is 0 if it is about all of it.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Message string `json:"message"`
}

func (p Problem) Error() string {
	if p.Line == 0 {
		return p.File + ": " + p.Message
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message)
}

// Problems are all that are wrong, never none.
type Problems []Problem

func (p Problems) Error() string {
	var all []string
	for _, x := range p {
		all = append(all, x.Error())
	}
	return strings.Join(all, "\n")
}

// Load reads all files of a directory. A directory that does not exist says
// nothing. The error is of type Problems if a file is at fault.
func Load(dir string) (*Config, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l := loader{config: &Config{Limits: schedule.Limits{AtOnce: 1}}}
	for _, e := range entries {
		if !isFile(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		l.config.Files = append(l.config.Files, path)
		l.file = path
		raw, err := readSafe(path)
		if err != nil {
			l.complain(0, "%v", err)
			continue
		}
		l.load(raw)
	}
	l.checkAll()
	if len(l.problems) > 0 {
		slices.SortStableFunc(l.problems, func(a, b Problem) int {
			return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
		})
		return nil, l.problems
	}
	return l.config, nil
}

// isFile reports whether that is the name of a file of the configuration.
func isFile(name string) bool {
	return filepath.Ext(name) == ".toml" && !strings.HasPrefix(name, ".")
}

// Stamp changes when a directory's files do, also those that lie elsewhere and are only
// linked to, of which Watch sees nothing.
func Stamp(dir string) string {
	entries, err := os.ReadDir(dir)
	stamp := fmt.Sprint(err)
	for _, e := range entries {
		if !isFile(e.Name()) {
			continue
		}
		st, err := os.Stat(filepath.Join(dir, e.Name()))
		stamp += fmt.Sprint("/", e.Name(), " ", err)
		if err == nil {
			stamp += fmt.Sprint(st.ModTime().UnixNano(), " ", st.Size(), " ", st.Mode())
			if sys, ok := st.Sys().(*syscall.Stat_t); ok {
				stamp += fmt.Sprint(" ", sys.Ino, " ", sys.Uid)
			}
		}
	}
	return stamp
}

// maxFile is the largest file that is read, in bytes.
const maxFile = 1 << 20

// readSafe reads a file whose commands will be run as root: nobody else may be
// able to write to it.
func readSafe(path string) ([]byte, error) {
	// It is looked at once it is open: under its name there may be another one then.
	// Not blocking, as for a pipe nobody may ever come.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.Mode().IsRegular():
		return nil, errors.New("is not a regular file")
	case st.Size() > maxFile:
		return nil, fmt.Errorf("is larger than %d bytes", maxFile)
	case st.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("others can write to it (mode %04o), and its commands are run as root: chmod go-w %s", st.Mode().Perm(), path)
	case ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid():
		return nil, fmt.Errorf("belongs to user %d, and its commands are run as root: chown root %s", sys.Uid, path)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}
