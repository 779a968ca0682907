package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // dom0 may have none

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/schedule"
)

// The types of the values in a file. Each checks itself, so that the decoder
// can say where a wrong one is. All are structs: what has the form of a string or
// a number would be set past UnmarshalText.
type (
	duration struct{ v time.Duration }
	cronText struct{ schedule.Cron }
	zoneText struct{ loc *time.Location }
	hourText struct{ v schedule.TimeOfDay }
	dayText  struct{ v time.Weekday }
	regText  struct{ *regexp.Regexp }
	pattern  struct{ s string }
	nameText struct{ s string }
	urlText  struct{ s string }
	addrText struct{ s string }
	pathText struct{ s string }
	vbdText  struct{ v ident.VBD }
	modeText struct{ s string }
	missText struct{ s string }
	coldText struct{ s string }
	hookText struct{ s string }
	action   struct{ s string }
)

func (d *duration) UnmarshalText(b []byte) (err error) {
	d.v, err = schedule.ParseDuration(string(b))
	return err
}

func (c *cronText) UnmarshalText(b []byte) (err error) {
	c.Cron, err = schedule.ParseCron(string(b))
	return err
}

func (z *zoneText) UnmarshalText(b []byte) (err error) {
	if s := string(b); s == "local" {
		z.loc = localZone()
	} else if s == "Local" { // which is Go's name of the zone at the program's start
		return errors.New("write the host's time zone as local, in small letters")
	} else if z.loc, err = time.LoadLocation(s); err != nil || s == "" {
		return fmt.Errorf("there is no time zone %q; write one as Europe/Berlin, UTC, or local", s)
	}
	return nil
}

// localtime says which time zone the host has.
const localtime = "/etc/localtime"

// localZone reads the host's time zone now: the program's own idea of it is
// that of its start.
func localZone() *time.Location {
	if _, ok := os.LookupEnv("TZ"); ok {
		return time.Local
	}
	raw, err := os.ReadFile(localtime)
	if err != nil {
		return time.Local
	}
	name := "local"
	if to, err := os.Readlink(localtime); err == nil {
		if _, n, ok := strings.Cut(to, "zoneinfo/"); ok {
			name = n
		}
	}
	loc, err := time.LoadLocationFromTZData(name, raw)
	if err != nil {
		return time.Local
	}
	return loc
}

// ZoneStamp changes when the host's time zone does.
func ZoneStamp() string {
	to, _ := os.Readlink(localtime)
	st, err := os.Stat(localtime)
	if err != nil {
		return to
	}
	return fmt.Sprint(to, st.ModTime(), st.Size())
}

func (h *hourText) UnmarshalText(b []byte) (err error) {
	h.v, err = schedule.ParseTimeOfDay(string(b))
	return err
}

func (d *dayText) UnmarshalText(b []byte) (err error) {
	d.v, err = schedule.ParseWeekday(string(b))
	return err
}

func (p *pattern) UnmarshalText(b []byte) error {
	if _, err := path.Match(string(b), ""); err != nil || len(b) == 0 {
		return fmt.Errorf("%q is no name, UUID or pattern", b)
	}
	if inner, ok := strings.CutPrefix(string(b), "{"); ok {
		if _, err := ident.ParseUUID(strings.TrimSuffix(inner, "}")); err == nil {
			return fmt.Errorf("write the UUID %s without braces", b)
		}
	}
	p.s = string(b)
	return nil
}

var names = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

func (n *nameText) UnmarshalText(b []byte) error {
	if !names.Match(b) {
		return fmt.Errorf("name %q must be of letters, digits, -, _ and dots", b)
	}
	n.s = string(b)
	return nil
}

func (u *urlText) UnmarshalText(b []byte) error {
	v, err := url.Parse(Expand(string(b), "domain", "uuid"))
	if err != nil || v.Scheme != "http" && v.Scheme != "https" || v.Host == "" {
		return fmt.Errorf("%q is no URL of http or https", b)
	}
	u.s = string(b)
	return nil
}

// Expand puts a domain's name and UUID into an argument, URL or address.
func Expand(s, domain, uuid string) string {
	return strings.NewReplacer("{domain}", domain, "{uuid}", uuid).Replace(s)
}

func (a *addrText) UnmarshalText(b []byte) error {
	if host, port, err := net.SplitHostPort(string(b)); err != nil || host == "" || port == "" {
		return fmt.Errorf("%q is no address like 10.0.0.5:22", b)
	}
	a.s = string(b)
	return nil
}

func (p *pathText) UnmarshalText(b []byte) error {
	p.s = string(b)
	return NodePath(p.s)
}

// NodePath returns an error if a path of xenstore does not lead below that of a domain.
func NodePath(s string) error {
	if s == "" || path.Clean(s) != s || s[0] == '/' || strings.HasPrefix(s, "..") {
		return fmt.Errorf("%q is no path below the domain's, like data/meminfo_free", s)
	}
	return nil
}

func (v *vbdText) UnmarshalText(b []byte) (err error) {
	v.v, err = ident.ParseVBD(string(b))
	return err
}

func (r *regText) UnmarshalText(b []byte) (err error) {
	r.Regexp, err = regexp.Compile(string(b))
	return err
}

// oneOf sets one of several words.
func oneOf(to *string, b []byte, words ...string) error {
	if !slices.Contains(words, string(b)) {
		return fmt.Errorf("%q must be one of %s", b, strings.Join(words, ", "))
	}
	*to = string(b)
	return nil
}

func (m *modeText) UnmarshalText(b []byte) error { return oneOf(&m.s, b, "graceful", "force", "cold") }
func (m *missText) UnmarshalText(b []byte) error { return oneOf(&m.s, b, "skip", "run") }
func (c *coldText) UnmarshalText(b []byte) error { return oneOf(&c.s, b, "skip", "reboot") }
func (h *hookText) UnmarshalText(b []byte) error { return oneOf(&h.s, b, "abort", "continue") }
func (a *action) UnmarshalText(b []byte) error {
	return oneOf(&a.s, b, string(Alert), string(ColdReboot), string(Stop))
}
