package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/disk"
	"github.com/warmreboot/warmreboot/xenctl"
)

// clockError is the state of a clock that nothing keeps right (adjtimex(2)).
const clockError = 5

// clockSynced asks the kernel whether something keeps its clock right.
func clockSynced() (bool, error) {
	var t syscall.Timex
	state, err := syscall.Adjtimex(&t)
	return state != clockError, err
}

// clockSlack is how far a record may lie in the future without the clock having
// been set back.
const clockSlack = time.Minute

// checkClock looks at what schedules and times to live go by.
func (d *diagnosis) checkClock(l local, e *env, ctx context.Context, socket string, agent bool) {
	synced, err := l.synced()
	switch {
	case err != nil:
		d.add("clock", "", sevUnknown, "timedatectl", "whether the clock is kept right cannot be told: %v", err)
	case !synced:
		d.add("clock", "", sevWarning, "install chrony or systemd-timesyncd; timedatectl shows it", "nothing keeps the clock right: schedules and windows go by it")
	default:
		d.add("clock", "", sevOK, "", "the clock is synchronised")
	}
	if !agent {
		return
	}
	last, err := api.All(e.history(socket).History(ctx, api.HistoryQuery{Limit: 1}))
	if err != nil || len(last) == 0 {
		return
	}
	if ahead := time.Until(last[0].At); ahead > clockSlack {
		d.add("clock", "", sevWarning, "set the clock right; timedatectl shows it", "the last reboot is recorded %v in the future: the clock was set back", ahead.Round(time.Second))
	}
}

// checkMemory looks whether domains could ask for more than there is. Xen then
// gives up what it has preserved of one that reboots.
func (d *diagnosis) checkMemory(l local, infos []xenctl.DomainInfo) {
	m, err := l.memory()
	if err != nil {
		d.add("memory", "", sevUnknown, "xl info", "%v", err)
		return
	}
	var may uint64
	for _, i := range infos {
		if i.Dying {
			continue
		}
		if i.Domid == 0 { // its limit is often none at all
			may += i.Pages
		} else {
			may += max(i.MaxPages, i.Pages)
		}
	}
	if may > m.Total {
		d.add("memory", "", sevWarning, "lower maxmem of guests, or fix dom0_mem: Xen gives preserved pages up when another domain needs the memory",
			"overcommitted: the domains may take %d MiB, the machine has %d MiB", may/256, m.Total/256)
		return
	}
	d.add("memory", "", sevOK, "", "the domains may take %d of %d MiB, %d MiB are free", may/256, m.Total/256, m.Free/256)
}

// checkDomains looks at each domain that is managed, or at the one that is named.
func (d *diagnosis) checkDomains(ctx context.Context, l local, all []api.DomainStatus, infos []xenctl.DomainInfo, only string) {
	found, ref := false, ident.ParseRef(only)
	for _, s := range all {
		if only != "" && !ref.Matches(s.Domain, s.UUID, s.Domid) {
			continue
		}
		if only == "" && !s.Managed && !s.Enabled {
			continue
		}
		found = true
		hvm := slices.ContainsFunc(infos, func(i xenctl.DomainInfo) bool { return i.Domid == s.Domid && i.HVM })
		d.checkDomain(ctx, l, s, hvm)
	}
	switch {
	case found:
	case only != "":
		d.add("domain", only, sevUnknown, "xl list", "there is no such domain")
		d.Findings[len(d.Findings)-1].decides = true // nobody can say how it is
	default:
		d.add("domains", "", sevOK, "warmreboot enable DOMAIN", "no domain is managed")
	}
}

func (d *diagnosis) checkDomain(ctx context.Context, l local, s api.DomainStatus, hvm bool) {
	before, word := len(d.Findings), ident.Word(s.Domain, s.UUID)
	switch {
	case s.Twin != 0:
		d.add("domain", s.Domain, sevWarning, "give one of them a UUID of its own (uuid= in its configuration), and xl create it again",
			"domid %d runs under the same UUID %s: both are left alone", s.Twin, s.UUID)
		return
	case s.State == "gone":
		d.add("domain", s.Domain, sevOK, "warmreboot history "+word, "it is not here: it was saved, or has moved to another host")
		return
	case s.State == "down":
		// Not "create it": it may have been migrated, and run elsewhere.
		d.add("domain", s.Domain, sevOK, "warmreboot history "+word, "it is down; Xen has preserved %s", pages(s.ImagePages))
		return
	case !hvm:
		d.add("domain", s.Domain, sevWarning, "make it a PVH guest: type=\"pvh\"", "it is a PV guest, which cannot have a warm cache")
		return
	case !s.Managed && !s.Enabled:
		d.add("domain", s.Domain, sevWarning, "warmreboot enable "+word, "its warm cache is not enabled")
		return
	case !s.Enabled:
		d.add("domain", s.Domain, sevWarning, "journalctl -u warmrebootd says why", "the agent manages it, but Xen does not track it")
	case s.Current != nil:
		d.add("domain", s.Domain, sevOK, "warmreboot status "+word+" --wait", "a reboot is under way")
		return
	case !s.Attached && s.Resumed:
		d.add("guest kernel", s.Domain, sevWarning, "warmreboot reboot "+word+" --cold, when it suits", "it was suspended since its boot (saved, migrated or copied): it is tracked from its next boot on, which is a cold one")
	case !s.Attached:
		d.add("guest kernel", s.Domain, sevWarning, "boot a kernel with CONFIG_XEN_WARMCACHE, after it was enabled", "its kernel does not track its page cache: the next reboot is a cold one")
	case !s.Armed:
		d.add("domain", s.Domain, sevWarning, "systemctl restart warmrebootd", "Xen would preserve nothing of it when it reboots")
	}
	switch o, err := l.owner(s.Domid, s.UUID, s.Domain); {
	case err != nil:
		d.add("toolstack", s.Domain, sevUnknown, "run it as root", "who created it cannot be told: %v", err)
	case o.Recreates() != nil:
		d.add("toolstack", s.Domain, sevWarning, "see its configuration", "%v", o.Recreates())
	}
	d.checkDisks(ctx, l, s)
	for _, c := range s.Custody {
		if c.State != "certain" {
			d.add("custody "+c.Name, s.Domain, sevWarning, "see who writes to it past the guest; it is certain again after the next reboot", "custody of %s is %s: %s", c.Backing, c.State, c.Reason)
		}
	}
	if len(d.Findings) == before {
		d.add("domain", s.Domain, sevOK, "", "tracked, reusable now %s", pages(s.Committed))
	}
}

// lockEnds is how long before its end a lock is spoken of: whoever still needs it has
// the time to take it anew.
const lockEnds = 15 * time.Minute

// checkSchedules looks for what keeps domains from being rebooted, or will soon keep
// them no longer, which nobody is told of otherwise: of all domains, or of the one that
// is named.
func (d *diagnosis) checkSchedules(ctx context.Context, runs api.Schedules, all []api.DomainStatus, only string) {
	f, err := runs.Forecast(ctx, "")
	if err != nil {
		d.add("schedules", "", sevUnknown, "warmreboot plan", "what schedules will do cannot be told: %v", err)
		return
	}
	before := len(d.Findings)
	if c := f.Config; c.Error != "" {
		severity := sevWarning
		if c.Loaded.IsZero() {
			severity = sevCritical
		}
		faults := strings.Split(c.Error, "\n")
		d.add("config", "", severity, "warmreboot config check "+c.Dir, "what is in %s is wrong; %s: %s%s", c.Dir, c.InForce(), faults[0], andMore(len(faults)-1))
	}
	meant := func(uuid ident.UUID) bool {
		ref := ident.ParseRef(only)
		return only == "" || slices.ContainsFunc(all, func(s api.DomainStatus) bool {
			return s.UUID == uuid && ref.Matches(s.Domain, s.UUID, s.Domid)
		})
	}
	for _, h := range f.Halted {
		ofIt := func(r api.PlannedRun) bool { return r.Schedule == h.Schedule && meant(r.UUID) }
		if only == "" || slices.ContainsFunc(f.Runs, ofIt) {
			d.add("schedule "+h.Schedule, "", sevWarning, "warmreboot resume "+h.Schedule+", once that is mended", "it is stopped: %s", h.Why)
		}
	}
	var lost []api.LockStatus
	for _, l := range f.Locks {
		left := l.Until.Sub(f.Now)
		switch {
		case !meant(l.UUID) || l.Operation != "": // an operation's is released with its end
		case l.Until.IsZero():
			lost = append(lost, l)
		case left < lockEnds:
			d.add("lock", l.Domain, sevWarning, "if it is still needed, its owner takes it anew: warmreboot lock "+ident.Word(l.Domain, l.UUID),
				"the lock of %s ends in %v, at %s: schedules and operators may reboot it then", l.Owner, max(0, left.Round(time.Second)), clock(l.Until))
		}
	}
	if len(lost) > 0 {
		d.add("lock", lost[0].Domain, sevWarning, "warmreboot unlock each that you have looked at; warmreboot plan lists them",
			"it counts as locked%s: %s", andMore(len(lost)-1), lost[0].Reason)
	}
	if len(d.Findings) == before {
		d.add("schedules", "", sevOK, "warmreboot plan", "%d runs ahead, %d locks", len(f.Runs), len(f.Locks))
	}
}

func andMore(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", n)
}

// isDrive reports whether a vbd is a drive for CDs or DVDs, which may be empty. A
// drive without a medium may have no backend; then there is only the node that the
// guest could write, and harm nobody but itself by it.
func isDrive(ctx context.Context, l local, be disk.Backend, front string) bool {
	kind, err := "", error(nil)
	if be.Path != "" {
		kind, err = l.store.Read(ctx, be.Path+"/device-type")
	}
	if be.Path == "" || err != nil {
		kind, _ = l.store.Read(ctx, front+"/device-type")
	}
	return kind == "cdrom"
}

// checkDisks looks for vbds that cannot be tracked, or not vouched for.
func (d *diagnosis) checkDisks(ctx context.Context, l local, s api.DomainStatus) {
	dir := fmt.Sprintf("/local/domain/%d/device/vbd", s.Domid)
	names, err := l.store.Directory(ctx, dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.add("disks", s.Domain, sevUnknown, "xenstore-ls "+dir, "%v", err)
		return
	}
	for _, name := range names {
		n, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			continue
		}
		d.checkDisk(ctx, l, s, ident.VBD(n), path.Join(dir, name))
	}
}

func (d *diagnosis) checkDisk(ctx context.Context, l local, s api.DomainStatus, vbd ident.VBD, front string) {
	check := "vbd " + vbd.Name()
	be, err := disk.FindBackend(ctx, l.store, s.Domid, vbd)
	switch {
	case isDrive(ctx, l, be, front):
		return // nothing of a drive is tracked, whatever lies in it
	case errors.Is(err, disk.ErrNoBackend):
		d.add(check, s.Domain, sevWarning, "give it a backend in dom0: its pages are never restored", "its backend is not blkback or QEMU in dom0")
		return
	case err != nil:
		d.add(check, s.Domain, sevUnknown, "xenstore-ls "+front, "%v", err)
		return
	case be.Kind == "qdisk":
		d.add(check, s.Domain, sevWarning, "use a block device or a raw file with blkback (phy:, file:)", "QEMU is its backend, which has no counters: who else writes to it is not seen")
	}
	if _, err := l.disks.Resolve(be); err != nil && !errors.Is(err, disk.ErrNotReady) {
		d.add(check, s.Domain, sevWarning, "use a block device or a raw image file: other formats cannot be compared, their pages are never restored", "%v", err)
	}
	// The guest writes its own node, and harms nobody but itself by it.
	ours, _ := l.store.Read(ctx, be.Path+"/feature-persistent")
	theirs, _ := l.store.Read(ctx, front+"/feature-persistent")
	if ours == "1" && theirs == "1" && (s.Attached || !s.Resumed) { // a restored guest has not asked for others yet
		d.add(check, s.Domain, sevWarning, "boot the guest's patched kernel after it was enabled, or with xen_blkfront.feature_persistent=0",
			"persistent grants are on: its I/O goes through copies, and is not tracked")
	}
}
