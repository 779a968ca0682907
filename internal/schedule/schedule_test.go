package schedule

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/ident"
)

var (
	webA = ident.UUID{1}
	webB = ident.UUID{2}
	noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) // a Saturday
)

const day = 24 * time.Hour

func weekly(t *testing.T) *Rule {
	return &Rule{Name: "weekly", Match: Match{Domains: []string{"web-*"}, Exclude: []string{"web-test"}}, Cron: []Cron{cron(t, "0 12 * * *")},
		Location: time.UTC, MissedAfter: time.Hour, Distance: time.Hour, Retry: time.Hour}
}

func up(name string, uuid ident.UUID, age time.Duration) Domain {
	return Domain{Name: name, UUID: uuid, Up: true, Age: age}
}

// one is the decision about web-a under one rule.
func one(t *testing.T, in Input) Item {
	t.Helper()
	for _, it := range Decide(in) {
		if it.Domain == "web-a" {
			return it
		}
	}
	t.Fatal("no decision about web-a")
	return Item{}
}

// TestDecide: one domain, one rule, what is changed about them, and what is
// then decided.
func TestDecide(t *testing.T) {
	key := Key{"weekly", webA}
	falling := Trigger{Name: "free", Level: 100, Falling: true, Slope: 1, Over: time.Hour, Least: 5}
	for name, c := range map[string]struct {
		change func(*Input, *Rule, *Domain)
		start  bool
		says   string // in why, or in blocked
		next   time.Time
		skip   bool
	}{
		"first seen at its time": {func(in *Input, _ *Rule, _ *Domain) { in.Memory = nil }, false, "cron 0 12", noon.Add(day), false},
		"due":                    {func(*Input, *Rule, *Domain) {}, true, "cron 0 12", noon, false},
		"a little late":          {func(in *Input, _ *Rule, _ *Domain) { in.Now = noon.Add(59 * time.Minute) }, true, "cron", noon.Add(59 * time.Minute), false},
		"missed":                 {func(in *Input, _ *Rule, _ *Domain) { in.Now = noon.Add(61 * time.Minute) }, false, "cron", noon.Add(day), true},
		"missed, but waited for its turn": {func(in *Input, _ *Rule, _ *Domain) {
			in.Now = noon.Add(61 * time.Minute)
			in.Memory[key] = Memory{Handled: noon.Add(-time.Minute), Waiting: noon}
		}, true, "cron", noon.Add(61 * time.Minute), false},
		"missed, to be caught up": {func(in *Input, r *Rule, _ *Domain) { in.Now, r.CatchUp = noon.Add(5*day-time.Hour), true }, true, "caught up", noon.Add(5*day - time.Hour), false},
		"handled":                 {func(in *Input, _ *Rule, _ *Domain) { in.Memory[key] = Memory{Handled: noon} }, false, "cron", noon.Add(day), false},
		"down":                    {func(_ *Input, _ *Rule, d *Domain) { d.Up = false }, false, "does not run", time.Time{}, false},
		"busy":                    {func(_ *Input, _ *Rule, d *Domain) { d.Busy = "coming back" }, false, "coming back", time.Time{}, false},
		"locked":                  {func(_ *Input, _ *Rule, d *Domain) { d.Locked = "locked by ann" }, false, "locked by ann", time.Time{}, false},
		"stopped":                 {func(in *Input, _ *Rule, _ *Domain) { in.Stopped = map[string]string{"weekly": "health"} }, false, "stopped: health", time.Time{}, false},
		"too soon after its boot": {func(_ *Input, _ *Rule, d *Domain) { d.Age = 50 * time.Minute }, false, "up for 50m, less than 1h", noon.Add(10 * time.Minute), false},
		"outside its window":      {func(_ *Input, r *Rule, _ *Domain) { r.Windows = []Window{{From: 13 * 60, To: 14 * 60}} }, false, "next opens at 2026-11-21 13:00", noon.Add(time.Hour), false},
		"failed": {func(in *Input, _ *Rule, _ *Domain) {
			in.Memory[key] = Memory{Handled: noon.Add(-1), NotBefore: noon.Add(9)}
		}, false, "attempt failed", noon.Add(9), false},
		"old enough":     {func(in *Input, r *Rule, d *Domain) { r.Cron, r.Every, d.Age = nil, 30*day, 31*day }, true, "up for 31d, every 30d", noon, false},
		"not old enough": {func(in *Input, r *Rule, d *Domain) { r.Cron, r.Every, d.Age = nil, 30*day, 29*day }, false, "every 30d", noon.Add(day), false},
		"ages": {func(in *Input, r *Rule, _ *Domain) {
			r.Cron, r.Triggers = nil, []Trigger{falling}
			in.Trends = map[Key][]Trend{key: {{Samples: 9, Span: time.Hour, Level: 90, Slope: -2}}}
		}, true, "aging is at most 100", noon, false},
		"is low, but does not fall": {func(in *Input, r *Rule, _ *Domain) {
			r.Cron, r.Triggers = nil, []Trigger{falling}
			in.Trends = map[Key][]Trend{key: {{Samples: 9, Span: time.Hour, Level: 90, Slope: 0}}}
		}, false, "changes by +0", time.Time{}, false},
		"falls, but is not low yet": {func(in *Input, r *Rule, _ *Domain) {
			r.Cron, r.Triggers = nil, []Trigger{falling}
			in.Trends = map[Key][]Trend{key: {{Samples: 9, Span: time.Hour, Level: 110, Slope: -2}}}
		}, false, "if it goes on", noon.Add(5 * time.Hour), false},
		"too few samples": {func(in *Input, r *Rule, _ *Domain) {
			r.Cron, r.Triggers = nil, []Trigger{falling}
			in.Trends = map[Key][]Trend{key: {{Samples: 4, Span: time.Hour, Level: 0, Slope: -9, Failed: "refused"}}}
		}, false, "the last reading failed: refused", time.Time{}, false},
		// The clock was right, went wrong by a year, and was set right again.
		"set back": {func(in *Input, _ *Rule, _ *Domain) {
			in.Memory[key] = Memory{Handled: noon.Add(365 * day), Waiting: noon.Add(365 * day)}
		}, false, "cron", noon.Add(day), false},
		// A jump by a year: the runs in between are missed, not made up for.
		"set forward":                  {func(in *Input, _ *Rule, _ *Domain) { in.Now = noon.Add(365*day + 2*time.Hour) }, false, "cron", noon.Add(366 * day), true},
		"at its time, after two weeks": {func(in *Input, _ *Rule, _ *Domain) { in.Now = noon.Add(14 * day) }, true, "cron", noon.Add(14 * day), false},
	} {
		r, d := weekly(t), up("web-a", webA, 10*day)
		in := Input{Now: noon, Rules: []*Rule{r}, Forecast: true, Memory: map[Key]Memory{key: {Handled: noon.Add(-time.Minute)}}}
		c.change(&in, r, &d)
		in.Domains = []Domain{d, up("web-test", ident.UUID{7}, 10*day), up("mail", ident.UUID{8}, 10*day)}
		if all := Decide(in); len(all) != 1 {
			t.Errorf("%s: %d decisions", name, len(all))
		}
		it := one(t, in)
		if it.Start != c.start || !strings.Contains(it.Why+"|"+it.Blocked, c.says) || !it.Next.Equal(c.next) || it.Skipped.IsZero() == c.skip {
			t.Errorf("%s: %+v, want start %v, %q, next %v", name, it, c.start, c.says, c.next)
		}
		if it.Start == (it.Blocked != "") && !it.Due.IsZero() {
			t.Errorf("%s: start %v, blocked %q", name, it.Start, it.Blocked)
		}
		// What was skipped or begun is not there a second time.
		if it.Start || c.skip {
			in.Memory = map[Key]Memory{key: it.Memory}
			in.Now = in.Now.Add(time.Second)
			if again := one(t, in); (again.Start && len(r.Cron) > 0) || !again.Skipped.IsZero() {
				t.Errorf("%s: once more: %+v", name, again)
			}
		}
	}
}

// TestQueue: several domains that are all due.
func TestQueue(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Input)
		starts string
		says   string
	}{
		"no limits":   {func(*Input) {}, "web-a web-b", ""},
		"one at once": {func(in *Input) { in.Limits.AtOnce = 1 }, "web-a", "at most 1 at once"},
		"one is busy": {func(in *Input) { in.Limits.AtOnce = 1; in.Domains[2].Busy = "crashed" }, "", "1 being rebooted"},
		"of the rule": {func(in *Input) { in.Rules[0].AtOnce = 1; in.Running = map[ident.UUID]string{{9}: "weekly"} }, "", "1 of this schedule"},
		"stagger":     {func(in *Input) { in.Limits.Stagger = time.Minute }, "web-a", "1m after the last one"},
		"just begun": {func(in *Input) {
			in.Limits.Stagger = time.Minute
			in.Started = map[string]time.Duration{"": 59 * time.Second}
		}, "", "1m after"},
		"long begun": {func(in *Input) {
			in.Rules[0].Stagger = time.Minute
			in.Started = map[string]time.Duration{"weekly": time.Minute}
		}, "web-a", "schedule's last one"},
		"group": {func(in *Input) { in.Groups = []Group{{Name: "g", Match: Match{Domains: []string{"web-*"}}}} }, "web-a", "web-a of group g is being rebooted"},
		"group, one is down": {func(in *Input) {
			in.Groups = []Group{{Name: "g", Match: Match{Domains: []string{"*"}}}}
			in.Domains[2].Up = false
		}, "", "mail of group g does not run"},
		"group, one was rebooted": {func(in *Input) {
			in.Groups = []Group{{Name: "g", Match: Match{Domains: []string{"*"}}, Distance: time.Hour}}
			in.Domains[2].Age = time.Minute
		}, "", "mail of group g has been up for 1m, less than 1h"},
		"another group": {func(in *Input) { in.Groups = []Group{{Name: "g", Match: Match{Domains: []string{"mail", "web-a"}}}} }, "web-a web-b", ""},
		"a dry run takes nobody's turn": {func(in *Input) {
			dry := *in.Rules[0]
			dry.Name, dry.Order, dry.DryRun = "dry", -1, true
			dry.Stagger = time.Minute
			in.Rules = append(in.Rules, &dry)
			in.Memory[Key{"dry", webA}], in.Memory[Key{"dry", webB}] = Memory{Handled: noon.Add(-time.Minute)}, Memory{Handled: noon.Add(-time.Minute)}
			in.Limits.AtOnce, in.Limits.Stagger = 1, time.Minute
		}, "web-a web-a", "schedule's last one"},
		"order": {func(in *Input) {
			second := *in.Rules[0]
			second.Name, second.Order, second.Match = "first", -1, Match{Domains: []string{webB.String()}}
			in.Rules = append(in.Rules, &second)
			in.Memory[Key{"first", webB}] = Memory{Handled: noon.Add(-time.Minute)}
			in.Limits.AtOnce = 1
		}, "web-b", "schedule first reboots it now"},
	} {
		in := Input{Now: noon, Rules: []*Rule{weekly(t)}, Memory: map[Key]Memory{},
			Domains: []Domain{up("web-b", webB, 9*day), up("web-a", webA, 9*day), up("mail", ident.UUID{8}, 9*day)}}
		for _, u := range []ident.UUID{webA, webB} {
			in.Memory[Key{"weekly", u}] = Memory{Handled: noon.Add(-time.Minute)}
		}
		c.change(&in)
		var starts []string
		said := c.says == ""
		for _, it := range Decide(in) {
			if it.Start {
				starts = append(starts, it.Domain)
			}
			said = said || strings.Contains(it.Blocked, c.says)
			if !it.Start && !it.Memory.Waiting.Equal(noon) {
				t.Errorf("%s: %s waits since %v", name, it.Domain, it.Memory.Waiting)
			}
		}
		if strings.Join(starts, " ") != c.starts || !said {
			t.Errorf("%s: starts %v, want %q, said %q: %v", name, starts, c.starts, c.says, said)
		}
	}
}

func TestTrend(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var leak, noise, busy []Sample
	for i := range 120 {
		at := time.Duration(i) * time.Minute
		n := 20 * (r.Float64() - 0.5)
		leak = append(leak, Sample{at, 100 + float64(i) + n})
		noise = append(noise, Sample{at, 300 + n})
		b := 100 + n
		if i > 110 { // ten bad minutes at the end
			b = 5000
		}
		busy = append(busy, Sample{at, b})
	}
	g := Trigger{Name: "latency", Level: 180, Slope: 30, Over: 2 * time.Hour, Least: 10}
	if tr := TrendOf(leak); tr.Slope < 50 || tr.Slope > 70 || tr.Level < 190 || tr.Level > 220 {
		t.Errorf("leak: %+v", tr)
	} else if fires, why := g.Fires(tr); !fires {
		t.Error(why)
	}
	for what, s := range map[string][]Sample{"noise above the level": noise, "a busy moment": busy, "none": nil, "one": leak[:1], "half an hour": leak[90:]} {
		if fires, why := g.Fires(TrendOf(s)); fires {
			t.Errorf("%s: %s", what, why)
		}
	}
	half := TrendOf(leak[:61])
	if left, ok := g.Reaches(half); !ok || left < 10*time.Minute || left > time.Hour {
		t.Errorf("reached in %v, %v: %+v", left, ok, half)
	}
}

// TestSimulation lets hours pass on hosts made at random, with a clock that is
// set forward and back, and daemons that forget nothing but are away for a
// while. The limits hold at every moment.
func TestSimulation(t *testing.T) {
	runs := 0
	for seed := range uint64(12) {
		runs += simulate(t, seed)
	}
	if runs < 200 {
		t.Errorf("only %d reboots in all", runs)
	}
}

func simulate(t *testing.T, seed uint64) (reboots int) {
	r := rand.New(rand.NewPCG(seed, 7))
	berlin := zone(t, "Europe/Berlin")
	in := Input{Now: time.Date(2026, 10, 24, 18, 0, 0, 0, time.UTC), Memory: map[Key]Memory{}, Started: map[string]time.Duration{},
		Running: map[ident.UUID]string{}, Limits: Limits{AtOnce: r.IntN(4), Stagger: time.Duration(r.IntN(4)) * time.Minute}}
	for i := range 1 + r.IntN(3) {
		rule := &Rule{Name: fmt.Sprint("rule", i), Match: Match{Domains: []string{"d*"}}, Location: berlin, MissedAfter: time.Duration(r.IntN(90)) * time.Minute,
			Distance: time.Duration(r.IntN(120)) * time.Minute, CatchUp: r.IntN(2) == 0, AtOnce: r.IntN(3), Stagger: time.Duration(r.IntN(10)) * time.Minute}
		if r.IntN(2) == 0 {
			rule.Every = time.Duration(30+r.IntN(300)) * time.Minute
		}
		if rule.Every == 0 || r.IntN(2) == 0 {
			rule.Cron = []Cron{cron(t, fmt.Sprintf("%d */%d * * *", r.IntN(60), 1+r.IntN(4)))}
		}
		if r.IntN(2) == 0 {
			rule.Windows = []Window{{From: TimeOfDay(r.IntN(1440)), To: TimeOfDay(1 + r.IntN(1440))}}
		}
		in.Rules = append(in.Rules, rule)
	}
	if r.IntN(2) == 0 {
		in.Groups = []Group{{Name: "g", Match: Match{Domains: []string{"d0", "d1", "d2"}}, Distance: time.Duration(r.IntN(20)) * time.Minute}}
	}
	const n = 6
	var ends [n]time.Duration // by a clock that does not jump, 0: it is up
	var booted [n]time.Duration
	for i := range n {
		booted[i] = -time.Duration(r.IntN(600)) * time.Minute
		in.Domains = append(in.Domains, up(fmt.Sprint("d", i), ident.UUID{byte(i + 1)}, 0))
	}
	lastStart := map[string]time.Duration{}
	ran := map[ident.UUID]map[string]map[time.Time]bool{}
	away := 0
	latest := in.Now
	for now := time.Duration(0); now < 20*time.Hour; now += 30 * time.Second {
		in.Now = in.Now.Add(30 * time.Second)
		if r.IntN(800) == 0 {
			in.Now = in.Now.Add(time.Duration(r.IntN(2*86400)-86400) * time.Second)
		}
		if in.Now.After(latest) {
			latest = in.Now
		}
		if latest.Sub(in.Now) > setBack { // a clock that was so wrong does not count
			clear(ran)
			latest = in.Now
		}
		if r.IntN(500) == 0 {
			away = r.IntN(300)
		}
		for i := range n {
			d := &in.Domains[i]
			if ends[i] != 0 && now >= ends[i] {
				ends[i], booted[i] = 0, now
				d.Busy = ""
				delete(in.Running, d.UUID)
			}
			d.Age = now - booted[i]
			if d.Busy == "" && r.IntN(3000) == 0 { // by itself
				d.Busy, ends[i] = "crashed", now+time.Minute
			}
		}
		if away > 0 {
			away--
			continue
		}
		before := maps.Clone(in.Memory)
		for rule, at := range lastStart {
			in.Started[rule] = now - at
		}
		for _, it := range Decide(in) {
			if it.Memory.Handled.After(in.Now) && !it.Memory.Handled.Equal(it.Memory.Begun) || it.Memory.Waiting.After(in.Now) {
				t.Fatalf("seed %d: remembers the future: %+v", seed, it)
			}
			in.Memory[Key{it.Rule.Name, it.UUID}] = it.Memory
			if !it.Start {
				if !it.Due.IsZero() && it.Blocked == "" {
					t.Fatalf("seed %d: due, not begun and not blocked: %+v", seed, it)
				}
				continue
			}
			reboots++
			i := slices.IndexFunc(in.Domains, func(d Domain) bool { return d.UUID == it.UUID })
			d := &in.Domains[i]
			busy, ofRule := 0, 0
			for _, o := range in.Domains {
				if o.Busy != "" {
					busy++
				}
				if in.Running[o.UUID] == it.Rule.Name {
					ofRule++
				}
			}
			inGroup := func(j int) bool { return len(in.Groups) > 0 && j <= 2 }
			for j, o := range in.Domains {
				if j != i && inGroup(i) && inGroup(j) && (o.Busy != "" || now-booted[j] < in.Groups[0].Distance) {
					t.Fatalf("seed %d: %s and %s of a group", seed, d.Name, o.Name)
				}
			}
			opens, _ := Open(it.Rule.Windows, in.Now, berlin)
			switch {
			case d.Busy != "":
				t.Fatalf("seed %d: %s is rebooted while %s", seed, d.Name, d.Busy)
			case in.Limits.AtOnce > 0 && busy >= in.Limits.AtOnce, it.Rule.AtOnce > 0 && ofRule >= it.Rule.AtOnce:
				t.Fatalf("seed %d: %d at once, %d of the rule", seed, busy+1, ofRule+1)
			case !opens.Equal(in.Now):
				t.Fatalf("seed %d: begun at %v, %v opens at %v", seed, in.Now, it.Rule.Windows, opens)
			case d.Age < it.Rule.Distance:
				t.Fatalf("seed %d: up for %v only", seed, d.Age)
			case tooEarly("", in.Limits.Stagger, lastStart, now), tooEarly(it.Rule.Name, it.Rule.Stagger, lastStart, now):
				t.Fatalf("seed %d: too early after the last: %v, %v", seed, lastStart, now)
			case it.Rule.Every == 0 && ran[it.UUID][it.Rule.Name][tickOf(it)]:
				t.Fatalf("seed %d: the same run twice: %+v", seed, it)
			case it.Rule.Every == 0 && !before[Key{it.Rule.Name, it.UUID}].Handled.Before(in.Now):
				t.Fatalf("seed %d: handled before: %+v", seed, it)
			}
			if ran[it.UUID] == nil {
				ran[it.UUID] = map[string]map[time.Time]bool{}
			}
			if ran[it.UUID][it.Rule.Name] == nil {
				ran[it.UUID][it.Rule.Name] = map[time.Time]bool{}
			}
			ran[it.UUID][it.Rule.Name][tickOf(it)] = true
			lastStart[""], lastStart[it.Rule.Name] = now, now
			d.Busy, ends[i] = "schedule "+it.Rule.Name, now+time.Duration(30+r.IntN(300))*time.Second
			in.Running[d.UUID] = it.Rule.Name
		}
	}
	return reboots
}

// tickOf is the time of cron that a run is of, were nothing else due.
func tickOf(it Item) time.Time { return it.Due }

func tooEarly(rule string, gap time.Duration, last map[string]time.Duration, now time.Duration) bool {
	at, ok := last[rule]
	return ok && now-at < gap
}

// TestNoHarmFromClock: whatever the clock does, a domain is rebooted no more
// often than once in its least distance, counted by a clock that is right.
func TestNoHarmFromClock(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	for range 50 {
		rule := weekly(t)
		rule.Cron, rule.CatchUp, rule.Every = []Cron{cron(t, "*/5 * * * *")}, r.IntN(2) == 0, 2*time.Hour
		in := Input{Now: noon, Rules: []*Rule{rule}, Domains: []Domain{up("web-a", webA, 0)}, Memory: map[Key]Memory{}}
		booted, last, reboots := time.Duration(0), time.Duration(0), 0
		for now := time.Duration(0); now < 12*time.Hour; now += time.Minute {
			in.Now = in.Now.Add(time.Minute)
			if r.IntN(30) == 0 {
				in.Now = noon.Add(time.Duration(r.IntN(4*365*86400)-2*365*86400) * time.Second)
			}
			in.Domains[0].Age = now - booted
			it := one(t, in)
			in.Memory[Key{"weekly", webA}] = it.Memory
			if it.Start {
				if reboots > 0 && now-last < rule.Distance {
					t.Fatalf("twice within %v", now-last)
				}
				reboots++
				last, booted = now, now
			}
		}
		if reboots < 3 || reboots > 12 {
			t.Errorf("%d reboots in twelve hours", reboots)
		}
	}
}

// TestNeverRuns: what is written is right or wrong on every day alike, and
// the answer is that of a walk through the windows.
func TestNeverRuns(t *testing.T) {
	sunday := []Window{{Days: []time.Weekday{time.Sunday}, From: 180, To: 240}}
	for name, c := range map[string]struct {
		cron    string
		windows []Window
		missed  time.Duration
		zone    string
		never   bool
	}{
		"every five minutes, Sunday":  {"*/5 * * * *", sunday, time.Hour, "UTC", false},
		"every minute, Sunday":        {"* * * * *", sunday, time.Hour, "UTC", false},
		"at noon, Sunday at night":    {"0 12 * * *", sunday, time.Hour, "UTC", true},
		"an hour before":              {"0 2 * * *", sunday, time.Hour, "UTC", false},
		"an hour and a minute before": {"59 1 * * *", sunday, time.Hour, "UTC", true},
		"29 February, Sunday":         {"30 3 29 2 *", sunday, time.Hour, "UTC", false},
		"New Year, Sunday":            {"30 3 1 1 *", sunday, time.Hour, "UTC", false},
		"29 February, at noon":        {"0 12 29 2 *", sunday, time.Hour, "UTC", true},
		"minutes of 29 February":      {"* * 29 2 *", sunday, time.Minute, "UTC", false},
		// Fits on the day on which summer time begins only.
		"when the clock is set": {"30 2 * * *", []Window{{From: 180, To: 185}}, time.Minute, "Europe/Berlin", false},
	} {
		r := &Rule{Windows: c.windows, MissedAfter: c.missed, Location: zone(t, c.zone)}
		if got := r.NeverRuns(cron(t, c.cron)); got != c.never {
			t.Errorf("%s: %v", name, got)
		}
		starts := 40
		if c.never { // which takes the whole search
			starts = 3
		}
		for i := range starts { // nor does the search depend on where it begins
			from := noon.Add(time.Duration(i)*11*day + time.Duration(i)*time.Hour)
			if _, _, ok := r.firstRun(cron(t, c.cron), from, from); ok == c.never {
				t.Fatalf("%s: from %v: %v", name, from, ok)
			}
		}
	}
}

// TestFirstRunAgainstTicks: jumping to windows finds what going from one time to
// the next does.
func TestFirstRunAgainstTicks(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 1))
	for range 300 {
		rule := &Rule{Location: zone(t, "Europe/Berlin"), MissedAfter: time.Duration(r.IntN(180)) * time.Minute}
		for range 1 + r.IntN(3) {
			rule.Windows = append(rule.Windows, Window{Days: []time.Weekday{time.Weekday(r.IntN(7)), time.Weekday(r.IntN(7))},
				From: TimeOfDay(r.IntN(1440)), To: TimeOfDay(1 + r.IntN(1440))})
		}
		c := cron(t, fmt.Sprintf("%d */%d * * *", r.IntN(60), 1+r.IntN(12)))
		after := noon.Add(time.Duration(r.IntN(400*86400)) * time.Second)
		earliest := after.Add(time.Duration(r.IntN(5*86400)-86400) * time.Second)
		run, start, ok := rule.firstRun(c, after, earliest)
		limit := after.Add(40 * day)
		for tick := after; ; {
			tick, _ = c.Next(tick, rule.Location)
			if tick.After(limit) {
				if ok && !run.After(limit) {
					t.Fatalf("%s %v: found %v, which is none", c, rule.Windows, run)
				}
				break
			}
			begins := tick
			if earliest.After(begins) {
				begins = earliest
			}
			begins, _ = Open(rule.Windows, begins, rule.Location)
			if begins.Sub(tick) <= rule.MissedAfter {
				if !ok || !run.Equal(tick) || !start.Equal(begins) {
					t.Fatalf("%s %v after %v, from %v: %v %v %v, want %v %v", c, rule.Windows, after, earliest, run, start, ok, tick, begins)
				}
				break
			}
		}
	}
}

// BenchmarkForecast: what a scrape of /metrics costs.
func BenchmarkForecast(b *testing.B) {
	c, err := ParseCron("*/5 * * * *")
	if err != nil {
		b.Fatal(err)
	}
	in := Input{Now: noon.Add(2 * day), Forecast: true, Memory: map[Key]Memory{}}
	for i := range 5 {
		in.Rules = append(in.Rules, &Rule{Name: fmt.Sprint(i), Match: Match{Domains: []string{"*"}}, Cron: []Cron{c}, Location: time.UTC,
			MissedAfter: time.Hour, Windows: []Window{{Days: []time.Weekday{0, 6}, From: 0, To: 1440}}})
	}
	for i := range 50 {
		in.Domains = append(in.Domains, up(fmt.Sprint("d", i), ident.UUID{byte(i + 1)}, day))
	}
	for b.Loop() {
		Decide(in)
	}
}

// host is a host with one domain and one rule, whose clock is set by hand while the
// uptime goes on.
type host struct {
	t      *testing.T
	in     Input
	clock  Clock
	up     time.Duration
	booted time.Duration
	starts []time.Time // by the clock
	ups    []time.Duration
	// skipped are those that were said to be left out.
	skipped []time.Time
}

func newHost(t *testing.T, r *Rule, now time.Time) *host {
	return &host{t: t, up: 100 * day, booted: 90 * day, in: Input{Now: now, Rules: []*Rule{r}, Memory: map[Key]Memory{}, Started: map[string]time.Duration{}}}
}

// look is what the scheduler does every few seconds.
func (h *host) look() {
	h.in.Unsteady = h.clock.See(h.in.Now, h.up)
	h.in.Domains = []Domain{up("web-a", webA, h.up-h.booted)}
	it := one(h.t, h.in)
	h.in.Memory[Key{it.Rule.Name, webA}] = it.Memory
	if !it.Skipped.IsZero() {
		h.skipped = append(h.skipped, it.Skipped)
	}
	if it.Start {
		h.starts, h.ups = append(h.starts, h.in.Now), append(h.ups, h.up)
		h.booted = h.up
	}
}

// pass looks every few seconds for some minutes, and then less often, so that the
// test does not take as long.
func (h *host) pass(d time.Duration) {
	for begun, end := h.up, h.up+d; h.up < end; {
		step := 5 * time.Second
		if h.up-begun >= 3*time.Minute {
			step = min(3*time.Minute, end-h.up)
		}
		h.in.Now, h.up = h.in.Now.Add(step), h.up+step
		h.look()
	}
}

func (h *host) set(by time.Duration) { h.in.Now = h.in.Now.Add(by) }

// TestSetBackPastRun: a run that was begun is not begun a second time because the
// clock shows its time a second time.
func TestSetBackPastRun(t *testing.T) {
	for _, by := range []time.Duration{time.Second, 10 * time.Second, 5 * time.Minute, 30 * time.Minute, 90 * time.Minute, 23 * time.Hour} {
		for _, after := range []time.Duration{0, 20 * time.Minute} {
			for _, catchUp := range []bool{false, true} {
				for _, distance := range []time.Duration{time.Hour, 0} {
					r := weekly(t)
					r.Cron, r.CatchUp, r.Distance = []Cron{cron(t, "0 13 * * *")}, catchUp, distance
					if distance == 0 {
						r.MissedAfter = 2 * time.Hour
					}
					h := newHost(t, r, noon.Add(55*time.Minute))
					h.pass(5*time.Minute + after)
					if len(h.starts) != 1 {
						t.Fatalf("%d reboots before the clock is set", len(h.starts))
					}
					h.set(-by)
					h.pass(by + 4*time.Hour)
					if len(h.starts) != 1 {
						t.Errorf("set back by %v %v after, catch up %v, distance %v: rebooted at %v", by, after, catchUp, distance, h.starts)
					}
					h.pass(20 * time.Hour)
					if len(h.starts) != 2 {
						t.Errorf("set back by %v %v after: the day after: %v", by, after, h.starts)
					}
				}
			}
		}
	}
}

// TestWrongForAMinute: what a clock shows for a minute has nothing rebooted, nothing
// missed, and nothing that waits for it.
func TestWrongForAMinute(t *testing.T) {
	for _, by := range []time.Duration{40 * time.Minute, 90 * time.Minute, day, 365 * day, -20 * time.Minute, -day, -60 * 365 * day} {
		for what, change := range map[string]func(*Rule){
			"skip":   func(*Rule) {},
			"run":    func(r *Rule) { r.CatchUp = true },
			"window": func(r *Rule) { r.Windows = []Window{{From: 13 * 60, To: 14 * 60}} },
			// Due all the time, but outside its window.
			"every": func(r *Rule) {
				r.Cron, r.Every, r.Windows = nil, 5*day, []Window{{From: 13 * 60, To: 13*60 + 5}}
			},
		} {
			r := weekly(t)
			r.Cron = []Cron{cron(t, "0 13 * * *")}
			change(r)
			h := newHost(t, r, noon.Add(-2*time.Hour)) // what is written counts after an hour
			h.pass(2*time.Hour + 25*time.Minute)
			h.set(by)
			h.pass(time.Minute)
			h.set(-by)
			h.pass(30 * time.Minute)
			if len(h.starts) != 0 {
				t.Errorf("%s, by %v: rebooted at %v", what, by, h.starts)
			}
			h.pass(5 * time.Minute) // until 13:01
			if len(h.starts) != 1 || h.starts[0].Sub(noon.Add(time.Hour)).Abs() > time.Minute {
				t.Errorf("%s, by %v: rebooted at %v, want 13:00", what, by, h.starts)
			}
		}
	}
}

// TestClockSetRight: one that is right from now on is trusted soon, and runs in
// between are missed, or are caught up with.
func TestClockSetRight(t *testing.T) {
	r := weekly(t)
	r.Cron = []Cron{cron(t, "0 13 * * *")}
	h := newHost(t, r, noon)
	h.pass(time.Minute)
	h.set(65 * time.Minute)
	h.pass(Steady + 5*time.Second)
	if len(h.starts) != 1 { // a little late
		t.Errorf("%v", h.starts)
	}
	h = newHost(t, r, noon)
	h.pass(time.Minute)
	h.set(365*day + 3*time.Hour)
	h.pass(time.Hour)
	h.set(-365 * day) // nothing waits for that
	h.pass(22 * time.Hour)
	if len(h.starts) != 1 {
		t.Errorf("%v", h.starts)
	}
	h.pass(day)
	if len(h.starts) != 2 {
		t.Errorf("%v", h.starts)
	}
}

// TestEdited: a file that is saved has nothing rebooted; what was written counts
// from then on.
func TestEdited(t *testing.T) {
	wednesday := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for what, c := range map[string]struct {
		was, is func(*Rule)
		next    time.Time
	}{
		"another time":            {func(*Rule) {}, func(r *Rule) { r.Cron[0] = cron(t, "30 11 * * *") }, wednesday.Add(23*time.Hour + 30*time.Minute)},
		"another time, caught up": {func(r *Rule) { r.CatchUp = true }, func(r *Rule) { r.CatchUp, r.Cron[0] = true, cron(t, "0 2 * * *") }, wednesday.Add(14 * time.Hour)},
		"to be caught up": {func(r *Rule) { r.Cron[0], r.MissedAfter = cron(t, "0 2 * * *"), time.Minute }, func(r *Rule) {
			r.Cron[0], r.CatchUp = cron(t, "0 2 * * *"), true
		}, wednesday.Add(14 * time.Hour)},
		"another zone":     {func(r *Rule) { r.Cron[0] = cron(t, "40 11 * * *") }, func(r *Rule) { r.Cron[0], r.Location = cron(t, "40 12 * * *"), zone(t, "Europe/Berlin") }, wednesday.Add(23*time.Hour + 40*time.Minute)},
		"cron, was every":  {func(r *Rule) { r.Cron, r.Every = nil, 300*day }, func(r *Rule) { r.Cron[0], r.CatchUp = cron(t, "0 2 * * *"), true }, wednesday.Add(14 * time.Hour)},
		"every, was cron":  {func(*Rule) {}, func(r *Rule) { r.Cron, r.Every = nil, 5*day }, wednesday.Add(time.Hour)},
		"every more often": {func(r *Rule) { r.Cron, r.Every = nil, 300*day }, func(r *Rule) { r.Cron, r.Every = nil, 5*day }, wednesday.Add(time.Hour)},
	} {
		make := func(change func(*Rule)) *Rule {
			r := weekly(t)
			r.Cron = []Cron{cron(t, "0 3 * * 0")}
			change(r)
			return r
		}
		h := newHost(t, make(c.was), wednesday.Add(-26*time.Hour))
		h.pass(26*time.Hour - 5*time.Second)
		before := len(h.starts)
		h.booted = 90 * day
		h.in.Rules = []*Rule{make(c.is)}
		h.look()
		for _, step := range []time.Duration{5 * time.Second, 30 * time.Minute} {
			h.pass(step)
			if len(h.starts) != before {
				t.Errorf("%s: rebooted at %v", what, h.starts)
			}
		}
		h.pass(c.next.Sub(h.in.Now) - time.Minute)
		if len(h.starts) != before {
			t.Errorf("%s: rebooted at %v", what, h.starts[before:])
		}
		h.pass(2 * time.Minute)
		if len(h.starts) != before+1 {
			t.Errorf("%s: not rebooted at %v: %+v", what, c.next, h.starts)
		}
	}
	// Nothing was changed that makes it due.
	r := weekly(t)
	h := newHost(t, r, noon.Add(-time.Hour))
	h.pass(59 * time.Minute)
	again := *r
	again.Order, again.Retry = 7, 2*time.Hour
	h.in.Rules = []*Rule{&again}
	h.pass(2 * time.Minute)
	if len(h.starts) != 1 {
		t.Errorf("another order: %v", h.starts)
	}
}

// TestBootedSinceUpdate: a boot is none of the updates that were to be: they come, or are
// said to be left out.
func TestBootedSinceUpdate(t *testing.T) {
	three := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		catchUp bool
		away    time.Duration // nobody looked
		begins  bool
	}{{false, 70 * time.Minute, true}, {false, 30 * time.Hour, false}, {true, 30 * time.Hour, true}} {
		r := weekly(t)
		r.Cron, r.CatchUp, r.Distance, r.Updates = []Cron{cron(t, "0 3 * * 0")}, c.catchUp, time.Minute, true
		h := newHost(t, r, three.Add(-time.Hour))
		h.pass(time.Minute)
		h.set(c.away)
		h.up += c.away
		h.booted = h.up - time.Minute
		h.pass(30 * time.Minute)
		if (len(h.starts) == 1) != c.begins || len(h.starts) > 1 {
			t.Errorf("%+v: begun at %v", c, h.starts)
		}
		if skipped := slices.Equal(h.skipped, []time.Time{three}); skipped == c.begins || c.begins && len(h.skipped) > 0 {
			t.Errorf("%+v: left out %v", c, h.skipped)
		}
	}
}

// TestBootedSince: a boot is as good as the run that it came after.
func TestBootedSince(t *testing.T) {
	sunday := time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)
	for _, catchUp := range []bool{true, false} {
		r := weekly(t)
		r.Cron, r.CatchUp, r.Distance = []Cron{cron(t, "0 3 * * 0")}, catchUp, time.Minute
		h := newHost(t, r, sunday)
		h.pass(time.Minute)
		for _, off := range []time.Duration{29*time.Hour + 58*time.Minute, 70 * time.Minute} { // the host; the daemon alone
			h.set(off)
			h.up += off
			h.booted = h.up - time.Minute
			h.pass(3 * time.Hour)
			if len(h.starts) != 0 {
				t.Errorf("catch up %v: %v", catchUp, h.starts)
			}
			h.in.Forecast = true
			h.in.Domains = []Domain{up("web-a", webA, h.up-h.booted)}
			if it := one(t, h.in); !it.Next.Equal(time.Date(2026, 11, 29, 3, 0, 0, 0, time.UTC)) {
				t.Errorf("next: %v", it.Next)
			}
			h.in.Forecast = false
		}
	}
}

func TestClock(t *testing.T) {
	var c Clock
	if got := c.See(noon, 30*time.Second); got != Steady-30*time.Second {
		t.Errorf("just booted: %v", got)
	}
	if got := c.See(noon.Add(10*time.Minute), 10*time.Minute+30*time.Second); got != 0 {
		t.Errorf("after ten minutes: %v", got)
	}
	// A second off by the slewing of a clock is none, an hour without a look neither.
	if got := c.See(noon.Add(70*time.Minute+5*time.Second), 70*time.Minute+30*time.Second); got != 0 {
		t.Errorf("slewed: %v", got)
	}
	if got := c.See(noon.Add(70*time.Minute), 70*time.Minute+35*time.Second); got != Steady {
		t.Errorf("set back: %v", got)
	}
	if got := c.See(noon.Add(71*time.Minute), 71*time.Minute+35*time.Second); got != Steady-time.Minute {
		t.Errorf("a minute after: %v", got)
	}
	if got := c.See(time.Unix(0, 0), 100*time.Hour); got != Steady {
		t.Errorf("1970: %v", got)
	}
	if got := c.See(time.Unix(3600, 0), 101*time.Hour); got != Steady {
		t.Errorf("1970, an hour later: %v", got)
	}
}

// TestMonotonic: no time that is compared with another carries the monotonic reading
// that time.Now adds, by which Go compares if both have it: a clock that was set would
// not be seen, and what was begun before that be begun again.
func TestMonotonic(t *testing.T) {
	shown := func(what string, at time.Time) {
		t.Helper()
		if at.IsZero() || at != at.Round(0) {
			t.Errorf("%s: %v", what, at)
		}
	}
	now := time.Now()
	if now == now.Round(0) {
		t.Fatal("this system has no monotonic clock")
	}
	var c Clock
	c.See(now, 0)
	shown("the clock's", c.wall)
	r := weekly(t)
	r.Cron, r.Every = []Cron{cron(t, "* * * * *")}, 2*time.Hour
	key := Key{r.Name, webA}
	in := Input{Now: now, Rules: []*Rule{r}, Domains: []Domain{up("web-a", webA, 3*time.Hour)}}
	first := Decide(in)[0] // everything is new
	in.Memory = map[Key]Memory{key: first.Memory}
	in.Now = now.Add(2 * time.Hour)
	it := Decide(in)[0]
	if !it.Start {
		t.Fatalf("%+v", it)
	}
	for what, at := range map[string]time.Time{"handled, at first": first.Memory.Handled, "read": first.Memory.Read, "handled": it.Memory.Handled, "begun": it.Memory.Begun, "due": it.Due, "next": it.Next} {
		shown(what, at)
	}
}

func TestTimeOfDay(t *testing.T) {
	for s, want := range map[string]TimeOfDay{"00:00": 0, "02:05": 125, "23:59": 1439, "24:00": 1440} {
		if got, err := ParseTimeOfDay(s); got != want || err != nil || got.String() != s {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, bad := range []string{"", "1:00p", "9:0pm", "02:5x", "02:0O", "2:030", "10:+5", "+1:00", "24:01", "25:00", "12:60", " 2:00", "02:0 ", "٠٢:٠٠", "2:00"} {
		if got, err := ParseTimeOfDay(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
