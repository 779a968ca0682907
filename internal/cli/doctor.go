package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/hypervisor"
	"github.com/warmreboot/warmreboot/internal/version"
	"github.com/warmreboot/warmreboot/xenctl"
)

// severity is a state as Nagios plugins have them, and their exit code. As an
// error it ends the program with that code.
type severity int

const (
	sevOK severity = iota
	sevWarning
	sevCritical
	sevUnknown
)

var severityNames = [...]string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}

func (s severity) String() string               { return severityNames[s] }
func (s severity) Error() string                { return s.String() }
func (s severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// rank orders by how bad it is: what is known to be wrong comes first.
func (s severity) rank() int {
	return [...]int{sevOK: 0, sevUnknown: 1, sevWarning: 2, sevCritical: 3}[s]
}

// finding is the result of one check.
type finding struct {
	Check    string   `json:"check"`
	Domain   string   `json:"domain,omitempty"`
	Severity severity `json:"severity"`
	Message  string   `json:"message"`
	Next     string   `json:"next,omitempty"` // what to do about it

	decides bool // it is the answer, whatever else is wrong
}

func (f finding) String() string {
	what := ident.Printable(f.Check)
	if f.Domain != "" {
		what += " " + ident.Printable(f.Domain)
	}
	text := fmt.Sprintf("%-8s %s: %s", f.Severity, what, ident.Printable(f.Message))
	if f.Next != "" {
		text += "; next: " + ident.Printable(f.Next)
	}
	return text
}

// diagnosis is all that doctor has found.
type diagnosis struct {
	Severity severity  `json:"severity"`
	Summary  string    `json:"summary"`
	Findings []finding `json:"findings"`
}

func (d *diagnosis) add(check, domain string, s severity, next, format string, args ...any) {
	d.Findings = append(d.Findings, finding{Check: check, Domain: domain, Severity: s, Message: fmt.Sprintf(format, args...), Next: next})
}

// sum is the worst of all, with the first of it in words.
func (d *diagnosis) sum() {
	rank := func(f finding) int {
		if f.decides {
			return math.MaxInt
		}
		return f.Severity.rank()
	}
	worst := slices.MaxFunc(d.Findings, func(a, b finding) int { return cmp.Compare(rank(a), rank(b)) })
	d.Severity = worst.Severity
	bad := 0
	for _, f := range d.Findings {
		if f.Severity != sevOK {
			bad++
		}
	}
	switch bad {
	case 0:
		d.Summary = fmt.Sprintf("%d checks", len(d.Findings))
	case 1:
		d.Summary = worst.Check + ": " + worst.Message
	default:
		d.Summary = fmt.Sprintf("%s: %s (and %d more)", worst.Check, worst.Message, bad-1)
	}
	if worst.Domain != "" {
		d.Summary = worst.Domain + ": " + d.Summary
	}
}

func (e *env) doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", ArgsUsage: "[DOMAIN]", Usage: "find what is wrong on this host, or with a domain; a Nagios plugin",
		Description: "A line for each check, with the next step. Exit codes: 0 ok, 1 warning, 2 critical,\n" +
			"3 unknown. It changes nothing. Run it as root.",
		Action: func(c *cli.Context) error {
			p, err := parse(c, 0, 1)
			if err != nil {
				return err
			}
			only := ""
			if len(p.args) > 0 {
				only = p.args[0]
			}
			d := e.diagnose(c.Context, p.string("socket"), only)
			if err := c.Context.Err(); err != nil {
				return err
			}
			if p.json {
				if err := e.printJSON(d); err != nil {
					return err
				}
			} else {
				fmt.Fprintf(e.stdout, "WARMREBOOT %s - %s\n", d.Severity, ident.Printable(d.Summary))
				for _, f := range d.Findings {
					fmt.Fprintln(e.stdout, f)
				}
			}
			if d.Severity == sevOK {
				return nil
			}
			return d.Severity
		},
	}
}

// diagnose makes all checks that can be made.
func (e *env) diagnose(ctx context.Context, socket, only string) *diagnosis {
	d := &diagnosis{}
	defer d.sum()
	l, err := e.local()
	switch {
	case errors.Is(err, xenctl.ErrNotXen):
		d.add("xen", "", sevCritical, "boot this host with Xen, or load the module xen-privcmd", "%v", err)
		return d
	case errors.Is(err, fs.ErrPermission):
		d.add("xen", "", sevUnknown, "run it as root", "%v", err)
		return d
	case err != nil:
		d.add("xen", "", sevUnknown, "is xenstored running?", "%v", err)
		return d
	}
	defer l.close()
	d.checkXen(l)
	agent := e.checkAgent(ctx, d, socket)
	d.checkClock(l, e, ctx, socket, agent)
	infos, err := l.xen.Domains()
	if err != nil {
		d.add("domains", "", sevUnknown, "does xl list work?", "Xen's domains cannot be listed: %v", err)
		return d
	}
	if hypervisor.PVHDom0(infos) {
		d.add("xen", "", sevCritical, "boot Xen without dom0=pvh", "dom0 is a PVH domain, and Xen tells only a PV dom0 which pages are kept: every reboot is a cold one")
	}
	d.checkMemory(l, infos)
	all, err := e.domainsFor(ctx, l, socket, agent)
	if err != nil {
		d.add("domains", "", sevUnknown, "does xl list work?", "the domains cannot be listed: %v", err)
		return d
	}
	d.checkDomains(ctx, l, all, infos, only)
	d.checkLoaders(ctx, l, e.operations(socket), agent, all, only)
	if agent {
		d.checkSchedules(ctx, e.runs(socket), all, only)
	}
	return d
}

// domainsFor returns the domains as the agent knows them, or else as Xen does.
func (e *env) domainsFor(ctx context.Context, l local, socket string, agent bool) ([]api.DomainStatus, error) {
	if agent {
		return e.service(socket).List(ctx)
	}
	all, _, err := l.domains(ctx)
	return all, err
}

// checkXen looks for the patches.
func (d *diagnosis) checkXen(l local) {
	switch feature, err := l.xen.ProbeWarmcache(); {
	case errors.Is(err, xenctl.ErrVersion):
		d.add("xen", "", sevCritical, "install a Xen and a warmreboot that belong together", "this Xen has another version of the warm cache than warmreboot %s", version.String())
	case feature == xenctl.Yes:
		d.add("xen", "", sevOK, "", "this Xen has the warm cache")
	case feature == xenctl.No:
		d.add("xen", "", sevCritical, "boot a Xen with the patches, built with CONFIG_WARMCACHE", "this Xen has no warm cache: every reboot is a cold one")
	default:
		d.add("xen", "", sevUnknown, "run it as root, in dom0", "it cannot be told whether this Xen has the warm cache: %v", err)
	}
}

// checkAgent reports whether the agent answers.
func (e *env) checkAgent(ctx context.Context, d *diagnosis, socket string) bool {
	h, err := e.host(ctx, socket)
	var a *api.Error
	switch {
	case err == nil && h.Version == version.String():
		d.add("agent", "", sevOK, "", "warmrebootd %s answers", h.Version)
	case err == nil:
		d.add("agent", "", sevWarning, "systemctl restart warmrebootd", "warmrebootd is of version %s, warmreboot of %s", h.Version, version.String())
	case errors.As(err, &a) && a.Code == api.VersionSkew:
		d.add("agent", "", sevCritical, "systemctl restart warmrebootd", "%v", err)
	case isAgentDown(err):
		d.add("agent", "", sevCritical, "systemctl start warmrebootd; without it every reboot is a cold one", "%v", err)
		return false
	default:
		d.add("agent", "", sevUnknown, "journalctl -u warmrebootd", "%v", err)
		return false
	}
	return err == nil
}
