package config

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/schedule"
)

// file is the form of a file. What is not written keeps the value of defaults.
type file struct {
	Limits *struct {
		AtOnce  *int     `toml:"at_once"`
		Stagger duration `toml:"stagger"`
	} `toml:"limits"`
	Groups []struct {
		Name     nameText  `toml:"name"`
		Domains  []pattern `toml:"domains"`
		Exclude  []pattern `toml:"exclude"`
		Distance duration  `toml:"distance"`
	} `toml:"group"`
	Schedules []fileSchedule `toml:"schedule"`
}

type fileSchedule struct {
	Name        nameText      `toml:"name"`
	Domains     []pattern     `toml:"domains"`
	Exclude     []pattern     `toml:"exclude"`
	Cron        *cronText     `toml:"cron"`
	Every       duration      `toml:"every"`
	Timezone    zoneText      `toml:"timezone"`
	Missed      missText      `toml:"missed"`
	MissedAfter *duration     `toml:"missed_after"`
	Distance    *duration     `toml:"minimum_distance"`
	Retry       *duration     `toml:"retry"`
	Order       int           `toml:"order"`
	AtOnce      int           `toml:"at_once"`
	Stagger     duration      `toml:"stagger"`
	Mode        modeText      `toml:"mode"`
	IfCold      coldText      `toml:"if_cold"`
	Timeout     *duration     `toml:"timeout"`
	DryRun      bool          `toml:"dry_run"`
	Windows     []fileWindow  `toml:"window"`
	Triggers    []fileTrigger `toml:"trigger"`
	Before      []fileHook    `toml:"before"`
	After       []fileHook    `toml:"after"`
	Health      *fileHealth   `toml:"health"`
	Update      *fileUpdate   `toml:"update"`
	Alert       *fileHook     `toml:"alert"`
}

type fileWindow struct {
	Days []dayText `toml:"days"`
	From *hourText `toml:"from"`
	To   *hourText `toml:"to"`
}

type fileTrigger struct {
	Name     string    `toml:"name"`
	URL      urlText   `toml:"url"`
	Command  []string  `toml:"command"`
	Xenstore pathText  `toml:"xenstore"`
	SwapVBD  vbdText   `toml:"swap_vbd"`
	Console  *regText  `toml:"console"`
	Sample   *duration `toml:"sample"`
	Timeout  *duration `toml:"timeout"`
	Over     *duration `toml:"over"`
	Above    *float64  `toml:"above"`
	Below    *float64  `toml:"below"`
	Slope    *float64  `toml:"slope"`
}

type fileHook struct {
	Command   []string  `toml:"command"`
	Timeout   *duration `toml:"timeout"`
	OnFailure hookText  `toml:"on_failure"`
	Always    bool      `toml:"always"`
}

type fileHealth struct {
	HTTP      urlText   `toml:"http"`
	Status    []int     `toml:"status"`
	TCP       addrText  `toml:"tcp"`
	Xenstore  pathText  `toml:"xenstore"`
	Command   []string  `toml:"command"`
	Timeout   *duration `toml:"timeout"`
	Interval  *duration `toml:"interval"`
	OnFailure []action  `toml:"on_failure"`
}

type fileUpdate struct {
	Kernel      string    `toml:"kernel"`
	Initrd      string    `toml:"initrd"`
	Cmdline     *string   `toml:"cmdline"`
	Deadline    *duration `toml:"deadline"`
	Probation   *duration `toml:"probation"`
	WriteConfig bool      `toml:"write_config"`
}

// What counts where a file says nothing.
const (
	defaultMissedAfter = time.Hour
	defaultDistance    = time.Hour
	defaultRetry       = time.Hour
	defaultTimeout     = 10 * time.Minute
	defaultHook        = time.Minute
	defaultHealth      = 2 * time.Minute
	defaultUpdate      = 10 * time.Minute // its deadline, and its probation
	defaultInterval    = 5 * time.Second
	defaultSample      = time.Minute
	defaultReading     = 10 * time.Second
	defaultOver        = 6 * time.Hour
	leastMissedAfter   = time.Minute
	// leastSamples of a trend, and the most that are looked at.
	leastSamples = 10
	MostSamples  = 240
)

func or(d *duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.v
}

// loader puts files together.
type loader struct {
	config   *Config
	file     string
	lines    map[string]int // of the tables of the file: "schedule[1].window[0]"
	limited  string         // where the limits are
	groups   map[string]string
	problems Problems
}

func (l *loader) complain(line int, format string, args ...any) {
	l.problems = append(l.problems, Problem{l.file, line, fmt.Sprintf(format, args...)})
}

func (l *loader) load(raw []byte) {
	if bytes.HasPrefix(raw, []byte("\xef\xbb\xbf")) {
		l.complain(1, "it begins with a byte order mark (U+FEFF), which TOML has none of: save it as UTF-8 without one")
		return
	}
	if l.otherLetters(raw) {
		return
	}
	var f file
	d := toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields()
	err := d.Decode(&f)
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		for _, e := range unknown.Errors {
			row, _ := e.Position()
			l.complain(row, "there is no key %s", strings.Join(e.Key(), "."))
		}
		return
	case errors.As(err, &wrong):
		row, _ := wrong.Position()
		what := strings.TrimPrefix(wrong.Error(), "toml: ")
		if k := wrong.Key(); len(k) > 0 {
			what = strings.Join(k, ".") + ": " + what
		}
		l.complain(row, "%s", what)
		return
	case err != nil:
		l.complain(valueLine(raw, err), "%s", strings.TrimPrefix(err.Error(), "toml: "))
		return
	}
	l.lines = tableLines(raw)
	if f.Limits != nil {
		line := l.lines["limits"]
		if l.limited != "" {
			l.complain(line, "the limits are in %s already", l.limited)
		}
		l.limited = fmt.Sprintf("%s:%d", l.file, line)
		if n := f.Limits.AtOnce; n != nil {
			l.config.Limits.AtOnce, l.config.Limited = *n, true
			if *n < 0 {
				l.complain(line, "limits.at_once must not be negative")
			}
		}
		l.config.Limits.Stagger = f.Limits.Stagger.v
	}
	for i, g := range f.Groups {
		line := l.lines[fmt.Sprintf("group[%d]", i)]
		if g.Name.s == "" || len(g.Domains) == 0 {
			l.complain(line, "a group needs a name and domains")
			continue
		}
		l.config.Groups = append(l.config.Groups, schedule.Group{Name: g.Name.s,
			Match: match(g.Domains, g.Exclude), Distance: g.Distance.v})
		if l.groups == nil {
			l.groups = map[string]string{}
		}
		if at, ok := l.groups[g.Name.s]; ok {
			l.complain(line, "there is a group %s at %s already", g.Name.s, at)
		}
		l.groups[g.Name.s] = fmt.Sprintf("%s:%d", l.file, line)
	}
	for i := range f.Schedules {
		l.schedule(f.Schedules[i], fmt.Sprintf("schedule[%d]", i))
	}
}

// otherLetters complains about keys that are not in small letters: the decoder would
// take them for those that are, and of two the last would count. TOML itself tells
// them apart. What is no TOML is left to the decoder.
func (l *loader) otherLetters(raw []byte) (found bool) {
	var p unstable.Parser
	p.Reset(raw)
	small := func(c rune) bool { return c >= 'a' && c <= 'z' || c == '_' || c >= '0' && c <= '9' || c == '-' }
	var keys func(n *unstable.Node)
	key := func(it unstable.Iterator) {
		for it.Next() {
			if part := it.Node(); strings.ContainsFunc(string(part.Data), func(c rune) bool { return !small(c) }) {
				l.complain(p.Shape(part.Raw).Start.Line, "there is no key %s", part.Data)
				found = true
			}
		}
	}
	keys = func(n *unstable.Node) {
		if n.Kind == unstable.KeyValue {
			key(n.Key())
			n = n.Value()
		}
		if n.Kind != unstable.Array && n.Kind != unstable.InlineTable && n.Kind != unstable.KeyValue {
			return
		}
		for it := n.Children(); it.Next(); {
			keys(it.Node())
		}
	}
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			key(e.Key())
		case unstable.KeyValue:
			keys(e)
		}
	}
	if p.Error() != nil { // the decoder says it better
		return false
	}
	return found
}

// tableLines returns on which lines a file's tables begin.
func tableLines(raw []byte) map[string]int {
	lines, counts := map[string]int{}, map[string]int{}
	var p unstable.Parser
	p.Reset(raw)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table && e.Kind != unstable.ArrayTable {
			continue
		}
		path, line := "", 0
		for it := e.Key(); it.Next(); {
			part := it.Node()
			if path != "" {
				// The last one of an array that is named before.
				if n := counts[path]; n > 0 {
					path += fmt.Sprintf("[%d]", n-1)
				}
				path += "."
			}
			path += string(part.Data)
			line = p.Shape(part.Raw).Start.Line
		}
		if e.Kind == unstable.ArrayTable {
			counts[path]++
			path += fmt.Sprintf("[%d]", counts[path]-1)
		}
		lines[path] = line
	}
	return lines
}

// valueLine finds the value that an error without a position quotes: a number,
// where a text should be. 0 if it is not there.
func valueLine(raw []byte, err error) int {
	var p unstable.Parser
	p.Reset(raw)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.KeyValue {
			continue
		}
		values := []*unstable.Node{e.Value()}
		for it := e.Value().Children(); it.Next(); {
			values = append(values, it.Node())
		}
		for _, v := range values {
			if (v.Kind == unstable.Integer || v.Kind == unstable.Float || v.Kind == unstable.Bool) && strings.Contains(err.Error(), strconv.Quote(string(v.Data))) {
				key := e.Key()
				key.Next()
				return p.Shape(key.Node().Raw).Start.Line
			}
		}
	}
	return 0
}

func match(domains, exclude []pattern) (m schedule.Match) {
	for _, p := range domains {
		m.Domains = append(m.Domains, p.s)
	}
	for _, p := range exclude {
		m.Exclude = append(m.Exclude, p.s)
	}
	return m
}

func (l *loader) schedule(f fileSchedule, at string) {
	line := l.lines[at]
	complain := func(format string, args ...any) {
		name := f.Name.s
		if name == "" {
			name = "without a name"
		}
		l.complain(line, "schedule %s: %s", name, fmt.Sprintf(format, args...))
	}
	s := &Schedule{File: l.file, Line: line, ColdToo: f.IfCold.s == "reboot",
		Mode: api.Graceful, Timeout: or(f.Timeout, defaultTimeout),
		Rule: schedule.Rule{Name: f.Name.s, Match: match(f.Domains, f.Exclude), Every: f.Every.v,
			Location: f.Timezone.loc, CatchUp: f.Missed.s == "run", MissedAfter: or(f.MissedAfter, defaultMissedAfter),
			Distance: or(f.Distance, defaultDistance), Retry: or(f.Retry, defaultRetry),
			Order: f.Order, AtOnce: f.AtOnce, Stagger: f.Stagger.v, DryRun: f.DryRun}}
	if f.Mode.s != "" {
		s.Mode = api.Trigger(f.Mode.s)
	}
	if s.Location == nil {
		s.Location = localZone()
	}
	if f.Cron != nil {
		s.Cron = []schedule.Cron{f.Cron.Cron}
	}
	switch {
	case f.Name.s == "":
		complain("it needs a name")
	case len(f.Domains) == 0:
		complain("it needs domains")
	case f.Cron == nil && f.Every.v == 0 && len(f.Triggers) == 0:
		complain("it needs cron, every or a trigger")
	case f.AtOnce < 0:
		complain("at_once must not be negative")
	case s.Timeout <= 0:
		complain("timeout must be more than 0")
	case s.MissedAfter < leastMissedAfter:
		complain("missed_after must be %s at least: the domains are looked at every few seconds, and a run must not be missed between two looks", schedule.FormatDuration(leastMissedAfter))
	case f.Every.v > 0 && f.Every.v < s.Distance:
		complain("every is %s, less than minimum_distance, %s", schedule.FormatDuration(s.Every), schedule.FormatDuration(s.Distance))
	}
	for i, w := range f.Windows {
		line := l.lines[fmt.Sprintf("%s.window[%d]", at, i)]
		if w.From == nil || w.To == nil || w.From.v == 24*60 || w.From.v == w.To.v {
			l.complain(line, "a window needs from and to, which differ; all day is from 00:00 to 24:00")
			continue
		}
		window := schedule.Window{From: w.From.v, To: w.To.v}
		for _, d := range w.Days {
			window.Days = append(window.Days, d.v)
		}
		s.Windows = append(s.Windows, window)
	}
	for i, t := range f.Triggers {
		l.trigger(s, t, l.lines[fmt.Sprintf("%s.trigger[%d]", at, i)])
	}
	for what, hooks := range map[string][]fileHook{"before": f.Before, "after": f.After} {
		for i, h := range hooks {
			hook, ok := l.hook(h, l.lines[fmt.Sprintf("%s.%s[%d]", at, what, i)])
			if what == "before" && ok {
				s.Before = append(s.Before, hook)
				if h.Always {
					l.complain(l.lines[fmt.Sprintf("%s.%s[%d]", at, what, i)], "always is for hooks after the reboot")
				}
			} else if ok {
				s.After = append(s.After, hook)
			}
		}
	}
	if f.Alert != nil {
		if h, ok := l.hook(*f.Alert, l.lines[at+".alert"]); ok {
			s.Alert = &h.Command
		}
	}
	if f.Health != nil {
		l.health(s, *f.Health, l.lines[at+".health"])
	}
	if f.Update != nil {
		l.update(s, *f.Update, l.lines[at+".update"])
	}
	l.config.Schedules = append(l.config.Schedules, s)
}

// count is how many of its arguments are true.
func count(which ...bool) (n int) {
	for _, w := range which {
		if w {
			n++
		}
	}
	return n
}

func (l *loader) trigger(s *Schedule, f fileTrigger, line int) {
	src := Source{URL: f.URL.s, Args: f.Command, Xenstore: f.Xenstore.s, SwapVBD: f.SwapVBD.v,
		Every: or(f.Sample, defaultSample), Timeout: or(f.Timeout, defaultReading)}
	if f.Console != nil {
		src.Console = f.Console.Regexp
	}
	over := or(f.Over, defaultOver)
	switch {
	case count(src.URL != "", len(src.Args) > 0, src.Xenstore != "", src.SwapVBD != 0, src.Console != nil) != 1:
		l.complain(line, "a trigger needs one of url, command, xenstore, swap_vbd and console")
		return
	case count(f.Above != nil, f.Below != nil) != 1 || f.Slope == nil || *f.Slope < 0:
		l.complain(line, "a trigger needs a level, above or below, and a slope per hour, which is not negative: how fast the figure goes that way")
		return
	case src.Every < time.Second || src.Timeout <= 0 || src.Timeout > src.Every:
		l.complain(line, "sample must be 1s or more, and timeout not more than that")
		return
	case over < leastSamples*src.Every:
		l.complain(line, "over must be %d times sample at least, %s", leastSamples, schedule.FormatDuration(leastSamples*src.Every))
		return
	case len(src.Args) > 0 && !filepath.IsAbs(src.Args[0]):
		l.complain(line, "command must begin with an absolute path")
		return
	}
	t := schedule.Trigger{Name: f.Name, Slope: *f.Slope, Over: over, Least: leastSamples}
	if t.Name == "" {
		t.Name = src.String()
	}
	if f.Above != nil {
		t.Level = *f.Above
	} else {
		t.Level, t.Falling = *f.Below, true
	}
	s.Triggers = append(s.Triggers, t)
	s.Sources = append(s.Sources, src)
}

func (l *loader) hook(f fileHook, line int) (Hook, bool) {
	h := Hook{Command: Command{f.Command, or(f.Timeout, defaultHook)}, GoOn: f.OnFailure.s == "continue", Always: f.Always}
	if len(f.Command) == 0 || !filepath.IsAbs(f.Command[0]) || h.Timeout <= 0 {
		l.complain(line, "a hook needs a command that begins with an absolute path, and a timeout of more than 0")
		return h, false
	}
	return h, true
}

func (l *loader) health(s *Schedule, f fileHealth, line int) {
	h := &Health{HTTP: f.HTTP.s, Status: f.Status, TCP: f.TCP.s, Xenstore: f.Xenstore.s, Args: f.Command,
		Timeout: or(f.Timeout, defaultHealth), Interval: or(f.Interval, defaultInterval)}
	switch {
	case count(h.HTTP != "", h.TCP != "", h.Xenstore != "", len(h.Args) > 0) != 1:
		l.complain(line, "a health check needs one of http, tcp, xenstore and command")
	case len(h.Args) > 0 && !filepath.IsAbs(h.Args[0]):
		l.complain(line, "command must begin with an absolute path")
	case len(h.Status) > 0 && h.HTTP == "":
		l.complain(line, "status is for http")
	case slices.ContainsFunc(h.Status, func(n int) bool { return n < 100 || n > 599 }):
		l.complain(line, "status must be numbers from 100 to 599")
	case h.Timeout <= 0 || h.Interval <= 0 || h.Interval > h.Timeout:
		l.complain(line, "timeout and interval must be more than 0, and interval not more than timeout")
	case h.Timeout.Seconds() > api.MaxSeconds:
		l.complain(line, "timeout must be %d seconds or less", int(api.MaxSeconds))
	}
	for _, a := range f.OnFailure {
		if slices.Contains(h.OnFailure, Action(a.s)) {
			l.complain(line, "on_failure names %s twice", a.s)
		}
		h.OnFailure = append(h.OnFailure, Action(a.s))
	}
	if f.OnFailure == nil {
		h.OnFailure = []Action{Alert, Stop}
	}
	s.Health = h
}

// checkAll checks what no file shows by itself.
func (l *loader) checkAll() {
	seen := map[string]*Schedule{}
	for _, s := range l.config.Schedules {
		l.file = s.File
		if o := seen[s.Name]; o != nil && s.Name != "" {
			l.complain(s.Line, "schedule %s: there is one of that name at %s:%d already", s.Name, o.File, o.Line)
		}
		seen[s.Name] = s
		for _, c := range s.Cron {
			if s.NeverRuns(c) {
				l.complain(s.Line, "schedule %s: cron %s never comes in its windows, nor up to missed_after before them", s.Name, c)
			}
		}
	}
}

func (l *loader) update(s *Schedule, f fileUpdate, line int) {
	u := &Update{Kernel: f.Kernel, Initrd: f.Initrd, Cmdline: f.Cmdline, WriteConfig: f.WriteConfig,
		Deadline: or(f.Deadline, defaultUpdate), Probation: or(f.Probation, defaultUpdate)}
	switch {
	case !filepath.IsAbs(u.Kernel):
		l.complain(line, "an update needs a kernel, by its absolute path")
	case u.Initrd != "" && u.Initrd != api.NoInitrd && !filepath.IsAbs(u.Initrd):
		l.complain(line, "initrd must be an absolute path, or %q", api.NoInitrd)
	case u.Deadline < time.Second || u.Probation < 0:
		l.complain(line, "deadline must be a second or more, and probation not negative")
	case u.Deadline.Seconds() > api.MaxSeconds || u.Probation.Seconds() > api.MaxSeconds:
		l.complain(line, "deadline and probation must be %d seconds or less", int(api.MaxSeconds))
	case s.Mode == api.Force:
		l.complain(line, "an update is no forced reboot: mode must be graceful or cold")
	}
	s.Update, s.Updates = u, true
}
