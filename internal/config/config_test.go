package config

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/schedule"
)

// write makes a directory of files.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const small = `[[schedule]]
name = "small"
domains = ["web-*"]
every = "30d"
`

// TestUpdate: what a schedule updates to, and how long that may take.
func TestUpdate(t *testing.T) {
	load := func(text string) *Schedule {
		t.Helper()
		c, err := Load(write(t, map[string]string{"a.toml": small + text}))
		if err != nil {
			t.Fatal(err)
		}
		return c.Schedules[0]
	}
	if s := load(""); s.Update != nil || s.Updates || s.Longest() != 11*time.Minute {
		t.Errorf("%+v, %v", s.Update, s.Longest())
	}
	s := load("[schedule.update]\nkernel = \"/boot/{domain}\"\n")
	if want := (Update{Kernel: "/boot/{domain}", Deadline: 10 * time.Minute, Probation: 10 * time.Minute}); *s.Update != want || !s.Updates || s.Longest() != 11*time.Minute+55*time.Minute {
		t.Errorf("%+v, %v", s.Update, s.Longest())
	}
	s = load("health.tcp = \"a:1\"\nhealth.timeout = \"1m\"\nupdate = { kernel = \"/k\", initrd = \"none\", cmdline = \"\", deadline = \"1m\", probation = \"0s\", write_config = true }\n")
	if u := *s.Update; u.Initrd != "none" || u.Cmdline == nil || *u.Cmdline != "" || u.Deadline != time.Minute || u.Probation != 0 || !u.WriteConfig || s.Longest() < 4*time.Minute+3*time.Minute {
		t.Errorf("%+v, %v", u, s.Longest())
	}
}

// TestDocumentedExample: the file in the operator's guide is right, and means
// what it says.
func TestDocumentedExample(t *testing.T) {
	raw, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(raw), "    # /etc/warmreboot/web.toml\n")
	if !ok {
		t.Fatal("docs/operations.md has no example")
	}
	var lines []string
	for _, line := range strings.Split(text, "\n") {
		if line != "" && !strings.HasPrefix(line, "    ") {
			break
		}
		lines = append(lines, strings.TrimPrefix(line, "    "))
	}
	c, err := Load(write(t, map[string]string{"web.toml": strings.Join(lines, "\n")}))
	if err != nil {
		t.Fatal(err)
	}
	if c.Limits != (schedule.Limits{AtOnce: 2, Stagger: 5 * time.Minute}) || !c.Limited || len(c.Groups) != 1 || len(c.Schedules) != 1 {
		t.Fatalf("%+v", c)
	}
	s := c.Schedules[0]
	if !s.Match.Of("web-1", ident.UUID{}) || s.Match.Of("web-test", ident.UUID{}) || s.Match.Of("mail", ident.UUID{}) ||
		s.Every != 30*24*time.Hour || len(s.Cron) != 1 || s.Location.String() != "Europe/Berlin" || len(s.Windows) != 2 ||
		s.Mode != api.Graceful || s.ColdToo || len(s.Before) != 1 || len(s.After) != 1 || s.Alert == nil || len(s.Triggers) != 2 {
		t.Errorf("%+v", s)
	}
	if s.Sources[0].URL == "" || s.Triggers[0].Level != 400 || s.Triggers[0].Slope != 5 || !s.Triggers[1].Falling || s.Sources[1].Xenstore == "" {
		t.Errorf("%+v, %+v", s.Sources, s.Triggers)
	}
	if h := s.Health; h.HTTP == "" || !reflect.DeepEqual(h.OnFailure, []Action{Alert, ColdReboot, Stop}) {
		t.Errorf("%+v", h)
	}
	// The reboot, a forced cold one after a cold one that the guest does not react to, two
	// health checks, hooks and alerts.
	if s.Longest() != 3*10*time.Minute+time.Minute+2*5*time.Minute+3*time.Minute+4*time.Minute {
		t.Errorf("its lock lasts for %v", s.Longest())
	}
	if w := s.Windows[0]; w.From != 120 || w.To != 300 || len(w.Days) != 5 {
		t.Errorf("%+v", w)
	}
}

func TestDefaults(t *testing.T) {
	c, err := Load(write(t, map[string]string{"a.toml": small, "b.conf": "rubbish", ".c.toml": "rubbish"}))
	if err != nil {
		t.Fatal(err)
	}
	s := c.Schedule("small")
	if c.Limits.AtOnce != 1 || c.Limited || s == nil || s.Distance != time.Hour || s.Retry != time.Hour || s.MissedAfter != time.Hour || s.CatchUp ||
		s.Timeout != 10*time.Minute || s.Mode != api.Graceful || s.Location == nil || s.Line != 1 || s.Longest() != 11*time.Minute {
		t.Errorf("%+v", s)
	}
	if c, err := Load(filepath.Join(t.TempDir(), "none")); err != nil || len(c.Schedules) != 0 {
		t.Errorf("no directory: %+v, %v", c, err)
	}
}

// TestProblems: what is wrong, and where.
func TestProblems(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"syntax":              {"[[schedule]]\nname = x\n", "a.toml:2: "},
		"unknown key":         {small + "evry = \"1d\"\n", "a.toml:5: there is no key schedule.evry"},
		"unknown table":       {small + "[schedule.hook]\n", "a.toml:5: there is no key schedule.hook"},
		"two unknown keys":    {"[limits]\nx = 1\ny = 2\n", "a.toml:3: there is no key limits.y"},
		"type":                {"[limits]\n\nat_once = \"two\"\n", "a.toml:3: "},
		"duration":            {strings.Replace(small, "30d", "30 days", 1), `a.toml:4: `},
		"duration, what":      {strings.Replace(small, "30d", "30 days", 1), `"30 days" must be like`},
		"duration, number":    {strings.Replace(small, `"30d"`, "30", 1), `a.toml:4: duration "30" must be like`},
		"cron":                {small + "cron = \"0 3 * *\"\n", "a.toml:5: "},
		"cron never comes":    {small + "cron = \"0 0 31 2 *\"\n", "never comes"},
		"zone":                {small + "timezone = \"Europe/Bonn\"\n", `a.toml:5: schedule.timezone: there is no time zone "Europe/Bonn"`},
		"pattern":             {strings.Replace(small, "web-*", "web-[", 1), "a.toml:3: "},
		"mode":                {small + "mode = \"warm\"\n", `"warm" must be one of graceful, force, cold`},
		"name":                {strings.Replace(small, `"small"`, `"a b"`, 1), "a.toml:2: "},
		"no name":             {strings.Replace(small, "name = \"small\"\n", "", 1), "a.toml:1: schedule without a name: it needs a name"},
		"no domains":          {"\n\n[[schedule]]\nname = \"x\"\nevery = \"1d\"", "a.toml:3: schedule x: it needs domains"},
		"never":               {strings.Replace(small, "every = \"30d\"", "", 1), "a.toml:1: schedule small: it needs cron, every or a trigger"},
		"too often":           {strings.Replace(small, "30d", "5m", 1), "less than minimum_distance, 1h"},
		"same name":           {small + small, "a.toml:5: schedule small: there is one of that name at "},
		"window":              {small + "[[schedule.window]]\nfrom = \"02:00\"\nto = \"03:00\"\n[[schedule.window]]\nfrom = \"02:00\"\n", "a.toml:8: a window needs from and to"},
		"hour":                {small + "[[schedule.window]]\nfrom = \"2:00\"\nto = \"25:00\"\n", "a.toml:6: "},
		"day":                 {small + "[[schedule.window]]\ndays = [\"mon\",\n \"xyz\"]\n", "a.toml:7: "},
		"cron outside window": {strings.Replace(small, "every = \"30d\"", "cron = \"0 12 * * *\"", 1) + "[[schedule.window]]\nfrom = \"02:00\"\nto = \"03:00\"\n", "a.toml:1: schedule small: cron 0 12 * * * never comes in its windows"},
		"no source":           {small + "[[schedule.trigger]]\nabove = 3\nslope = 1\n", "a.toml:5: a trigger needs one of url, command"},
		"two sources":         {small + "[[schedule.trigger]]\nurl = \"http://a/\"\nxenstore = \"data/x\"\nabove = 3\nslope = 1\n", "a.toml:5: a trigger needs one of"},
		"no slope":            {small + "[[schedule.trigger]]\nurl = \"http://a/\"\nabove = 3\n", "a.toml:5: a trigger needs a level"},
		"two levels":          {small + "[[schedule.trigger]]\nurl = \"http://a/\"\nabove = 3\nbelow = 2\nslope = 1\n", "a.toml:5: a trigger needs a level"},
		"over":                {small + "[[schedule.trigger]]\nurl = \"http://a/\"\nabove = 3\nslope = 1\nover = \"5m\"\n", "a.toml:5: over must be 10 times sample"},
		"url":                 {small + "[schedule.health]\nhttp = \"ftp://a/\"\n", "a.toml:6: "},
		"address":             {small + "[schedule.health]\ntcp = \"a\"\n", "is no address"},
		"long probation":      {small + "[schedule.update]\nkernel = \"/k\"\nprobation = \"14d\"\n", "a.toml:5: deadline and probation must be 1000000 seconds or less"},
		"long health":         {small + "[schedule.health]\ntcp = \"h:1\"\ntimeout = \"14d\"\n", "a.toml:5: timeout must be 1000000 seconds or less"},
		"no kernel":           {small + "[schedule.update]\ninitrd = \"/i\"\n", "a.toml:5: an update needs a kernel"},
		"a relative initrd":   {small + "[schedule.update]\nkernel = \"/k\"\ninitrd = \"i\"\n", "a.toml:5: initrd must be"},
		"no time":             {small + "[schedule.update]\nkernel = \"/k\"\ndeadline = \"0s\"\n", "a.toml:5: deadline"},
		"a forced update":     {small + "mode = \"force\"\n[schedule.update]\nkernel = \"/k\"\n", "a.toml:6: an update is no forced"},
		"two checks":          {small + "[schedule.health]\ntcp = \"a:1\"\nxenstore = \"data/x\"\n", "a.toml:5: a health check needs one of"},
		"a node elsewhere":    {small + "[schedule.health]\nxenstore = \"/local\"\n", "is no path below"},
		"no check":            {small + "[schedule.health]\ntimeout = \"1m\"\n", "a.toml:5: a health check needs one of"},
		"action":              {small + "[schedule.health]\ntcp = \"a:1\"\non_failure = [\"reboot\"]\n", "a.toml:7: "},
		"hook":                {small + "[[schedule.before]]\ncommand = [\"true\"]\n", "a.toml:5: a hook needs a command"},
		"hook's policy":       {small + "[[schedule.before]]\ncommand = [\"/bin/true\"]\non_failure = \"ignore\"\n", "a.toml:7: "},
		"second hook":         {small + "[[schedule.after]]\ncommand = [\"/bin/true\"]\n[[schedule.after]]\ntimeout = \"1s\"", "a.toml:7: a hook needs a command"},
		"xenstore":            {small + "[[schedule.trigger]]\nxenstore = \"../0/name\"\nabove = 3\nslope = 1\n", "is no path below"},
		"expression":          {small + "[[schedule.trigger]]\nconsole = \"(\"\nabove = 3\nslope = 1\n", "a.toml:6: "},
		"missed at once":      {small + "cron = \"0 3 * * *\"\nmissed_after = \"0s\"\n", "a.toml:1: schedule small: missed_after must be 1m at least"},
		"a second":            {small + "missed_after = \"1s\"\n", "missed_after must be 1m at least"},
		"afternoon":           {small + "[[schedule.window]]\nfrom = \"1:00p\"\nto = \"03:00\"\n", "a.toml:6: "},
		"other letters":       {small + "EVERY = \"1d\"\n", "a.toml:5: there is no key EVERY"},
		"other letters, once": {strings.Replace(small, "every", "Every", 1), "a.toml:4: there is no key Every"},
		"table":               {strings.Replace(small, "[[schedule]]", "[[Schedule]]", 1), "a.toml:1: there is no key Schedule"},
		"long s":              {strings.Replace(small, "[[schedule]]", "[[\"\u017fchedule\"]]", 1), "a.toml:1: there is no key \u017fchedule"},
		"inline":              {small + "health = { TCP = \"a:1\" }\n", "a.toml:5: there is no key TCP"},
		"dotted":              {small + "health.Tcp = \"a:1\"\n", "a.toml:5: there is no key Tcp"},
		"in an array":         {small + "window = [ { from = \"01:00\", TO = \"02:00\" } ]\n", "a.toml:5: there is no key TO"},
		"zone of Go":          {small + "timezone = \"Local\"\n", "a.toml:5: schedule.timezone: write the host's time zone as local"},
		"UUID in braces":      {strings.Replace(small, "web-*", "{5c0f2c6e-93a1-4a4e-8f7e-2f6d2f0c9a11}", 1), "a.toml:3: "},
		"no status":           {small + "[schedule.health]\nhttp = \"http://a/\"\nstatus = [99999, -1]\n", "a.toml:5: status must be numbers from 100 to 599"},
		"byte order mark":     {"\ufeff" + small, "a.toml:1: it begins with a byte order mark"},
		"minute":              {small + "cron = \"0-70 3 * * *\"\n", "minute 70 must be from 0 to 59"},
		"no vbd":              {small + "[[schedule.trigger]]\nswap_vbd = \"hda\"\nabove = 3\nslope = 1\n", "a.toml:6: "},
		"group":               {"[[group]]\nname = \"x\"\n", "a.toml:1: a group needs"},
	} {
		_, err := Load(write(t, map[string]string{"a.toml": c.text}))
		var p Problems
		if !errors.As(err, &p) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestSeveralFiles(t *testing.T) {
	limits := "[limits]\nat_once = 3\n"
	dir := write(t, map[string]string{"a.toml": small + limits, "b.toml": limits + small, "c.toml": "x"})
	_, err := Load(dir)
	var p Problems
	if !errors.As(err, &p) || len(p) != 3 || !strings.Contains(p[0].Message, "a.toml:5 already") ||
		!strings.Contains(p[1].Message, "a.toml:1 already") || filepath.Base(p[2].File) != "c.toml" {
		t.Errorf("%v", err)
	}
}

// TestWritableByOthers: commands of a file are run as root.
func TestWritableByOthers(t *testing.T) {
	dir := write(t, map[string]string{"a.toml": small})
	if err := os.Chmod(filepath.Join(dir, "a.toml"), 0o664); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("%v", err)
	}
}

// TestWatch: a file that is written, renamed over or removed, and a directory
// that is made later, or made again.
func TestWatch(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "conf")
	changed := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := Watch(ctx, dir, func() { changed <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a.toml")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"directory made", func() { must(os.Mkdir(dir, 0o755)) }},
		{"file made", func() { must(os.WriteFile(path, []byte("a"), 0o644)) }},
		{"file written to", func() { must(os.WriteFile(path, []byte("b"), 0o644)) }},
		{"file replaced", func() { must(os.WriteFile(path+".new", nil, 0o644)); must(os.Rename(path+".new", path)) }},
		{"directory removed", func() { must(os.RemoveAll(dir)) }},
		{"directory made again", func() { must(os.Mkdir(dir, 0o755)) }},
		{"file made again", func() { must(os.WriteFile(path, []byte("a"), 0o644)) }},
	} {
		step.do()
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: not seen", step.what)
		}
		// Several events may be one change, or two.
		for quiet := false; !quiet; {
			select {
			case <-changed:
			case <-time.After(2 * settle):
				quiet = true
			}
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(small)
	f.Add("[[schedule]]\n[[schedule.window]]\n[schedule.health]\n[limits]\n[[group]]\n")
	f.Fuzz(func(t *testing.T, text string) {
		l := loader{config: &Config{}, file: "a"}
		l.load([]byte(text))
		l.checkAll()
		for _, p := range l.problems {
			if n := strings.Count(text, "\n") + 1; p.Line < 0 || p.Line > n {
				t.Errorf("line %d of %d: %s", p.Line, n, p.Message)
			}
		}
	})
}

// TestSwapVBD: the forms in which the configuration of a domain has it.
func TestSwapVBD(t *testing.T) {
	for form, want := range map[string]ident.VBD{"xvda2": 51714, "51714": 51714, "xvdq": 268439552, "xvdb": 51728} {
		c, err := Load(write(t, map[string]string{"a.toml": small + "[[schedule.trigger]]\nswap_vbd = \"" + form + "\"\nabove = 3\nslope = 1\n"}))
		if err != nil || c.Schedules[0].Sources[0].SwapVBD != want {
			t.Errorf("%s: %v", form, err)
		}
	}
}
